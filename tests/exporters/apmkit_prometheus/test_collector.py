"""Snapshots as prometheus-client metrics, on pages that the parsers accept."""

from __future__ import annotations

import math
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from apmkit.relay.export import Exemplar, ExporterContext, MetricData, Point, Snapshot
from apmkit_prometheus.collector import SnapshotCollector
from apmkit_prometheus.pages import Format, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def context(
    *metrics: MetricData,
    resource: Mapping[str, object] | None = None,
    warnings: list[str] | None = None,
) -> ExporterContext:
    return ExporterContext(
        resource or {"service.name": "shop"},
        None,
        lambda _pause=None: Snapshot(1, 2, list(metrics)),
        pytest.fail if warnings is None else warnings.append,
    )


def counter(name: str, *points: Point, unit: str = "") -> MetricData:
    return MetricData(name, "counter", unit, f"Number of {name}.", list(points))


def gauge(name: str, *points: Point, unit: str = "") -> MetricData:
    return MetricData(name, "gauge", unit, f"Present {name}.", list(points))


def histogram(name: str, *points: Point, boundaries: tuple[float, ...] = (0.1, 1)) -> MetricData:
    return MetricData(name, "histogram", "s", f"Duration of {name}.", list(points), boundaries)


def page(found: ExporterContext, *, openmetrics: bool = True) -> str:
    return b"".join(render(found, Format(openmetrics=openmetrics, gzip=False))).decode()


def openmetrics(text: str) -> Iterator[Metric]:
    yield from parse_openmetrics(text)  # type: ignore[no-untyped-call]


def samples(found: ExporterContext) -> list[Sample]:
    """Return the samples of the OpenMetrics page, proven to be those of the text page."""
    read = [s for family in openmetrics(page(found)) for s in family.samples]
    text = [s for f in parse_text(page(found, openmetrics=False)) for s in f.samples]
    assert [(s.name, s.labels, str(s.value)) for s in text] == [
        (s.name, s.labels, str(float(s.value))) for s in read
    ]
    return [s for s in read if s.name != "target_info"]


def values(found: ExporterContext) -> dict[str, float]:
    """Return the values by what identifies a series."""
    return {
        s.name + "".join(f",{k}={v}" for k, v in sorted(s.labels.items())): s.value
        for s in samples(found)
    }


def test_counters_gauges_and_histograms_are_shown() -> None:
    found = context(
        counter("orders", Point((("paid", True),), 3), Point((("paid", False),), 1)),
        gauge("queue", Point((), 2.5), unit="{job}"),
        histogram("work", Point((("a.b", "x"),), counts=[1, 2, 4], sum=9.5)),
    )

    assert values(found) == {
        "orders_total,paid=true": 3,
        "orders_total,paid=false": 1,
        "queue": 2.5,
        "work_seconds_bucket,a_b=x,le=0.1": 1,
        "work_seconds_bucket,a_b=x,le=1.0": 3,
        "work_seconds_bucket,a_b=x,le=+Inf": 7,
        "work_seconds_count,a_b=x": 7,
        "work_seconds_sum,a_b=x": 9.5,
    }


def test_help_type_and_unit_come_before_the_samples() -> None:
    text = page(context(histogram("work", Point((), counts=[1, 0, 0], sum=0.05))))

    assert (
        "# HELP work_seconds Duration of work.\n"
        "# TYPE work_seconds histogram\n"
        "# UNIT work_seconds seconds\n"
        'work_seconds_bucket{le="0.1"} 1.0\n'
    ) in text
    assert text.endswith("\n# EOF\n")
    assert text.count("# EOF") == 1


def test_a_large_metric_keeps_one_header_over_all_pieces() -> None:
    found = context(
        *(counter(f"c{n}", *(Point((("i", i),), i) for i in range(600))) for n in range(2))
    )

    text = page(found)

    assert text.count("# TYPE c0 counter") == text.count("# TYPE c1 counter") == 1
    assert len(values(found)) == 1_200


