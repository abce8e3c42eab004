"""Recorded calls: counted once, and leaves of the trace that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind

from apmkit.record import clock
from apmkit.record.call import Call, record_call
from apmkit.record.faults import Faults
from apmkit.record.metrics import DATABASE_DURATION_BOUNDARIES, Histogram, Metrics
from apmkit.record.sampling import BudgetSampler
from apmkit.record.trace import MAX_SPANS
from apmkit.record.tracer import TracerProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apmkit.record.span import Span
    from apmkit.record.trace import Trace

MILLISECOND = 1_000_000


class Kept:
    """A sink that remembers what it was handed."""

    def __init__(self) -> None:
        self.handed: list[tuple[list[Any], Span | None]] = []

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:  # noqa: ARG002
        self.handed.append((list(trace), root))


@pytest.fixture(autouse=True)
def _nothing_is_current() -> Iterator[None]:
    token = attach(Context())
    yield
    detach(token)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def histogram() -> Histogram:
    return Metrics().histogram(
        "db.client.operation.duration", "s", "", DATABASE_DURATION_BOUNDARIES
    )


def make(kept: Kept, histogram: Histogram, budget: float = float("inf")) -> Call:
    provider = TracerProvider(BudgetSampler(budget), kept, Faults(Metrics()))
    return Call(
        provider, histogram, "SELECT", {"db.system.name": "sqlite"}, {"db.system.name": "sqlite"}
    )


def record(call: Call, milliseconds: float = 2, error: BaseException | None = None) -> None:
    end = clock.now()
    record_call(call, end - int(milliseconds * MILLISECOND), end, error)


def of(call: Call) -> TracerProvider:
    assert isinstance(call.provider, TracerProvider)
    return call.provider


def current(call: Call) -> Any:  # noqa: ANN401 - a context manager
    return of(call).get_tracer("tests").start_as_current_span("root")


def test_a_call_is_one_observation_and_a_leaf_of_the_open_trace(
    kept: Kept, histogram: Histogram
) -> None:
    call = make(kept, histogram)
    with current(call) as root:
        record(call)
    ((entries, found_root),) = kept.handed
    assert found_root is root
    assert [entry[0] for entry in entries] == [call]
    assert entries[0][1] is root
    assert sum(call.series.counts) == 1
    assert call.series.sum == pytest.approx(0.002)


def test_a_call_is_a_leaf_of_the_innermost_span(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram)
    with current(call), of(call).get_tracer("tests").start_as_current_span("inner") as inner:
        record(call)
    ((entries, _),) = kept.handed
    assert entries[0][1] is inner


def test_a_call_is_counted_although_its_trace_is_dropped(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram, budget=0)
    with current(call):
        record(call)
    assert kept.handed == []
    assert of(call).unsampled == 2
    assert sum(call.series.counts) == 1


def test_a_call_outside_every_trace_is_a_trace_of_its_own(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram)
    record(call)
    ((entries, root),) = kept.handed
    assert root is None
    assert entries[0][1] is None
    assert sum(call.series.counts) == 1


def test_a_call_outside_every_trace_obeys_the_budget(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram, budget=0)
    record(call)
    assert (kept.handed, of(call).unsampled) == ([], 1)


def test_a_call_under_another_sdks_span_is_recorded_all_the_same(
    kept: Kept, histogram: Histogram
) -> None:
    call = make(kept, histogram)
    foreign = NonRecordingSpan(SpanContext(1, 2, is_remote=False))
    with trace_api.use_span(foreign):
        record(call)
    assert len(kept.handed) == 1
    assert sum(call.series.counts) == 1


def test_a_failed_call_counts_in_the_series_of_its_error(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram)
    record(call, error=KeyError("gone"))
    record(call, error=KeyError("gone again"))
    assert sum(call.series.counts) == 0
    series = call.failed(KeyError())
    assert sum(series.counts) == 2
    assert dict(series.attributes) == {"db.system.name": "sqlite", "error.type": "KeyError"}


def test_errors_of_endlessly_many_types_are_one_series(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram)
    for number in range(100):
        kind = type(f"Error{number}", (Exception,), {})
        record(call, error=kind())
    series = histogram.all_series()
    assert len(series) == 1 + 32 + 1
    assert sum(sum(one.counts) for one in series) == 100
    others = [one for one in series if ("error.type", "_OTHER") in one.attributes]
    assert [sum(one.counts) for one in others] == [68]


def test_a_call_after_its_root_follows_it(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram)
    with current(call) as root:
        pass
    with trace_api.use_span(root):
        record(call)
    assert [found_root for _, found_root in kept.handed] == [root, None]
    assert kept.handed[1][0][0][1] is root


def test_a_trace_counts_the_calls_that_it_has_no_room_for(kept: Kept, histogram: Histogram) -> None:
    call = make(kept, histogram)
    with current(call):
        for _ in range(MAX_SPANS + 200):
            record(call)
    ((entries, _),) = kept.handed
    assert len(entries) == MAX_SPANS - 1
    assert of(call).over_limit == 201
    assert sum(call.series.counts) == MAX_SPANS + 200


def test_a_call_leaves_the_process_unless_it_is_said_to_stay(
    kept: Kept, histogram: Histogram
) -> None:
    assert make(kept, histogram).kind is SpanKind.CLIENT
    provider = TracerProvider(BudgetSampler(1), kept, Faults(Metrics()))
    assert Call(provider, histogram, "get", {}, {}, SpanKind.INTERNAL).kind is SpanKind.INTERNAL
