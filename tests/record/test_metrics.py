"""Counters, gauges and histograms: exact, whatever the labels and the threads do."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit.record.metrics import (
    DEFAULT_BOUNDARIES,
    MAX_LABEL_LENGTH,
    MAX_SERIES,
    OVERFLOW_ATTRIBUTES,
    Counter,
    Metrics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[], None], threads: int = 8) -> None:
    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def test_the_same_attributes_are_the_same_series_in_any_order() -> None:
    counter = Metrics().counter("orders")
    assert counter.bind({"a": "1", "b": "2"}) is counter.bind({"b": "2", "a": "1"})
    assert counter.bind() is counter.bind({})


def test_values_that_are_equal_in_python_alone_are_series_of_their_own() -> None:
    counter = Metrics().counter("orders")
    values: list[Any] = [1, 1.0, True, "1"]
    assert len({id(counter.bind({"n": value})) for value in values}) == 4


def test_a_counter_only_grows() -> None:
    counter = Metrics().counter("orders")
    counter.add(2)
    counter.add(0.5)
    assert counter.bind().value == 2.5
    with pytest.raises(ValueError, match="'orders' only grows; -1 is negative"):
        counter.add(-1)


def test_a_gauge_is_what_it_was_last_set_to() -> None:
    gauge = Metrics().gauge("depth")
    gauge.set(5, {"queue": "a"})
    gauge.set(3, {"queue": "a"})
    assert gauge.bind({"queue": "a"}).value == 3


def test_a_boundary_belongs_to_the_bucket_below_it() -> None:
    histogram = Metrics().histogram("size", boundaries=(1, 2))
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.observe(value)
    assert histogram.bind().counts == [2, 2, 1]
    assert histogram.bind().sum == 7.5


@pytest.mark.parametrize("boundaries", [(2, 1), (1, 1), (1, float("nan"))])
def test_boundaries_that_do_not_increase_are_refused(boundaries: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="boundaries must increase"):
        Metrics().histogram("size", boundaries=boundaries)


@given(st.lists(st.floats(0, 20_000), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_at_most_the_rest_lies_above_the_boundary_of_a_quantile(
    values: list[float], quantile: float
) -> None:
    series = Metrics().histogram("size").bind()
    for value in values:
        series.observe(value)
    boundary = series.quantile_boundary(quantile)
    above_last = sum(value > DEFAULT_BOUNDARIES[-1] for value in values)
    if boundary is None:
        assert above_last > len(values) * (1 - quantile) - 1e-9
    else:
        above = sum(value > boundary for value in values)
        assert above <= len(values) * (1 - quantile) + 1e-9


def test_nothing_observed_has_no_quantile() -> None:
    assert Metrics().histogram("size").bind().quantile_boundary(0.99) is None


def test_a_bucket_keeps_its_latest_exemplar() -> None:
    series = Metrics().histogram("size", boundaries=(1, 2)).bind()
    series.attach_exemplar((0.5, 10, 1, 1))
    series.attach_exemplar((0.7, 20, 2, 2))
    series.attach_exemplar((9.0, 30, 3, 3))
    assert series.exemplars == {0: (0.7, 20, 2, 2), 2: (9.0, 30, 3, 3)}


def test_totals_stay_exact_over_100000_hostile_labels() -> None:
    counter = Metrics().counter("hits")
    for number in range(100_000):
        counter.add(1, {"path": f"/{number}"})
    series = counter.all_series()
    assert len(series) == MAX_SERIES + 1
    assert sum(one.value for one in series) == 100_000
    assert series[-1].attributes == OVERFLOW_ATTRIBUTES
    assert series[-1].value == 100_000 - MAX_SERIES


def test_series_that_were_there_before_the_overflow_go_on_counting() -> None:
    counter = Metrics().counter("hits")
    for number in range(MAX_SERIES + 100):
        counter.add(1, {"path": str(number)})
    counter.add(1, {"path": "0"})
    assert counter.bind({"path": "0"}).value == 2


def test_long_labels_are_cut() -> None:
    counter = Metrics().counter("hits")
    series = counter.bind({"path": "x" * 1_000_000})
    assert series.attributes == (("path", "x" * MAX_LABEL_LENGTH),)
    assert counter.bind({"path": "x" * 2_000_000}) is series


def test_labels_of_any_type_are_taken() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    labels: dict[Any, Any] = {"list": [1, 2], "none": None, "mute": Mute(), 7: "seven"}
    found = dict(Metrics().counter("hits").bind(labels).attributes)
    assert found == {"7": "seven", "list": "[1, 2]", "none": "None", "mute": "<Mute>"}


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_that_hammer_one_series_lose_nothing() -> None:
    metrics = Metrics()
    counter, histogram = metrics.counter("hits"), metrics.histogram("size", boundaries=(1, 2))
    bound = counter.bind({"bound": True})

    def work() -> None:
        for _ in range(5_000):
            counter.add(1, {"path": "/"})
            bound.add(1)
            histogram.observe(1.5)

    together(work)
    assert counter.bind({"path": "/"}).value == bound.value == 40_000
    assert histogram.bind().counts == [0, 40_000, 0]
    assert histogram.bind().sum == 60_000.0


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_that_run_into_the_limit_together_lose_nothing() -> None:
    counter = Metrics().counter("hits")
    numbers = iter(range(8))

    def work() -> None:
        own = next(numbers)
        for number in range(1_000):
            counter.add(1, {"path": f"{own}/{number}"})
            counter.add(1, {"path": f"{number}"})

    together(work)
    series = counter.all_series()
    assert sum(one.value for one in series) == 16_000
    assert len(series) <= MAX_SERIES + 1


def test_a_name_is_one_metric() -> None:
    metrics = Metrics()
    assert metrics.counter("hits") is metrics.counter("hits", "{hit}", "again")
    with pytest.raises(ValueError, match="'hits' is a counter; it cannot be a gauge too"):
        metrics.gauge("hits")


def test_observers_run_before_each_reading() -> None:
    metrics = Metrics()
    gauge = metrics.gauge("depth")
    depths = iter([3, 4])
    metrics.observe_with(lambda: gauge.set(next(depths)))
    assert list(metrics.collect()) == [gauge]
    assert gauge.bind().value == 3
    metrics.collect()
    assert gauge.bind().value == 4


def test_metrics_are_read_in_the_order_of_creation() -> None:
    metrics = Metrics()
    names = ["b", "a", "c"]
    for name in names:
        metrics.counter(name)
    assert [instrument.name for instrument in metrics.collect()] == names
    assert all(isinstance(instrument, Counter) for instrument in metrics.collect())
