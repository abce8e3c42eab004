"""The endpoint that Prometheus scrapes, as an ASGI application."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from apmkit.relay.export import ExporterContext, MetricData, Point, Snapshot
from apmkit_prometheus import PrometheusEndpoint, create

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

SNAPSHOT = Snapshot(0, 0, [MetricData("orders", "counter", "", "Orders.", [Point((), 3.0)])])


def endpoint(
    collect: Callable[..., Snapshot] = lambda _pause: SNAPSHOT,
    warn: Callable[[str], None] = pytest.fail,
) -> PrometheusEndpoint:
    return create(ExporterContext({"service.name": "shop"}, None, collect, warn))


class Answer:
    """What the endpoint sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message["body"]
            self.complete = not message.get("more_body", False)


async def scrape(found: PrometheusEndpoint, method: str = "GET", **headers: str) -> Answer:
    answer = Answer()
    scope = {
        "type": "http",
        "method": method,
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    }
    await found.asgi(scope, receive, answer.send)
    assert answer.complete
    return answer


async def receive() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_scrape_without_wishes_gets_the_text_format() -> None:
    answer = asyncio.run(scrape(endpoint()))

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert "content-encoding" not in answer.headers
    families = {f.name: f for f in parse_text(answer.body.decode())}
    assert families["orders"].samples[0].value == 3
    assert families["target_info"].samples[0].labels == {"service_name": "shop"}


def test_prometheus_gets_openmetrics_in_gzip() -> None:
    answer = asyncio.run(
        scrape(
            endpoint(),
            accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            accept_encoding="gzip",
        )
    )

    assert (
        answer.headers["content-type"]
        == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "accept, accept-encoding"
    assert answer.headers["content-length"] == str(len(answer.body))
    page = gzip.decompress(answer.body).decode()
    names = [f.name for f in parse_openmetrics(page)]  # type: ignore[no-untyped-call]
    assert names == ["target", "orders"]


def test_head_is_answered_like_get_without_the_body() -> None:
    get, head = asyncio.run(scrape(endpoint())), asyncio.run(scrape(endpoint(), "HEAD"))

    assert (head.status, head.headers, head.body) == (200, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_not_allowed(method: str) -> None:
    answer = asyncio.run(scrape(endpoint(lambda _pause: pytest.fail("not read")), method))

    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "\xff\xfe", ",;=", "q=1;;" * 1_000]
)
def test_a_malformed_accept_header_gets_the_text_format(accept: str) -> None:
    answer = asyncio.run(scrape(endpoint(), accept=accept))

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_reading_that_fails_is_a_500_with_a_warning_and_the_next_one_works() -> None:
    warnings: list[str] = []
    faults = [OSError("gone")]

    def collect(_pause: object) -> Snapshot:
        if faults:
            raise faults.pop()
        return SNAPSHOT

    found = endpoint(collect, warnings.append)

    assert asyncio.run(scrape(found)).status == 500
    assert warnings == ["metrics cannot be shown to Prometheus: OSError('gone')"]
    assert asyncio.run(scrape(found)).status == 200


def test_the_event_loop_runs_on_while_a_page_is_made() -> None:
    release = threading.Event()

    def collect(_pause: object) -> Snapshot:
        assert release.wait(30)
        return SNAPSHOT

    async def main() -> Answer:
        running = asyncio.create_task(scrape(endpoint(collect)))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not running.done()
        release.set()
        return await running

    assert asyncio.run(main()).status == 200


def test_a_scraper_that_goes_away_leaves_the_page_to_those_that_share_it() -> None:
    entered, release = threading.Event(), threading.Event()
    readings = 0

    def collect(_pause: object) -> Snapshot:
        nonlocal readings
        readings += 1
        entered.set()
        assert release.wait(30)
        return SNAPSHOT

    async def main() -> Answer:
        found = endpoint(collect)
        impatient = asyncio.create_task(scrape(found))
        patient = asyncio.create_task(scrape(found))
        assert await asyncio.to_thread(entered.wait, 30)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        release.set()
        return await patient

    assert asyncio.run(main()).status == 200
    assert readings == 1


def test_two_event_loops_may_scrape_at_once() -> None:
    release = threading.Barrier(2)
    found = endpoint()
    statuses: list[int] = []

    def loop() -> None:
        release.wait(30)
        statuses.append(asyncio.run(scrape(found)).status)

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200, 200]
    found.close()