def test_the_resource_is_target_info() -> None:
    found = context(resource={"service.name": "shop", "host.cpus": 4, "tags": ("a", "b")})

    (target,) = openmetrics(page(found))

    assert (target.name, target.type) == ("target", "info")
    assert target.samples[0].labels == {
        "service_name": "shop",
        "host_cpus": "4",
        "tags": '["a", "b"]',
    }
    assert "# TYPE target_info gauge\n" in page(found, openmetrics=False)


def test_exemplars_are_on_buckets_and_counters_of_openmetrics_alone() -> None:
    exemplar = Exemplar(0.5, 1_700_000_000_123_456_789, TRACE, SPAN)
    found = context(
        counter("orders", Point((), 1, exemplars={0: exemplar})),
        gauge("queue", Point((), 1, exemplars={0: exemplar})),
        histogram("work", Point((), counts=[0, 1, 0], sum=0.5, exemplars={1: exemplar})),
    )

    carried = {s.name + s.labels.get("le", ""): s.exemplar for s in samples(found) if s.exemplar}

    assert carried.keys() == {"orders_total", "work_seconds_bucket1.0"}
    shown = carried["work_seconds_bucket1.0"]
    assert shown is not None
    assert (shown.labels, shown.value) == ({"trace_id": TRACE, "span_id": SPAN}, 0.5)
    assert str(shown.timestamp) == "1700000000.123456789"
    assert TRACE not in page(found, openmetrics=False)


def test_attributes_that_become_the_same_labels_are_one_series() -> None:
    older, newer = Exemplar(0.1, 1, TRACE, SPAN), Exemplar(0.2, 2, TRACE, SPAN)
    one, other = (("a.b", "1"),), (("a_b", 1),)
    found = context(
        counter("c", Point(one, 1, exemplars={0: newer}), Point(other, 2, exemplars={0: older})),
        gauge("g", Point(one, 1), Point(other, 2)),
        histogram("h", Point(one, counts=[1, 2, 3], sum=1), Point(other, counts=[4, 5, 6], sum=2)),
    )

    assert values(found) == {
        "c_total,a_b=1": 3,
        "g,a_b=1": 2,
        "h_seconds_bucket,a_b=1,le=0.1": 5,
        "h_seconds_bucket,a_b=1,le=1.0": 12,
        "h_seconds_bucket,a_b=1,le=+Inf": 21,
        "h_seconds_count,a_b=1": 21,
        "h_seconds_sum,a_b=1": 3,
    }
    kept = samples(found)[0].exemplar
    assert kept is not None
    assert kept.value == 0.2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (counter("a.b", Point((), 1)), counter("a_b", Point((), 2))),
        (counter("a", Point((), 1)), gauge("a.total", Point((), 2))),
        (histogram("a", Point((), counts=[1, 0, 0])), gauge("a.seconds.count", Point((), 2))),
        (gauge("a.seconds.sum", Point((), 2)), histogram("a", Point((), counts=[1, 0, 0]))),
        (gauge("a", Point((), 1)), gauge("target.info", Point((), 2))),
        (gauge("a", Point((), 1)), gauge("target", Point((), 2))),
    ],
)
def test_a_metric_whose_name_is_taken_is_left_out_with_a_warning(
    first: MetricData, second: MetricData
) -> None:
    warnings: list[str] = []

    shown = samples(context(first, second, warnings=warnings))

    assert shown == samples(context(first))
    assert set(warnings) == {
        (
            f"metric {second.name!r} is left out of the Prometheus page: its name there, "
            f"{shown_name(second)!r}, is taken by another metric"
        )
    }


def shown_name(metric: MetricData) -> str:
    return {"a.total": "a_total", "a": "a_seconds"}.get(metric.name, metric.name.replace(".", "_"))


def test_a_metric_without_a_usable_name_is_left_out_with_a_warning() -> None:
    warnings: list[str] = []

    assert samples(context(gauge("é", Point((), 1)), warnings=warnings)) == []
    assert "'é' is left out of the Prometheus page: its name there, '', is empty" in warnings[0]


@pytest.mark.parametrize("value", [math.nan, -1, "many", None, 10**400])
def test_a_counter_that_is_no_count_is_left_out(value: float) -> None:
    assert samples(context(counter("c", Point((), value)))) == []


