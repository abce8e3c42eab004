"""Recording a database or cache call: one observation, and a leaf of the open trace.

A `Call` is made once for all calls that look alike (the same statement, the same command, a hit)
and holds what they share. A call that ends costs a bucket count and an append; its span is made
only if the trace is kept.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from apmkit.record.context import SPAN_KEY, get_context
from apmkit.record.errors import qualified_name
from apmkit.record.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue

    from apmkit.record.metrics import Histogram, HistogramSeries
    from apmkit.record.trace import LateCalls

_MAX_ERROR_TYPES = 32


class Call(Shared):
    """What calls that look alike share.

    Args:
        provider: takes calls that are made outside every trace.
        histogram: measures their duration, in seconds.
        name: the name of their spans.
        kind: CLIENT for what leaves the process, INTERNAL for what does not.
        attributes: of their spans.
        labels: of their metric series; the label `error.type` is added to calls that fail.
    """

    __slots__ = ("_failed", "_histogram", "labels", "provider", "series")

    def __init__(
        self,
        provider: LateCalls,
        histogram: Histogram,
        name: str,
        attributes: Mapping[str, AttributeValue],
        labels: Mapping[str, AttributeValue],
        kind: SpanKind = SpanKind.CLIENT,
    ) -> None:
        super().__init__(name, kind, attributes)
        self.provider = provider
        self.labels = dict(labels)
        self.series = histogram.bind(labels)
        self._histogram = histogram
        self._failed: dict[type, HistogramSeries] = {}

    def failed(self, error: BaseException) -> HistogramSeries:
        """Return the series of calls that raise such an error."""
        kind = type(error)
        series = self._failed.get(kind)
        if series is None:
            known = len(self._failed) < _MAX_ERROR_TYPES
            label = qualified_name(kind) if known else "_OTHER"
            series = self._histogram.bind({**self.labels, "error.type": label})
            if known:
                self._failed[kind] = series
        return series


def record_call(
    call: Call,
    start: int,
    end: int,
    error: BaseException | None = None,
    attributes: dict[str, AttributeValue] | None = None,
) -> None:
    """Record a call that has ended.

    Args:
        call: what it has in common with others.
        start: monotonic nanoseconds (`apmkit.record.clock.now`).
        end: the same, at the end.
        error: what it raised, if it did.
        attributes: what only this call has; encoded only if the trace is kept.
    """
    series = call.series if error is None else call.failed(error)
    value = (end - start) * 1e-9
    bucket = bisect_left(series.boundaries, value)
    series.counts[bucket] += 1
    series.sum += value
    # Another SDK's span, or none, has no trace of ours.
    span: Any = get_context().get(SPAN_KEY)
    try:
        trace = span.trace
        if trace.room > 0:
            trace.room -= 1
            trace.append((call, span, start, end, error, attributes, series, bucket))
            return
    except AttributeError:
        span = None
    call.provider.late_call((call, span, start, end, error, attributes, series, bucket))
