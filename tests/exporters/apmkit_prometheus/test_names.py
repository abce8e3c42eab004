"""OpenTelemetry's names in Prometheus's alphabet."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit_prometheus.names import label_name, label_value, labels, metric_name


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "histogram", "http_server_request_duration_seconds"),
        ("http.server.request.body.size", "By", "histogram", "http_server_request_body_size_bytes"),
        ("http.server.active_requests", "{request}", "gauge", "http_server_active_requests"),
        ("process.cpu.time", "s", "counter", "process_cpu_time_seconds"),
        ("process.cpu.utilization", "1", "gauge", "process_cpu_utilization_ratio"),
        ("events", "1", "counter", "events"),
        ("orders.total", "", "counter", "orders"),
        ("orders.total", "", "gauge", "orders_total"),
        ("disk.io", "By/s", "gauge", "disk_io_bytes_per_second"),
        ("orders", "{order}/min", "gauge", "orders_per_minute"),
        ("used.bytes", "By", "gauge", "used_bytes"),
        ("time", "fortnight", "gauge", "time_fortnight"),
        ("load", "%", "gauge", "load_percent"),
        ("speed", "m/s", "gauge", "speed_meters_per_second"),
        ("2xx.responses", "", "counter", "_2xx_responses"),
        ("a..b--c", "", "gauge", "a_b_c"),
        ("umsätze", "€", "gauge", "ums_tze"),
        ("éé", "", "gauge", ""),
        ("éé", "s", "gauge", ""),
        ("seconds", "s", "gauge", "seconds"),
    ],
)
def test_metric_names_follow_the_compatibility_rules(
    name: str, unit: str, kind: str, expected: str
) -> None:
    assert metric_name(name, unit, kind)[0] == expected


def test_the_unit_is_given_only_where_the_name_ends_with_it() -> None:
    assert metric_name("a.duration", "s", "histogram") == ("a_duration_seconds", "seconds")
    assert metric_name("seconds", "s", "gauge") == ("seconds", "")
    assert metric_name("a", "{thing}", "gauge") == ("a", "")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("http.route", "http_route"),
        ("a..b", "a_b"),
        ("2xx", "key_2xx"),
        ("_private", "key_private"),
        ("__name__", "key_name_"),
        ("é", "key_"),
        ("", "key_"),
        ("le", "exported_le"),
    ],
)
def test_label_names_are_valid_and_not_prometheus_own(key: str, expected: str) -> None:
    assert label_name(key) == expected


@given(st.text())
def test_any_key_becomes_a_valid_label_name(key: str) -> None:
    name = label_name(key)

    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name)
    assert name != "le"


@given(st.text(), st.text(), st.sampled_from(["counter", "gauge", "histogram"]))
def test_any_name_and_unit_become_a_valid_name_or_none(name: str, unit: str, kind: str) -> None:
    found, suffix = metric_name(name, unit, kind)

    assert found == "" or re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", found)
    assert found.endswith(suffix)


def test_values_whose_keys_collide_are_joined_in_the_order_of_the_keys() -> None:
    assert labels([("a_b", "last"), ("a.b", "first"), ("c", "1")]) == {
        "a_b": "first;last",
        "c": "1",
    }


def test_an_empty_label_is_no_label() -> None:
    assert labels([("a", ""), ("b", "x")]) == {"b": "x"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "true"),
        (False, "false"),
        (200, "200"),
        (0.5, "0.5"),
        (("a", 1, True), '["a", 1, true]'),
        ("Grüße \N{SNOWMAN}", "Grüße \N{SNOWMAN}"),
        ("half \ud83d of a pair", "half ? of a pair"),
        ("nul\0", "nul\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_values_become_text_that_utf8_can_hold(value: object, expected: str) -> None:
    assert label_value(value) == expected
