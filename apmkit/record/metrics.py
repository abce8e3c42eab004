"""Counters, gauges and histograms whose series are bound once and then cost two additions.

No lock guards a series: each update is one bytecode sequence without a call in between, which
CPython's interpreter lock does not interrupt. A metric holds at most `MAX_SERIES` series; what
comes after counts in one overflow series, so that totals stay exact whatever the labels are.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from opentelemetry.util.types import AttributeValue

MAX_SERIES = 2_000
MAX_LABEL_LENGTH = 1_024

HTTP_DURATION_BOUNDARIES = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
"""Seconds; OpenTelemetry semantic conventions, `http.server.request.duration`."""

DATABASE_DURATION_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Seconds; OpenTelemetry semantic conventions, `db.client.operation.duration`."""

CACHE_DURATION_BOUNDARIES = (0.000001, 0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)
"""Seconds; an in-process cache answers in microseconds, a remote one in milliseconds."""

SIZE_BOUNDARIES = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
"""Bytes."""

DEFAULT_BOUNDARIES = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
"""OpenTelemetry's default for a histogram without advice."""

OVERFLOW_ATTRIBUTES: Labels = (("otel.metric.overflow", True),)


Labels: TypeAlias = "tuple[tuple[str, AttributeValue], ...]"
"""Label names and values, sorted by name."""

Exemplar: TypeAlias = "tuple[float, int, int, int]"
"""A measured value, its Unix time in nanoseconds, and the kept trace and span in which it was
measured. A plain tuple, because one is made for every span of every kept trace.
"""


class NumberSeries:
    """One series of a counter or gauge: the attributes and the number."""

    __slots__ = ("attributes", "exemplar", "value")

    def __init__(self, attributes: Labels) -> None:
        self.attributes = attributes
        self.value: float = 0
        self.exemplar: Exemplar | None = None

    def add(self, amount: float = 1) -> None:
        """Add `amount` to the number."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace the number."""
        self.value = value

    def reset(self) -> None:
        """Return to nothing."""
        self.value = 0
        self.exemplar = None


class HistogramSeries:
    """One series of a histogram: how many values fell into each bucket, and their sum."""

    __slots__ = ("attributes", "boundaries", "counts", "exemplars", "sum")

    def __init__(self, attributes: Labels, boundaries: Sequence[float]) -> None:
        self.attributes = attributes
        self.boundaries = boundaries
        self.counts = [0] * (len(boundaries) + 1)
        self.sum: float = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count `value` into its bucket; a boundary belongs to the bucket below it."""
        index = bisect_left(self.boundaries, value)
        self.counts[index] += 1
        self.sum += value

    def reset(self) -> None:
        """Return to nothing."""
        self.counts = [0] * len(self.counts)
        self.sum = 0.0
        self.exemplars = {}

    def attach_exemplar(self, exemplar: Exemplar) -> None:
        """Keep `exemplar` as the latest of its bucket."""
        self.exemplars[bisect_left(self.boundaries, exemplar[0])] = exemplar

    def quantile_boundary(self, quantile: float) -> float | None:
        """Return the upper boundary of the bucket that holds `quantile`.

        At most `1 - quantile` of the observed values lie above it. None while the bucket is the
        unbounded last one or nothing was observed.
        """
        counts = self.counts
        rank = sum(counts) * quantile
        if not rank:
            return None
        cumulative = 0
        for boundary, count in zip(self.boundaries, counts, strict=False):
            cumulative += count
            if cumulative >= rank:
                return boundary
        return None


SeriesType = TypeVar("SeriesType", NumberSeries, HistogramSeries)


class Instrument(Generic[SeriesType]):
    """A metric: its name, unit, description, and its series by attributes."""

    def __init__(
        self, kind: str, name: str, unit: str, description: str, make: Callable[..., SeriesType]
    ) -> None:
        self.kind = kind
        self.name = name
        self.unit = unit
        self.description = description
        self.series: dict[object, SeriesType] = {}
        self._make: Callable[..., SeriesType] = make
        self._slots = itertools.count()

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None) -> SeriesType:
        """Return the series of these attributes; keep it where the same ones come back.

        Args:
            attributes: label names and values; the order does not matter. Text longer than
                1,024 characters is cut.

        Returns:
            The series, or the one overflow series once the metric has 2,000 others.
        """
        pairs: Labels = tuple(
            sorted((str(key), _label(value)) for key, value in (attributes or {}).items())
        )
        # 1, 1.0 and True are equal in Python and three labels on the wire.
        key = (
            pairs
            if all(type(v) is str for _, v in pairs)
            else (pairs, *(type(v) for _, v in pairs))
        )
        found: SeriesType | None = self.series.get(key)
        return found if found is not None else self._create(key, pairs)

    def _create(self, key: object, pairs: Labels) -> SeriesType:
        # The counter hands each creator a number of its own, so the limit holds without a lock.
        if len(self.series) < MAX_SERIES and next(self._slots) < MAX_SERIES:
            return self.series.setdefault(key, self._make(pairs))
        return self.series.setdefault(OVERFLOW_ATTRIBUTES, self._make(OVERFLOW_ATTRIBUTES))

    @property
    def overflowing(self) -> bool:
        """Tell whether the metric has all the series that it may have."""
        return OVERFLOW_ATTRIBUTES in self.series

    def all_series(self) -> list[SeriesType]:
        """Return every series, the overflow series among them."""
        return list(self.series.values())


class Counter(Instrument[NumberSeries]):
    """A number that only grows."""

    def add(self, amount: float, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Add `amount`, which must not be negative, to the series of `attributes`.

        Raises:
            ValueError: if `amount` is negative.
        """
        if amount < 0:
            message = f"counter {self.name!r} only grows; {amount!r} is negative (use a gauge)"
            raise ValueError(message)
        self.bind(attributes).value += amount


