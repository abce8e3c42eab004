"""A snapshot of the agent's metrics as a prometheus-client collector."""

from __future__ import annotations

import math
from itertools import accumulate, chain
from typing import TYPE_CHECKING, cast

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample, Timestamp
from prometheus_client.utils import floatToGoString

from apmkit_prometheus.names import encodable, labels, metric_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from apmkit.relay.export import Exemplar as Measured
    from apmkit.relay.export import ExporterContext, MetricData, Point

# The sample names that OpenMetrics reserves for a metric of each kind.
_SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
}


def _no_pause() -> None:
    pass


class SnapshotCollector:
    """Yields every metric of a fresh snapshot, and `target_info` from the resource.

    It can be registered: `prometheus_client.REGISTRY.register(SnapshotCollector(context))`.

    Args:
        context: what the exporter was created with.
        pause: called after every sample, so that a thread can give way to the event loop.
    """

    def __init__(self, context: ExporterContext, pause: Callable[[], None] = _no_pause) -> None:
        """Read nothing yet."""
        self._context = context
        self._pause = pause

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those whose translated name is taken already are left out."""
        target = Metric("target", "Target metadata", "info")
        target.add_sample("target_info", labels(self._context.resource.items()), 1)
        yield target
        taken = {"target", "target_info"}
        for data in self._context.collect(self._pause).metrics:
            name, unit = metric_name(data.name, data.unit, data.kind)
            names = {name + suffix for suffix in _SUFFIXES[data.kind]}
            if not name or names & taken:
                self._context.warn(
                    f"metric {data.name!r} is left out of the Prometheus page: its name there, "
                    f"{name!r}, is {'taken by another metric' if name else 'empty'}"
                )
                continue
            taken |= names
            yield self._family(name, unit, data)

    def _family(self, name: str, unit: str, data: MetricData) -> Metric:
        family = Metric(name, encodable(data.description), data.kind, unit)
        # prometheus-client iterates over samples once, so they need not all exist at a time.
        family.samples = cast("list[Sample]", _Samples(name, data, self._pause))
        return family


class _Samples:
    """The samples of a metric, made while they are iterated over."""

    def __init__(self, name: str, data: MetricData, pause: Callable[[], None]) -> None:
        self._name = name
        self._data = data
        self._pause = pause
        edges = (*data.boundaries, math.inf)
        # A boundary at infinity is no bucket more than the last one.
        self._buckets = [
            (index, str(floatToGoString(edge)))  # type: ignore[no-untyped-call]
            for index, edge in enumerate(edges)
            if edge < math.inf or index == len(data.boundaries)
        ]

    def __iter__(self) -> Iterator[Sample]:
        make = {"counter": self._counter, "gauge": self._gauge, "histogram": self._histogram}
        samples_of = make[self._data.kind]
        for points in self._series().values():
            for sample in samples_of(labels(points[0].attributes), points):
                yield sample
                self._pause()

    def _series(self) -> dict[str, list[Point]]:
        """Return the points by their labels: two sets of attributes may become one of labels."""
        series: dict[str, list[Point]] = {}
        for point in self._data.points:
            # No value holds a NUL. The garbage collector, which would halt the event loop, does
            # not track strings.
            key = "\0".join(chain.from_iterable(sorted(labels(point.attributes).items())))
            series.setdefault(key, []).append(point)
            self._pause()
        return series

    def _counter(self, series: dict[str, str], points: list[Point]) -> Iterator[Sample]:
        value = sum(_number(point.value) for point in points)
        # OpenMetrics allows no other counters.
        if value >= 0:
            exemplar = _latest(point.exemplars.get(0) for point in points)
            yield Sample(f"{self._name}_total", series, value, None, exemplar)

    def _gauge(self, series: dict[str, str], points: list[Point]) -> Iterator[Sample]:
        yield Sample(self._name, series, _number(points[-1].value))

    def _histogram(self, series: dict[str, str], points: list[Point]) -> Iterator[Sample]:
        counts = (sum(bucket) for bucket in zip(*(p.counts for p in points), strict=True))
        cumulative = list(accumulate(counts))
        name = f"{self._name}_bucket"
        for index, boundary in self._buckets:
            exemplar = _latest(point.exemplars.get(index) for point in points)
            yield Sample(name, {**series, "le": boundary}, cumulative[index], None, exemplar)
        total = sum(_number(point.sum) for point in points)
        # OpenMetrics: a sum that can fall is none, and a count does not come without a sum.
        if total >= 0 and min(self._data.boundaries, default=0) >= 0:
            yield Sample(f"{self._name}_count", series, cumulative[-1])
            yield Sample(f"{self._name}_sum", series, total)


def _number(value: object) -> float:
    try:
        return float(cast("float", value))
    except (OverflowError, TypeError, ValueError):
        return math.nan


def _latest(found: Iterable[Measured | None]) -> Exemplar | None:
    newest = max((e for e in found if e is not None), key=lambda e: e.time_unix_nano, default=None)
    if newest is None:
        return None
    seconds, nanoseconds = divmod(newest.time_unix_nano, 1_000_000_000)
    return Exemplar(
        {"trace_id": newest.trace_id, "span_id": newest.span_id},
        newest.value,
        Timestamp(seconds, nanoseconds),
    )
