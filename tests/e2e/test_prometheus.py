"""The metrics of an application, as a real Prometheus scrapes and answers them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

_CONFIG = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: shop
    static_configs:
      - targets: ["{target}"]
"""
_OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
_ITEMS, _FAILURES = 25, 3
_FOUND_BY_PROMTOOL = {
    # OpenTelemetry's semantic conventions name these gauges; promtool would not have.
    f'{name} non-histogram and non-summary metrics should not have "_count" suffix'
    for name in ("process_thread_count", "process_unix_file_descriptor_count")
}


class Scraped(NamedTuple):
    """An application, the Prometheus that scrapes it, and the collector of its traces."""

    shop: str
    prometheus: str
    collector: str


@pytest.fixture
def scraped(tmp_path: Path, collector: servers.Server) -> Iterator[Scraped]:
    program = servers.require("prometheus")
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    config = tmp_path / "prometheus.yml"
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with servers.uvicorn("tests.e2e.apps:app", tmp_path / "app.log", env) as shop:
        config.write_text(_CONFIG.format(target=shop.url.removeprefix("http://")))
        with servers.running(command, url, "/-/ready", tmp_path / "prometheus.log"):
            yield Scraped(shop.url, url, collector.url)


def drive(shop: str, http: httpx.Client) -> None:
    """Send known numbers of requests: 25 lookups of 5 items, 3 failures."""
    for number in range(_ITEMS):
        assert http.get(f"{shop}/items/{number % 5 + 1}").is_success
    for number in range(_FAILURES):
        # uvicorn closes the connection of a request that raised, so nothing may wait for its reuse.
        answer = http.get(f"{shop}/broken/{number + 1}", headers={"connection": "close"})
        assert answer.status_code == 500


def query(scraped: Scraped, http: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = http.get(f"{scraped.prometheus}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def value(scraped: Scraped, http: httpx.Client, expression: str) -> float | None:
    result = query(scraped, http, expression)
    return float(result[0]["value"][1]) if len(result) == 1 else None


def test_it_answers_with_exact_counts(scraped: Scraped, http: httpx.Client) -> None:
    drive(scraped.shop, http)

    requests = "http_server_request_duration_seconds_count"
    database = "sum(db_client_operation_duration_seconds_count)"
    lookups = 'cache_client_operation_duration_seconds_count{cache_operation="get"'
    expected: dict[str, float] = {
        f'{requests}{{http_route="/items/{{number}}",http_response_status_code="200"}}': _ITEMS,
        f'{requests}{{http_route="/broken/{{number}}",error_type="500"}}': _FAILURES,
        # Five items were not in the cache, and every failing request had asked first.
        database: 5 + _FAILURES,
        f'{lookups},cache_hit="true"}}': _ITEMS - 5,
        f'{lookups},cache_hit="false"}}': 5,
        'cache_client_operation_duration_seconds_count{cache_operation="set"}': 5,
    }

    def all_there() -> bool:
        return all(value(scraped, http, e) == number for e, number in expected.items())

    servers.eventually(all_there, "the exact counts in Prometheus")
    (target,) = query(scraped, http, "target_info")
    assert target["metric"]["service_name"] == "shop"
    assert target["metric"]["telemetry_sdk_name"] == "apmkit"


def test_it_stores_the_trace_of_an_observation_as_exemplar(
    scraped: Scraped, http: httpx.Client
) -> None:
    drive(scraped.shop, http)

    def exemplars() -> set[str]:
        asked = {
            "query": "http_server_request_duration_seconds_bucket",
            "start": "0",
            "end": "9999999999",
        }
        answer = http.get(f"{scraped.prometheus}/api/v1/query_exemplars", params=asked).json()
        return {
            exemplar["labels"]["trace_id"]
            for series in answer["data"]
            if series["seriesLabels"].get("http_route") == "/items/{number}"
            for exemplar in series["exemplars"]
        }

    found = servers.eventually(exemplars, "an exemplar in Prometheus")

    def kept() -> set[str]:
        spans = http.get(f"{scraped.collector}/spans").json()
        return {span["trace_id"] for span in spans}

    servers.eventually(lambda: found <= kept(), "the exemplars' traces in the collector")


def test_promtool_finds_no_fault_but_in_names_that_are_a_standard(
    scraped: Scraped, http: httpx.Client
) -> None:
    drive(scraped.shop, http)
    page = http.get(f"{scraped.shop}/metrics").content

    checked = subprocess.run(
        [servers.require("promtool"), "check", "metrics"],
        input=page,
        capture_output=True,
        check=False,
    )

    assert b"http_server_request_duration_seconds_bucket" in page
    assert checked.stdout == b""
    assert set(checked.stderr.decode().splitlines()) <= _FOUND_BY_PROMTOOL


def test_the_openmetrics_page_parses(scraped: Scraped, http: httpx.Client) -> None:
    drive(scraped.shop, http)

    answer = http.get(f"{scraped.shop}/metrics", headers=_OPENMETRICS)

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {f.name: f for f in servers.openmetrics_families(answer.text)}
    duration = families["http_server_request_duration_seconds"]
    assert duration.type == "histogram"
    counts = {
        sample.labels.get("http_route"): sample.value
        for sample in duration.samples
        if sample.name.endswith("_count")
    }
    assert counts["/items/{number}"] == _ITEMS
    assert counts["/broken/{number}"] == _FAILURES