def test_a_gauge_may_be_any_number_and_is_nan_otherwise() -> None:
    found = context(
        *(
            gauge(name, Point((), value))  # type: ignore[arg-type]
            for name, value in {"a": math.inf, "b": -1e300, "c": "many", "d": 10**400}.items()
        )
    )

    shown = values(found)

    assert (shown["a"], shown["b"]) == (math.inf, -1e300)
    assert math.isnan(shown["c"])
    assert math.isnan(shown["d"])


@pytest.mark.parametrize(
    ("boundaries", "total"), [((-1.0, 1.0), 3.0), ((0.0, 1.0), -3.0), ((0.0, 1.0), math.nan)]
)
def test_a_histogram_whose_sum_can_fall_has_buckets_alone(
    boundaries: tuple[float, ...], total: float
) -> None:
    found = context(histogram("h", Point((), counts=[1, 1, 1], sum=total), boundaries=boundaries))

    assert {s.name for s in samples(found)} == {"h_seconds_bucket"}


def test_a_boundary_at_infinity_is_the_last_bucket() -> None:
    found = context(histogram("h", Point((), counts=[1, 2, 0], sum=3), boundaries=(1.0, math.inf)))

    assert values(found) == {
        "h_seconds_bucket,le=1.0": 1,
        "h_seconds_bucket,le=+Inf": 3,
        "h_seconds_count": 3,
        "h_seconds_sum": 3,
    }


def test_an_attribute_named_le_does_not_hide_the_buckets() -> None:
    found = context(histogram("h", Point((("le", "x"),), counts=[1, 0, 0], sum=0.1)))

    buckets = [s.labels for s in samples(found) if s.name.endswith("_bucket")]

    assert [labels["le"] for labels in buckets] == ["0.1", "1.0", "+Inf"]
    assert {labels["exported_le"] for labels in buckets} == {"x"}


HOSTILE = 'a\\b"c\nd\te # {x="y"} 1\r\x0b\x85\u2028 \N{SNOWMAN} \ud800 \0 } '


def test_hostile_values_and_descriptions_leave_the_page_valid() -> None:
    metric = counter("c", Point((("path", HOSTILE),), 1), Point((("path", "plain"),), 2))
    metric.description = HOSTILE
    expected = HOSTILE.replace("\ud800", "?").replace("\0", "\N{REPLACEMENT CHARACTER}")

    found = context(metric, resource={"service.name": HOSTILE})

    assert [s.labels["path"] for s in samples(found)] == [expected, "plain"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_own_tool_reads_the_page() -> None:
    found = context(
        counter("orders", Point((("path", HOSTILE),), 1)),
        histogram("work", Point((("a.b", "x"),), counts=[1, 2, 4], sum=9.5)),
    )

    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page(found, openmetrics=False).encode(),
        capture_output=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, b"")


attribute_sets = st.lists(
    st.tuples(st.text(max_size=4), st.text(max_size=6) | st.booleans() | st.integers()),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)
numbers = st.floats() | st.integers()
metrics = st.builds(
    MetricData,
    name=st.sampled_from(["a", "a.b", "a_b", "a.total", "a.count", "a.b.count", "é", "target"]),
    kind=st.sampled_from(["counter", "gauge", "histogram"]),
    unit=st.sampled_from(["", "s", "1", "{x}", "By/s"]),
    description=st.text(max_size=8),
    points=st.lists(
        st.builds(
            Point,
            attributes=attribute_sets,
            value=numbers,
            counts=st.lists(st.integers(0, 99), min_size=3, max_size=3),
            sum=numbers,
            exemplars=st.just({}) | st.just({0: Exemplar(1.0, 1, TRACE, SPAN)}),
        ),
        max_size=4,
    ),
    boundaries=st.just((0.1, 1.0)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(metrics, max_size=6))
def test_any_metrics_make_a_page_that_both_parsers_read(found: list[MetricData]) -> None:
    samples(context(*found, warnings=[]))


def test_the_collector_works_in_a_registry_of_the_applications_own() -> None:
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(context(counter("orders", Point((("a", "b"),), 3)))))

    assert registry.get_sample_value("orders_total", {"a": "b"}) == 3
    assert registry.get_sample_value("target_info", {"service_name": "shop"}) == 1
