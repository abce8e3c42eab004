"""A reading of all metrics at one moment, as plain data that can be merged, sent and shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from apmkit.record.metrics import Instrument, Metrics

Attribute = tuple[str, str | bool | int | float]


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """A measured value and the kept trace in which it was measured (identifiers in hex)."""

    value: float
    time_unix_nano: int
    trace_id: str
    span_id: str


class Point(msgspec.Struct, gc=False):
    """One series of a metric.

    A counter or gauge has `value`. A histogram has `counts` (a bucket more than the metric has
    boundaries, not cumulative), their `sum`, and exemplars by bucket index.
    """

    attributes: tuple[Attribute, ...]
    value: float = 0.0
    counts: list[int] = []
    sum: float = 0.0
    exemplars: dict[int, Exemplar] = {}


class MetricData(msgspec.Struct, gc=False):
    """A metric with all its series. `kind` is "counter", "gauge" or "histogram"."""

    name: str
    kind: str
    unit: str
    description: str
    points: list[Point]
    boundaries: tuple[float, ...] = ()


class Snapshot(msgspec.Struct):
    """All metrics of a service at `time_unix_nano`, counted since `start_unix_nano`."""

    start_unix_nano: int
    time_unix_nano: int
    metrics: list[MetricData]


def take(
    metrics: Metrics, start_unix_nano: int, pause: Callable[[], None] | None = None
) -> Snapshot:
    """Read every instrument.

    Args:
        metrics: what to read.
        start_unix_nano: when counting began, Unix time in nanoseconds.
        pause: called every few series, so that a reading off the request path can give way.

    Returns:
        The reading. Empty histograms and metrics without series are left out.
    """
    read: list[MetricData] = []
    for instrument in metrics.collect():
        points = list(_points(instrument, pause))
        if points:
            boundaries = getattr(instrument, "boundaries", ())
            read.append(
                MetricData(
                    name=instrument.name,
                    kind=instrument.kind,
                    unit=instrument.unit,
                    description=instrument.description,
                    points=points,
                    boundaries=boundaries,
                )
            )
    return Snapshot(start_unix_nano, time.time_ns(), read)


def _points(instrument: Instrument[Any], pause: Callable[[], None] | None) -> Iterable[Point]:
    histogram = instrument.kind == "histogram"
    for number, series in enumerate(instrument.all_series(), start=1):
        if pause is not None and not number % 64:
            pause()
        if not histogram:
            found = {} if series.exemplar is None else {0: series.exemplar}
            yield Point(series.attributes, value=series.value, exemplars=_exemplars(found))
        elif any(series.counts):
            yield Point(
                series.attributes,
                counts=series.counts.copy(),
                sum=series.sum,
                exemplars=_exemplars(series.exemplars),
            )


def _exemplars(found: Mapping[int, Any]) -> dict[int, Exemplar]:
    return {
        index: Exemplar(value, time_unix_nano, f"{trace_id:032x}", f"{span_id:016x}")
        for index, (value, time_unix_nano, trace_id, span_id) in list(found.items())
    }
