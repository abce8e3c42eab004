"""Metrics on the wire, against the messages of opentelemetry-proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1 import metrics_pb2

from apmkit.record.metrics import MAX_SERIES, Metrics
from apmkit.relay import snapshot
from apmkit.relay.wire_metrics import encode_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

START = 1_700_000_000_000_000_000
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


def parse(
    metrics: Metrics, resource: Mapping[str, object] | None = None
) -> metrics_pb2.ResourceMetrics:
    reading = snapshot.take(metrics, START)
    request = ExportMetricsServiceRequest.FromString(encode_metrics(reading, resource or {}))
    assert len(request.resource_metrics) == 1
    return request.resource_metrics[0]


def only(metrics: Metrics) -> metrics_pb2.Metric:
    (scope,) = parse(metrics).scope_metrics
    (metric,) = scope.metrics
    return metric


def plain(attributes: list[KeyValue]) -> dict[str, object]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in attributes
    }


def test_a_counter_is_a_monotonic_cumulative_sum() -> None:
    metrics = Metrics()
    metrics.counter("orders", "{order}", "Orders taken.").add(
        3, {"country": "FR", "n": 2, "new": True}
    )
    metric = only(metrics)
    (point,) = metric.sum.data_points
    assert (metric.name, metric.unit, metric.description) == ("orders", "{order}", "Orders taken.")
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == CUMULATIVE
    assert point.as_int == 3
    assert point.start_time_unix_nano == START < point.time_unix_nano
    assert plain(list(point.attributes)) == {"country": "FR", "n": 2, "new": True}


def test_a_gauge_is_a_gauge() -> None:
    metrics = Metrics()
    metrics.gauge("depth").set(-1.5)
    metric = only(metrics)
    (point,) = metric.gauge.data_points
    assert point.as_double == -1.5
    assert not point.attributes


def test_a_histogram_is_cumulative_with_explicit_bounds() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("size", "By", "", (1, 10))
    for value in (0.5, 1, 1.5, 11, 12):
        histogram.observe(value, {"route": "/"})
    metric = only(metrics)
    (point,) = metric.histogram.data_points
    assert metric.histogram.aggregation_temporality == CUMULATIVE
    assert list(point.explicit_bounds) == [1.0, 10.0]
    assert list(point.bucket_counts) == [2, 1, 2]
    assert (point.count, point.sum) == (5, 26.0)
    assert plain(list(point.attributes)) == {"route": "/"}


def test_exemplars_carry_their_trace_as_bytes() -> None:
    metrics = Metrics()
    series = metrics.histogram("size", boundaries=(1, 10)).bind()
    series.observe(5)
    series.attach_exemplar((5.0, START + 7, 0xABC, 0xDEF))
    (exemplar,) = only(metrics).histogram.data_points[0].exemplars
    assert exemplar.as_double == 5.0
    assert exemplar.time_unix_nano == START + 7
    assert exemplar.trace_id == (0xABC).to_bytes(16, "big")
    assert exemplar.span_id == (0xDEF).to_bytes(8, "big")


def test_an_exemplar_of_a_counter_is_sent_too() -> None:
    metrics = Metrics()
    series = metrics.counter("orders").bind()
    series.add(2)
    series.exemplar = (2, START, 1, 2)
    (exemplar,) = only(metrics).sum.data_points[0].exemplars
    assert exemplar.as_int == 2
    assert exemplar.span_id == (2).to_bytes(8, "big")


def test_everything_stands_under_one_resource_and_scope() -> None:
    metrics = Metrics()
    metrics.counter("a").add(1)
    metrics.gauge("b").set(1)
    found = parse(metrics, {"service.name": "shop", "process.pid": 7})
    (scope,) = found.scope_metrics
    assert plain(list(found.resource.attributes)) == {"service.name": "shop", "process.pid": 7}
    assert scope.scope.name == "apmkit"
    assert [metric.name for metric in scope.metrics] == ["a", "b"]


def test_nothing_recorded_is_a_valid_request() -> None:
    (scope,) = parse(Metrics()).scope_metrics
    assert not scope.metrics


def test_the_overflow_series_carries_its_mark() -> None:
    metrics = Metrics()
    counter = metrics.counter("hits")
    for number in range(MAX_SERIES + 5):
        counter.add(1, {"path": str(number)})
    points = only(metrics).sum.data_points
    assert len(points) == MAX_SERIES + 1
    assert plain(list(points[-1].attributes)) == {"otel.metric.overflow": True}
    assert points[-1].as_int == 5


def test_a_secret_in_the_resource_does_not_leave() -> None:
    metrics = Metrics()
    found = parse(metrics, {"deploy.token": "hunter2hunter2"})
    assert b"hunter2" not in found.SerializeToString()


@given(st.one_of(st.integers(), st.floats(allow_nan=False)))
def test_every_number_arrives(value: float) -> None:
    metrics = Metrics()
    metrics.gauge("g").set(value)
    (point,) = only(metrics).gauge.data_points
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        assert point.as_int == value
    else:
        assert point.as_double == pytest.approx(float(value))


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_text_arrives_even_lone_surrogates(name: str, label: str) -> None:
    metrics = Metrics()
    metrics.gauge(name, description=label).set(1, {label: label})
    metric = only(metrics)
    expected = label.encode("utf-8", "replace").decode()
    assert metric.description == expected
    assert plain(list(metric.gauge.data_points[0].attributes)) == {expected: expected}


def test_a_long_reading_gives_way_every_few_series() -> None:
    metrics = Metrics()
    for number in range(640):
        metrics.gauge("g").set(1, {"n": number})
    turns: list[None] = []
    encode_metrics(snapshot.take(metrics, START), {}, lambda: turns.append(None))
    assert len(turns) == 10
