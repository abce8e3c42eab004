"""Clients that send what is never the same twice: memory stays bounded, totals stay exact."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families as text_families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import apmkit
from apmkit.relay.export import Delivered
from tests.e2e.servers import openmetrics_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from apmkit.instrument.asgi_types import Application
    from apmkit.relay.export import Outcome, Signal

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

REQUESTS = 20_000
MAX_SERIES = 2_000
MEBIBYTE = 1 << 20
_OPENMETRICS = [(b"accept", b"application/openmetrics-text; version=1.0.0")]


async def plain_app(scope: Scope, _: object, send: Callable[[Message], Any]) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def ok(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params.get("name", "ok"))


def starlette_app() -> Starlette:
    every = ["GET", "POST", "PUT"]
    routes = [
        Route("/named/{name}", ok, methods=every),
        Mount("/tenants/{tenant}", routes=[Route("/users/{name}", ok, methods=every)]),
    ]
    return Starlette(routes=routes)


def hostile_scope(number: int) -> Scope:
    """Return the scope of a request of which no part is like that of another one."""
    paths = [f"/{number}/etc/passwd", f"/named/{number}", f"/tenants/{number}/users/{number}"]
    known = ["GET", "POST", "PUT", "HEAD"]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": f"HACK{number}" if number % 5 == 0 else known[number % 4],
        "path": paths[number % 3],
        "raw_path": paths[number % 3].encode(),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "query_string": b"q=%d" % number,
        "headers": [
            (b"host", b"host-%d.example" % number),
            (b"user-agent", b"agent/%d \xff\xfe" % number),
            (b"x-%d" % number, b"\x00\xff%d" % number),
            (b"traceparent", b"00-%032x-%016x-%02x" % (number + 1, number + 1, number % 2)),
            (b"tracestate", b"vendor%d=%d" % (number, number)),
            (b"baggage", b"key%d=value%d" % (number, number)),
            (b"content-length", b"%d" % number),
        ],
        "client": (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1_024),
        "server": ("127.0.0.1", 80),
    }


async def answer(app: Application, scope: Scope) -> bytes:
    """Send a request without body; return the body of the response."""
    body = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return bytes(body)


async def page(app: Application, headers: list[tuple[bytes, bytes]]) -> str:
    scope = {**hostile_scope(0), "method": "GET", "path": "/metrics", "headers": headers}
    scope["client"] = ("127.0.0.1", 1_024)
    return (await answer(app, scope)).decode()


def series_by_metric(families: Iterable[Metric]) -> dict[str, int]:
    """Return how many series each metric has; all buckets of a histogram are one."""
    found: Counter[str] = Counter()
    for family in families:
        found[family.name] = len(
            {
                tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
                for sample in family.samples
            }
        )
    return found


def requests_counted(families: Iterable[Metric]) -> float:
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    )


class Backend:
    """An exporter that reads what it is given, as a backend would."""

    name = "backend"
    signals: frozenset[Signal] = frozenset({"traces"})

    def __init__(self) -> None:
        self.spans = 0

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
        assert signal == "traces"
        assert timeout > 0
        for resource in ExportTraceServiceRequest.FromString(request).resource_spans:
            self.spans += sum(len(scope.spans) for scope in resource.scope_spans)
        return Delivered()

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(params=["plain ASGI", "Starlette"])
def hostile_target(request: pytest.FixtureRequest) -> tuple[Application, apmkit.Agent]:
    agent = apmkit.Agent(service_name="target", exporters=["prometheus", Backend()])
    app: Any = plain_app if request.param == "plain ASGI" else starlette_app()
    return agent.asgi(app), agent


def test_no_request_makes_a_series_of_its_own(
    hostile_target: tuple[Application, apmkit.Agent],
) -> None:
    app, agent = hostile_target

    async def drive(numbers: range) -> None:
        for number in numbers:
            await answer(app, hostile_scope(number))

    async def pages() -> tuple[str, str]:
        return await page(app, []), await page(app, _OPENMETRICS)

    # What is kept for a number of things is full by half, and holds no more at the end.
    asyncio.run(drive(range(1, REQUESTS // 2)))
    tracemalloc.start()
    try:
        asyncio.run(drive(range(REQUESTS // 2, REQUESTS + 1)))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    text, openmetrics = asyncio.run(pages())
    families = list(openmetrics_families(openmetrics))
    counts = series_by_metric(families)
    assert requests_counted(families) == REQUESTS
    assert requests_counted(text_families(text)) == REQUESTS
    # Methods (four and _OTHER), three routes or none, a few statuses: not one a client.
    assert max(counts.values()) < 100
    assert grown < 2 * MEBIBYTE, f"{grown / MEBIBYTE:.1f} MiB"
    assert agent.flush(10.0)
    stats = agent.stats()
    assert stats["open_requests"] == 0
    account = stats["exporters"]["backend"]
    # Callers sampled every other request; a few more were kept because this machine was slow, and
    # a stall after a response has a span of its own.
    assert REQUESTS <= account["created"] < REQUESTS * 1.01
    assert account["delivered"] + account["dropped"]["sampling"] == account["created"]
    assert REQUESTS / 2 <= account["delivered"] < REQUESTS * 0.51


def test_labels_that_never_repeat_fill_a_metric_and_then_its_overflow_series() -> None:
    values = 200_000
    agent = apmkit.Agent(service_name="target", exporters=["prometheus"])
    app: Any = agent.asgi(plain_app)
    counter = agent.counter("shop.searches", "{search}", "Searches, by what was looked for.")
    for number in range(values // 2):
        counter.add(1, {"search.text": f"{number} \n\"'\\ \x00 ü"})

    tracemalloc.start()
    try:
        for number in range(values // 2, values):
            counter.add(1, {"search.text": f"{number} \n\"'\\ \x00 ü"})
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    openmetrics = asyncio.run(page(app, _OPENMETRICS))
    families = {f.name: f for f in openmetrics_families(openmetrics)}
    samples = families["shop_searches"].samples
    assert len(samples) == MAX_SERIES + 1
    (overflow,) = [s for s in samples if s.labels == {"otel_metric_overflow": "true"}]
    assert overflow.value == values - MAX_SERIES
    assert sum(sample.value for sample in samples) == values
    assert grown < MEBIBYTE / 4, f"{grown / MEBIBYTE:.1f} MiB"


def test_an_application_with_thousands_of_routes_is_bounded_too() -> None:
    """Whoever adds a route for each customer is hostile to himself."""
    customers = 3_000
    agent = apmkit.Agent(service_name="target", exporters=["prometheus"])

    async def routed(scope: Scope, receive: object, send: Callable[[Message], Any]) -> None:
        # As Litestar tells its route; a Starlette router would try 3,000 of them one by one.
        scope["path_template"] = scope["path"]
        await plain_app(scope, receive, send)

    app: Any = agent.asgi(routed)

    async def drive() -> str:
        for number in range(customers):
            scope = {**hostile_scope(1), "method": "GET", "path": f"/customers/{number}"}
            await answer(app, scope)
        return await page(app, [])

    text = asyncio.run(drive())

    families = list(text_families(text))
    counts = series_by_metric(families)
    assert counts["http_server_request_duration_seconds"] == MAX_SERIES + 1
    assert requests_counted(families) == customers
