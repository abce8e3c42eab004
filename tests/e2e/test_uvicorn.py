"""The agent under a real uvicorn: what it sends, what it counts, and what it must not hold up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import httpx

_APP = "tests.e2e.apps:app"
_REQUEST_COUNT = "http_server_request_duration_seconds_count"


def exporting_to(url: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "APMKIT_TRACE_BUDGET": "inf"}


def collector_at(port: int, tmp_path: Path) -> AbstractContextManager[servers.Server]:
    command = [sys.executable, "-m", "tests.e2e.collector", str(port)]
    return servers.running(
        command, f"http://127.0.0.1:{port}", "/exports", tmp_path / "collector.log"
    )


@contextlib.contextmanager
def silent_collector(tmp_path: Path) -> Iterator[servers.Server]:
    """A collector that reads every export and never answers one."""
    port = servers.free_port()
    command = [sys.executable, "-m", "tests.e2e.collector", str(port), "silent"]
    url = f"http://127.0.0.1:{port}"
    with servers.running(command, url, "/exports", tmp_path / "silent.log") as server:
        yield server


def terminate(server: servers.Server) -> float:
    """Send SIGTERM and return the seconds until the process has ended."""
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    return time.monotonic() - start


def names_of(spans: list[dict[str, str]]) -> list[str]:
    return [span["name"] for span in spans]


def metric(url: str, http: httpx.Client, name: str, **labels: str) -> float:
    """Return the sum of the samples of that name with these labels on /metrics."""
    page = http.get(f"{url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_sigterm_delivers_what_is_pending(
    collector: servers.Server, http: httpx.Client, tmp_path: Path
) -> None:
    with servers.uvicorn(_APP, tmp_path / "app.log", exporting_to(collector.url)) as shop:
        for number in range(10):
            http.get(f"{shop.url}/items/{number + 1}")
        http.close()
        assert terminate(shop) < 2.5
    with servers.client() as again:
        spans = again.get(f"{collector.url}/spans").json()
    assert names_of(spans).count("GET /items/{number}") == 10
    assert names_of(spans).count("SELECT items") == 10


def test_a_silent_collector_delays_no_response_and_hardly_the_exit(
    http: httpx.Client, tmp_path: Path
) -> None:
    with silent_collector(tmp_path) as silent:
        env = exporting_to(silent.url)
        with servers.uvicorn(_APP, tmp_path / "app.log", env) as shop:
            http.get(f"{shop.url}/items/1")
            servers.eventually(
                lambda: "/v1/traces" in http.get(f"{silent.url}/exports").json(),
                "an export to the collector that will not answer it",
            )

            slowest = 0.0
            for number in range(100):
                start = time.monotonic()
                assert http.get(f"{shop.url}/items/{number % 50 + 1}").is_success
                slowest = max(slowest, time.monotonic() - start)

            assert slowest < 1.0  # an export waits for 10 s
            http.close()
            assert terminate(shop) < 3.0


def test_the_application_serves_while_the_collector_is_down_and_nothing_is_lost(
    http: httpx.Client, tmp_path: Path
) -> None:
    port = servers.free_port()
    env = exporting_to(f"http://127.0.0.1:{port}")
    with servers.uvicorn(_APP, tmp_path / "app.log", env) as shop:

        def refused() -> bool:
            assert http.get(f"{shop.url}/items/1").is_success
            return "cannot deliver now" in shop.log.read_text()

        servers.eventually(refused, "a line in the log that the collector is down")
        account = http.get(f"{shop.url}/stats").json()["exporters"]["otlp"]
        assert account["delivered"] == 0
        assert account["pending"] == account["created"] > 0

        with collector_at(port, tmp_path) as collector:

            def arrived() -> list[dict[str, str]] | None:
                spans: list[dict[str, str]] = http.get(f"{collector.url}/spans").json()
                return spans if len(spans) >= account["pending"] else None

            spans = servers.eventually(arrived, "the spans of before", within=40)
    assert names_of(spans).count("SELECT items") == 1
    assert shop.log.read_text().count("cannot deliver now") == 1


def test_a_streamed_response_is_one_request_of_its_whole_size(
    collector: servers.Server, http: httpx.Client, tmp_path: Path
) -> None:
    with servers.uvicorn(_APP, tmp_path / "app.log", exporting_to(collector.url)) as shop:
        answer = http.get(f"{shop.url}/stream")

        assert answer.text == "".join(f"{number:04}" for number in range(20))
        route = {"http_route": "/stream"}
        assert metric(shop.url, http, _REQUEST_COUNT, **route) == 1
        assert metric(shop.url, http, "http_server_response_body_size_bytes_sum", **route) == 80
        # The clock stops at the last piece, 20 pauses of 5 ms after the first.
        lasted = metric(shop.url, http, "http_server_request_duration_seconds_sum", **route)
        assert lasted >= 0.1
        first = "apmkit_http_server_time_to_first_byte_seconds"
        assert metric(shop.url, http, f"{first}_count", **route) == 1
        assert metric(shop.url, http, f"{first}_sum", **route) < lasted


def test_an_event_stream_counts_when_its_client_leaves_and_not_as_a_long_request(
    collector: servers.Server, http: httpx.Client, tmp_path: Path
) -> None:
    with servers.uvicorn(_APP, tmp_path / "app.log", exporting_to(collector.url)) as shop:
        with http.stream("GET", f"{shop.url}/events") as answer:
            received = 0
            for piece in answer.iter_raw():
                received += len(piece)
                if received > 200:
                    break

        route = {"http_route": "/events"}
        servers.eventually(
            lambda: metric(shop.url, http, _REQUEST_COUNT, **route) == 1,
            "the event stream among the requests",
        )
        stream = metric(shop.url, http, "apmkit_http_server_stream_duration_seconds_sum", **route)
        request = metric(shop.url, http, "http_server_request_duration_seconds_sum", **route)
        assert request < 0.1 < stream
        assert http.get(f"{shop.url}/stats").json()["open_requests"] == 1  # this one

        def outcome() -> str | None:
            spans = http.get(f"{collector.url}/spans").json()
            return next((s["outcome"] for s in spans if s["name"] == "GET /events"), None)

        assert servers.eventually(outcome, "the span of the event stream") == "disconnected"


def test_a_websocket_is_one_span_and_its_messages_are_counted(
    collector: servers.Server, http: httpx.Client, tmp_path: Path
) -> None:
    with servers.uvicorn(_APP, tmp_path / "app.log", exporting_to(collector.url)) as shop:
        with connect(f"{shop.url.replace('http', 'ws')}/echo", proxy=None) as socket:
            for number in range(100):
                socket.send(str(number))
                assert socket.recv() == str(number)
            handshakes = metric(shop.url, http, _REQUEST_COUNT, http_route="/echo")
        assert handshakes == 1

        messages = "apmkit_websocket_messages_total"
        assert metric(shop.url, http, messages, network_io_direction="receive") == 100
        assert metric(shop.url, http, messages, network_io_direction="transmit") == 100
        lifetime = "apmkit_http_server_stream_duration_seconds_count"
        servers.eventually(
            lambda: metric(shop.url, http, lifetime, http_route="/echo") == 1,
            "the lifetime of the connection",
        )
        spans = servers.eventually(
            lambda: [
                span
                for span in http.get(f"{collector.url}/spans").json()
                if "/echo" in span["name"]
            ],
            "the span of the handshake",
        )
    assert names_of(spans) == ["GET /echo"]


def test_hundreds_of_concurrent_requests_are_counted_exactly(
    collector: servers.Server, http: httpx.Client, tmp_path: Path
) -> None:
    at_once, total = 200, 1_000

    async def drive(url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")

        async def send(number: int) -> bytes:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /items/%d HTTP/1.1\r\nhost: shop\r\n" % (number % 100 + 1))
            writer.write(b"connection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

        for first in range(0, total, at_once):
            answers = await asyncio.gather(*map(send, range(first, first + at_once)))
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)

    with servers.uvicorn(_APP, tmp_path / "app.log", exporting_to(collector.url)) as shop:
        asyncio.run(drive(shop.url))

        assert metric(shop.url, http, _REQUEST_COUNT, http_route="/items/{number}") == total
        lookups = "cache_client_operation_duration_seconds_count"
        hits = metric(shop.url, http, lookups, cache_operation="get", cache_hit="true")
        misses = metric(shop.url, http, lookups, cache_operation="get", cache_hit="false")
        assert (hits, misses) == (total - 100, 100)
        assert metric(shop.url, http, "db_client_operation_duration_seconds_count") == 100

        def delivered() -> Mapping[str, Any] | None:
            account = http.get(f"{shop.url}/stats").json()["exporters"]["otlp"]
            assert account["created"] == sum(
                [account["delivered"], account["rejected"], account["pending"]],
                sum(account["dropped"].values()),
            ), json.dumps(account)
            # Each request has its root and its lookup, a hundred have the query and the store.
            return account if account["delivered"] >= 2 * total + 200 else None

        servers.eventually(delivered, "every span at the collector")
        spans = http.get(f"{collector.url}/spans").json()
    assert names_of(spans).count("GET /items/{number}") == total
    assert names_of(spans).count("get items") == total
