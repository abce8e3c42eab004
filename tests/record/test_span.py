"""The span: what OpenTelemetry's API promises of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from apmkit.record import clock
from apmkit.record.errors import qualified_name, safe_text
from apmkit.record.span import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_LINKS,
    Span,
)
from apmkit.record.trace import Trace
from apmkit.record.tracer import SCOPE
from apmkit.record.tracestate import threshold_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Ended(list[Span]):
    """An owner that remembers who told it that it ended."""

    def span_ended(self, span: Span) -> None:
        self.append(span)


def make(
    trace: Trace | None = None, parent: Span | None = None, owner: Ended | None = None
) -> Span:
    trace = Trace(0xABC, None, None, sampled=True) if trace is None else trace
    owner = Ended() if owner is None else owner
    return Span(owner, trace, parent, "work", SpanKind.INTERNAL, clock.now(), SCOPE)


def context(trace_id: int = 0x123, span_id: int = 0x456) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=True, trace_state=TraceState([("a", "1")]))


def test_an_identifier_is_made_once_and_kept() -> None:
    span = make()
    assert 0 < span.span_id < 2**64
    assert span.span_id == span.span_id == span.get_span_context().span_id


def test_a_span_tells_its_trace_and_its_flags() -> None:
    sampled = make(Trace(7, None, None, sampled=True)).get_span_context()
    dropped = make(Trace(7, None, None, sampled=False)).get_span_context()
    assert sampled.trace_id == dropped.trace_id == 7
    assert sampled.trace_flags == TraceFlags.SAMPLED
    assert dropped.trace_flags == TraceFlags.DEFAULT
    assert sampled.is_valid
    assert not sampled.is_remote


def test_a_sampled_trace_hands_its_threshold_on() -> None:
    trace = Trace(7, None, threshold_of(0.25), sampled=True)
    assert make(trace).get_span_context().trace_state.to_header() == "ot=th:c"


def test_a_trace_that_is_not_sampled_hands_no_threshold_on() -> None:
    trace = Trace(7, None, threshold_of(0.25), sampled=False)
    assert not make(trace).get_span_context().trace_state


def test_what_upstream_sent_is_handed_on() -> None:
    trace = Trace(0x123, context(), None, sampled=True)
    assert make(trace).get_span_context().trace_state.to_header() == "a=1"


def test_the_parent_is_a_span_of_ours_or_of_another_service_or_nobody() -> None:
    root = make(Trace(0x123, context(), None, sampled=True))
    assert root.parent_span_id == 0x456
    assert make(root.trace, root).parent_span_id == root.span_id
    assert make().parent_span_id == 0


def test_a_span_records_until_it_ends() -> None:
    owner = Ended()
    span = make(owner=owner)
    assert span.is_recording()
    span.end()
    assert not span.is_recording()
    assert owner == [span]


def test_a_span_ends_once() -> None:
    owner = Ended()
    span = make(owner=owner)
    span.end()
    end = span.end_time
    span.end()
    assert (owner, span.end_time) == ([span], end)


@pytest.mark.parametrize(
    "change",
    [
        lambda span: span.set_attribute("a", 2),
        lambda span: span.set_attributes({"a": 2}),
        lambda span: span.add_event("late"),
        lambda span: span.update_name("late"),
        lambda span: span.set_status(StatusCode.ERROR),
        lambda span: span.record_exception(ValueError("late")),
        lambda span: span.add_link(context()),
    ],
)
def test_an_ended_span_does_not_change(change: Callable[[Span], None]) -> None:
    span = make()
    span.set_attribute("a", 1)
    span.end()
    change(span)
    assert span.attributes == {"a": 1}
    assert span.events is None
    assert span.links is None
    assert span.name == "work"
    assert span.status is StatusCode.UNSET


def test_an_end_time_is_unix_time() -> None:
    span = make()
    at = clock.wall_offset() + span.start + 5_000_000_000
    span.end(at)
    assert span.end_time - span.start == pytest.approx(5e9, rel=0.01)


def test_attributes_events_and_links_are_bounded() -> None:
    span = make()
    for number in range(1_000):
        span.set_attribute(f"key {number}", number)
        span.add_event("event")
        span.add_link(context())
    span.set_attribute("key 0", "again")
    assert span.attributes is not None
    assert span.events is not None
    assert span.links is not None
    assert len(span.attributes) == MAX_ATTRIBUTES
    assert span.attributes["key 0"] == "again"
    assert len(span.events) == MAX_EVENTS
    assert len(span.links) == MAX_LINKS


def test_links_of_the_start_are_kept() -> None:
    span = make()
    span.add_links([Link(context(), {"why": "batch"})])
    assert span.links == [(context(), {"why": "batch"})]


def test_ok_is_final_and_unset_is_ignored() -> None:
    span = make()
    span.set_status(StatusCode.UNSET)
    span.set_status(StatusCode.ERROR, "broken")
    assert (span.status, span.description) == (StatusCode.ERROR, "broken")
    span.set_status(StatusCode.UNSET)
    assert span.status.name == "ERROR"
    span.set_status(Status(StatusCode.OK))
    assert (span.status, span.description) == (StatusCode.OK, None)
    span.set_status(StatusCode.ERROR, "too late")
    assert span.status is StatusCode.OK


def test_a_status_object_carries_its_description() -> None:
    span = make()
    span.set_status(Status(StatusCode.ERROR, "broken"))
    assert span.description == "broken"


def test_an_exception_becomes_an_event() -> None:
    span = make()
    try:
        raise KeyError("lost")  # noqa: TRY301 - to have a traceback
    except KeyError as error:
        span.record_exception(error, {"own": 1})
    assert span.events is not None
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "KeyError"
    assert event.attributes["exception.message"] == "'lost'"
    assert "test_span.py" in event.attributes["exception.stacktrace"]
    assert event.attributes["own"] == 1


class UnspeakableError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_printed_is_recorded_all_the_same() -> None:
    span = make()
    span.fail(UnspeakableError())
    assert span.events is not None
    assert span.events[0].attributes["exception.message"] == "<UnspeakableError without text>"
    assert span.status is StatusCode.ERROR
    assert safe_text(UnspeakableError()) == "<UnspeakableError without text>"


def test_as_a_context_manager_a_span_fails_with_its_block_and_ends() -> None:
    owner = Ended()
    span = make(owner=owner)
    with pytest.raises(ValueError, match="no"), span:
        raise ValueError("no")
    assert span.status is StatusCode.ERROR
    assert span.description == "ValueError: no"
    assert owner == [span]


def test_a_class_is_named_with_its_module_unless_it_is_built_in() -> None:
    assert qualified_name(ValueError) == "ValueError"
    assert qualified_name(UnspeakableError) == f"{__name__}.UnspeakableError"
