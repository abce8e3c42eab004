"""Traces from their root's start to their being kept or freed."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from apmkit.record import clock
from apmkit.record.faults import Faults
from apmkit.record.metrics import Metrics
from apmkit.record.sampling import BudgetSampler, Sampler, StandardHead
from apmkit.record.trace import MAX_SPANS, Trace
from apmkit.record.tracer import SCOPE, TracerProvider
from apmkit.record.tracestate import threshold_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.record.span import Span

SECOND = 1_000_000_000


class Kept:
    """A sink that remembers what it was handed."""

    def __init__(self) -> None:
        self.handed: list[tuple[list[Any], Span | None, int]] = []

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:
        self.handed.append((list(trace), root, open_until))

    @property
    def spans(self) -> int:
        return sum(len(entries) + (root is not None) for entries, root, _ in self.handed)

    def names(self) -> list[list[str]]:
        return [
            [span.name for span in (*entries, *([root] if root else []))]
            for entries, root, _ in self.handed
        ]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def provide(kept: Kept, sampler: Sampler | None = None, slow_after: float = 1.0) -> TracerProvider:
    return TracerProvider(
        sampler or BudgetSampler(float("inf")), kept, Faults(Metrics()), slow_after
    )


def start(provider: TracerProvider, name: str = "root", parent: SpanContext | None = None) -> Span:
    return provider.start_root(name, SpanKind.SERVER, clock.now(), parent)


def child(provider: TracerProvider, parent: object, name: str = "child") -> Span:
    return provider.start_span(name, parent, SpanKind.INTERNAL, clock.now(), SCOPE)


def upstream(*, sampled: bool, state: str = "") -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parsed = TraceState.from_header([state]) if state else TraceState()
    return SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=flags, trace_state=parsed)


def created(provider: TracerProvider, kept: Kept) -> int:
    return provider.unsampled + provider.over_limit + kept.spans


def test_a_kept_trace_is_handed_over_whole_as_its_root_ends(kept: Kept) -> None:
    provider = provide(kept)
    root = start(provider)
    one = child(provider, root, "one")
    two = child(provider, one, "two")
    two.end()
    one.end()
    assert kept.handed == []
    root.end()
    assert kept.names() == [["two", "one", "root"]]
    assert two.parent is one
    assert one.parent is root
    assert one.trace is two.trace is root.trace
    assert provider.open == {}


def test_a_dropped_trace_is_counted_once(kept: Kept) -> None:
    provider = provide(kept, BudgetSampler(0))
    root = start(provider)
    child(provider, root).end()
    root.end()
    root.end()
    assert (provider.unsampled, kept.handed) == (2, [])


def test_a_dropped_trace_is_freed_without_the_garbage_collector(kept: Kept) -> None:
    provider = provide(kept, BudgetSampler(0))

    class Payload:
        pass

    gc.collect()
    gc.disable()
    try:
        root = start(provider)
        span = child(provider, root)
        payload = Payload()
        gone = weakref.ref(payload)
        attributes: dict[str, Any] = {"payload": payload}
        span.set_attributes(attributes)
        span.end()
        root.end()
        del root, span, payload, attributes
        assert gone() is None
    finally:
        gc.enable()


def test_a_trace_holds_1000_spans_and_the_rest_is_counted(kept: Kept) -> None:
    provider = provide(kept)
    root = start(provider)
    for _ in range(1_500):
        child(provider, root).end()
    root.end()
    assert kept.spans == MAX_SPANS
    assert provider.over_limit == 501
    assert root.trace.overflow == 501
    assert created(provider, kept) == 1_501


def test_what_a_dropped_trace_had_no_room_for_counts_as_not_sampled(kept: Kept) -> None:
    provider = provide(kept, BudgetSampler(0))
    root = start(provider)
    for _ in range(1_500):
        child(provider, root).end()
    root.end()
    assert (provider.unsampled, provider.over_limit) == (1_501, 0)


def test_an_error_is_kept_although_the_head_did_not_sample_it(kept: Kept) -> None:
    provider = provide(kept, StandInSampler(tail=True))
    root = start(provider)
    root.set_status(StatusCode.ERROR)
    root.end()
    start(provider, "fine").end()
    assert kept.names() == [["root"]]


def test_a_slow_root_is_kept(kept: Kept) -> None:
    provider = provide(kept, StandInSampler(tail=True), slow_after=0.5)
    root = provider.start_root("slow", SpanKind.SERVER, clock.now() - SECOND)
    root.end()
    provider.start_root("quick", SpanKind.SERVER, clock.now()).end()
    assert kept.names() == [["slow"]]


def test_nothing_is_slow_where_slow_is_infinite(kept: Kept) -> None:
    provider = provide(kept, StandInSampler(tail=True), slow_after=float("inf"))
    provider.start_root("slow", SpanKind.SERVER, clock.now() - 10**6 * SECOND).end()
    assert kept.handed == []


class StandInSampler:
    """Samples nothing at the head and all that is odd at the tail."""

    threshold: int | None = threshold_of(0.25)

    def __init__(self, *, tail: bool, head: bool = False) -> None:
        self._tail = tail
        self._head = head

    def head(self, trace_id: int, now: int) -> bool:  # noqa: ARG002 - a fixed answer
        return self._head

    def decide(self, parent: SpanContext, trace_id: int, name: str, kind: SpanKind) -> bool:  # noqa: ARG002
        return parent.trace_flags.sampled

    def tail(self, *, error: bool, slow: bool) -> bool:
        return self._tail and (error or slow)


def test_upstreams_decision_is_respected(kept: Kept) -> None:
    provider = provide(kept, BudgetSampler(0))
    yes = start(provider, "yes", upstream(sampled=True))
    no = start(provider, "no", upstream(sampled=False))
    assert yes.get_span_context().trace_flags.sampled
    assert not no.get_span_context().trace_flags.sampled
    yes.end()
    no.end()
    assert kept.names() == [["yes"]]
    assert yes.get_span_context().trace_id == 0xABC
    assert yes.parent_span_id == 0xDEF


def test_upstreams_tracestate_goes_on_unchanged(kept: Kept) -> None:
    root = start(provide(kept), "root", upstream(sampled=True, state="ot=th:8,vendor=x"))
    assert root.get_span_context().trace_state.to_header() == "ot=th:8,vendor=x"


def test_a_sampled_root_puts_its_threshold_into_tracestate(kept: Kept) -> None:
    provider = provide(kept, StandInSampler(tail=False, head=True))
    root = start(provider)
    assert root.get_span_context().trace_state.to_header() == "ot=th:c"
    assert child(provider, root).get_span_context().trace_state.to_header() == "ot=th:c"
    assert root.get_span_context().trace_flags.sampled


def test_a_root_that_is_not_sampled_has_no_threshold_and_no_flag(kept: Kept) -> None:
    root = start(provide(kept, StandInSampler(tail=False)))
    assert not root.get_span_context().trace_state
    assert not root.get_span_context().trace_flags.sampled


def test_a_standard_sampler_replaces_the_budget(kept: Kept) -> None:
    provider = provide(kept, StandardHead(ALWAYS_OFF))
    root = start(provider)
    root.set_status(StatusCode.ERROR)
    root.end()
    start(provider, "sampled upstream", upstream(sampled=True)).end()
    assert (kept.handed, provider.unsampled) == ([], 2)


def test_a_late_span_follows_a_root_that_was_kept(kept: Kept) -> None:
    provider = provide(kept)
    root = start(provider)
    late = child(provider, root, "late")
    root.end()
    late.end()
    child(provider, root, "later").end()
    assert kept.names() == [["root"], ["late"], ["later"]]
    assert kept.handed[1][1] is None
    assert late.parent is root
    assert created(provider, kept) == 3


def test_a_late_span_follows_a_root_that_was_not_kept(kept: Kept) -> None:
    provider = provide(kept, BudgetSampler(0))
    root = start(provider)
    late = child(provider, root, "late")
    root.end()
    late.set_status(StatusCode.ERROR)
    late.end()
    assert (kept.handed, provider.unsampled) == ([], 2)


def test_a_root_that_is_open_for_a_minute_is_stored_as_it_stands_and_again_as_it_ends(
    kept: Kept,
) -> None:
    provider = provide(kept)
    root = start(provider)
    child(provider, root, "first").end()
    provider.store_long_open(root.start + 59 * SECOND)
    assert kept.handed == []
    now = root.start + 61 * SECOND
    provider.store_long_open(now)
    provider.store_long_open(now + SECOND)
    assert kept.names() == [["first", "root"]]
    assert kept.handed[0][2] == now
    child(provider, root, "second").end()
    root.end()
    assert kept.names() == [["first", "root"], ["second", "root"]]
    assert kept.handed[1][2] == 0
    assert created(provider, kept) == 4


def test_a_long_open_root_that_was_not_sampled_takes_from_the_budget_of_slow_ones(
    kept: Kept,
) -> None:
    provider = provide(kept, StandInSampler(tail=True))
    root = start(provider)
    provider.store_long_open(root.start + 61 * SECOND)
    assert kept.names() == [["root"]]
    root.end()
    assert kept.names() == [["root"], ["root"]]
    refused = provide(kept, BudgetSampler(0))
    root = start(refused)
    refused.store_long_open(root.start + 61 * SECOND)
    assert len(kept.handed) == 2


def test_a_span_without_parent_is_a_root_of_its_own(kept: Kept) -> None:
    tracer = provide(kept).get_tracer("library", "1.2")
    span = tracer.start_span(
        "job", Context(), SpanKind.CONSUMER, {"a": 1}, [Link(upstream(sampled=True))]
    )
    span.end()
    assert kept.names() == [["job"]]
    assert span.scope == ("library", "1.2")
    assert span.kind is SpanKind.CONSUMER
    assert span.attributes == {"a": 1}
    assert span.links == [(upstream(sampled=True), {})] or span.links == [
        (upstream(sampled=True), None)
    ]


def test_a_remote_parent_in_the_context_is_the_parent(kept: Kept) -> None:
    tracer = provide(kept).get_tracer("library")
    context = trace_api.set_span_in_context(NonRecordingSpan(upstream(sampled=True)), Context())
    span = tracer.start_span("job", context)
    assert span.parent_span_id == 0xDEF
    assert span.get_span_context().trace_id == 0xABC


def test_an_invalid_parent_in_the_context_is_none(kept: Kept) -> None:
    tracer = provide(kept).get_tracer("library")
    context = trace_api.set_span_in_context(trace_api.INVALID_SPAN, Context())
    assert tracer.start_span("job", context).parent_span_id == 0


def test_a_start_time_is_unix_time(kept: Kept) -> None:
    tracer = provide(kept).get_tracer("library")
    span = tracer.start_span("job", start_time=clock.wall_offset() + clock.now() - 5 * SECOND)
    assert clock.now() - span.start == pytest.approx(5 * SECOND, rel=0.05)


def test_the_tracer_is_opentelemetrys(kept: Kept) -> None:
    provider = provide(kept)
    tracer = provider.get_tracer("library")
    assert isinstance(provider, trace_api.TracerProvider)
    assert isinstance(tracer, trace_api.Tracer)
    with trace_api.use_span(tracer.start_span("outer"), end_on_exit=True) as outer:
        assert trace_api.get_current_span() is outer
        inner = tracer.start_span("inner")
        inner.end()
    assert kept.names() == [["inner", "outer"]]


def test_a_task_that_outlives_its_root_gets_the_span_that_follows(kept: Kept) -> None:
    provider = provide(kept)
    root = start(provider)
    follower = Follower(provider, root)
    root.trace.follower = follower
    root.end()
    span = child(provider, root, "after")
    span.end()
    assert span.parent is follower.span
    assert follower.span is not None
    follower.span.end()
    assert kept.names() == [["root"], ["after", "background"]]


class Follower:
    """A background task's span, started as somebody asks for it."""

    def __init__(self, provider: TracerProvider, root: Span) -> None:
        self._provider = provider
        self._root = root
        self.span: Span | None = None

    def follow(self) -> Span:
        if self.span is None:
            self.span = self._provider.start_root("background", SpanKind.INTERNAL, clock.now())
            self.span.add_link(self._root.get_span_context())
        return self.span


def _child_ids(produce: Callable[[], bytes]) -> bytes:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, produce())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as stream:
        return stream.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_children_start_traces_of_their_own(kept: Kept) -> None:
    provider = provide(kept)

    def produce() -> bytes:
        context = start(provider).get_span_context()
        return context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big")

    found = [_child_ids(produce), _child_ids(produce), produce()]
    assert len({one[:16] for one in found}) == 3
    assert len({one[16:] for one in found}) == 3


def test_concurrent_requests_keep_their_spans_apart(kept: Kept) -> None:
    tracer = provide(kept).get_tracer("library")

    async def request(number: int) -> None:
        with tracer.start_as_current_span(f"request {number}", Context()):
            for _ in range(3):
                with tracer.start_as_current_span(f"query {number}"):
                    await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(request(number) for number in range(20)))

    asyncio.run(main())
    assert len(kept.handed) == 20
    for names in kept.names():
        number = names[-1].rpartition(" ")[2]
        assert names == [f"query {number}"] * 3 + [f"request {number}"]
