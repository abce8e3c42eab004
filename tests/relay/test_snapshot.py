"""Readings of all metrics."""

from __future__ import annotations

import time

import msgspec

from apmkit.record.metrics import MAX_SERIES, Metrics
from apmkit.relay import snapshot
from apmkit.relay.snapshot import Exemplar, Point, Snapshot

START = 1_700_000_000_000_000_000


def test_a_reading_holds_every_metric_and_series() -> None:
    metrics = Metrics()
    metrics.counter("hits", "{hit}", "Hits.").add(3, {"path": "/"})
    metrics.gauge("depth").set(1.5)
    metrics.histogram("size", "By", "", (1, 10)).observe(5, {"path": "/"})
    hits, depth, size = snapshot.take(metrics, START).metrics
    assert (hits.name, hits.kind, hits.unit, hits.description) == (
        "hits",
        "counter",
        "{hit}",
        "Hits.",
    )
    assert hits.points == [Point((("path", "/"),), value=3)]
    assert (depth.kind, depth.points) == ("gauge", [Point((), value=1.5)])
    assert (size.kind, size.boundaries) == ("histogram", (1, 10))
    assert size.points == [Point((("path", "/"),), counts=[0, 1, 0], sum=5.0)]


def test_a_reading_tells_when_it_was_taken() -> None:
    before = time.time_ns()
    found = snapshot.take(Metrics(), START)
    assert found.start_unix_nano == START
    assert before <= found.time_unix_nano <= time.time_ns()


def test_a_reading_does_not_change_with_what_it_read() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("size", boundaries=(1,))
    histogram.observe(5)
    found = snapshot.take(metrics, START)
    histogram.observe(5)
    assert found.metrics[0].points[0].counts == [0, 1]


def test_what_was_never_observed_is_left_out() -> None:
    metrics = Metrics()
    metrics.counter("nothing")
    metrics.histogram("bound").bind({"path": "/"})
    assert snapshot.take(metrics, START).metrics == []


def test_exemplars_are_in_hex() -> None:
    metrics = Metrics()
    series = metrics.histogram("size", boundaries=(1, 10)).bind()
    series.observe(5)
    series.attach_exemplar((5.0, START, 0xABC, 0xDEF))
    (point,) = snapshot.take(metrics, START).metrics[0].points
    assert point.exemplars == {1: Exemplar(5.0, START, f"{0xABC:032x}", f"{0xDEF:016x}")}


def test_observers_run_first() -> None:
    metrics = Metrics()
    gauge = metrics.gauge("depth")
    metrics.observe_with(lambda: gauge.set(7))
    assert snapshot.take(metrics, START).metrics[0].points == [Point((), value=7)]


def test_a_reading_gives_way_every_few_series_and_sees_the_overflow() -> None:
    metrics = Metrics()
    counter = metrics.counter("hits")
    for number in range(MAX_SERIES + 10):
        counter.add(1, {"path": str(number)})
    turns: list[None] = []
    (found,) = snapshot.take(metrics, START, lambda: turns.append(None)).metrics
    assert len(found.points) == MAX_SERIES + 1
    assert sum(point.value for point in found.points) == MAX_SERIES + 10
    assert len(turns) == (MAX_SERIES + 1) // 64


def test_a_reading_can_be_stored_and_read_back() -> None:
    metrics = Metrics()
    metrics.counter("hits").add(3, {"path": "/", "n": 2, "new": True})
    series = metrics.histogram("size", boundaries=(1, 10)).bind()
    series.observe(5)
    series.attach_exemplar((5.0, START, 1, 2))
    found = snapshot.take(metrics, START)
    stored = msgspec.msgpack.encode(found)
    assert msgspec.msgpack.decode(stored, type=Snapshot) == found