class Gauge(Instrument[NumberSeries]):
    """A number that is what it was last set to."""

    def set(self, value: float, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Set the series of `attributes` to `value`."""
        self.bind(attributes).value = value


class Histogram(Instrument[HistogramSeries]):
    """The distribution of observed values.

    Raises:
        ValueError: if the boundaries do not increase.
    """

    def __init__(self, name: str, unit: str, description: str, boundaries: Sequence[float]) -> None:
        self.boundaries = tuple(boundaries)
        if not all(low < high for low, high in itertools.pairwise(self.boundaries)):
            message = f"histogram {name!r}: boundaries must increase; they are {self.boundaries!r}"
            raise ValueError(message)
        super().__init__(
            "histogram",
            name,
            unit,
            description,
            lambda pairs: HistogramSeries(pairs, self.boundaries),
        )

    def observe(self, value: float, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Count `value` into the series of `attributes`."""
        self.bind(attributes).observe(value)


class Metrics:
    """All metrics of an agent: created once by name, read by whoever exports them."""

    def __init__(self) -> None:
        self._instruments: dict[str, Instrument[Any]] = {}
        self._observers: list[Callable[[], None]] = []

    def counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        """Return the counter of this name."""
        return self._get(
            Counter, name, lambda: Counter("counter", name, unit, description, NumberSeries)
        )

    def gauge(self, name: str, unit: str = "", description: str = "") -> Gauge:
        """Return the gauge of this name."""
        return self._get(Gauge, name, lambda: Gauge("gauge", name, unit, description, NumberSeries))

    def histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        boundaries: Sequence[float] = DEFAULT_BOUNDARIES,
    ) -> Histogram:
        """Return the histogram of this name; `boundaries` count the first time only."""
        return self._get(Histogram, name, lambda: Histogram(name, unit, description, boundaries))

    def observe_with(self, observer: Callable[[], None]) -> None:
        """Call `observer` before each reading; it sets gauges that nobody needs in between."""
        self._observers.append(observer)

    def reset(self) -> None:
        """Count from nothing again, in the same series: a forked child has counted nothing yet."""
        for instrument in self._instruments.values():
            for series in instrument.all_series():
                series.reset()

    def collect(self) -> Iterable[Instrument[Any]]:
        """Run the observers and return every instrument in the order of creation."""
        for observer in self._observers:
            observer()
        return list(self._instruments.values())

    def _get(
        self, kind: type[InstrumentType], name: str, make: Callable[[], InstrumentType]
    ) -> InstrumentType:
        found: Instrument[Any] | None = self._instruments.get(name)
        if found is None:
            found = self._instruments.setdefault(name, make())
        if not isinstance(found, kind):
            message = (
                f"metric {name!r} is a {found.kind}; it cannot be a {kind.__name__.lower()} too"
            )
            raise ValueError(message)  # noqa: TRY004 - the name is at fault, not a type
        return found


InstrumentType = TypeVar("InstrumentType", Counter, Gauge, Histogram)


def _label(value: AttributeValue) -> AttributeValue:
    if type(value) is str:
        return value if len(value) <= MAX_LABEL_LENGTH else value[:MAX_LABEL_LENGTH]
    if isinstance(value, (bool, int, float)):
        return value
    try:
        return str(value)[:MAX_LABEL_LENGTH]
    except Exception:  # noqa: BLE001 - an object of the application, with any __str__
        return f"<{type(value).__name__}>"
