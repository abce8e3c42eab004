"""FastAPI, which has telemetry of its own: the agent records each request, and once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

import apmkit
from apmkit.relay.export import Delivered
from tests.e2e.collector import spans_in
from tests.e2e.servers import openmetrics_families

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from apmkit.instrument.asgi_types import Application
    from apmkit.relay.export import Outcome, Signal

    Message = MutableMapping[str, Any]


class Names:
    """An exporter that remembers the names of the spans it got."""

    name = "names"
    signals: frozenset[Signal] = frozenset({"traces"})

    def __init__(self) -> None:
        self.names: list[str] = []

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:  # noqa: ARG002
        self.names += [span["name"] for span in spans_in(request)]
        return Delivered()

    def close(self) -> None:
        """Hold nothing."""


def shop() -> FastAPI:
    app, mounted = FastAPI(), FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @mounted.get("/users/{name}")
    async def user(name: str) -> str:
        return name

    app.mount("/admin", mounted)
    return app


def instrumented(way: str, names: Names) -> tuple[Application, apmkit.Agent]:
    app = shop()
    if way == "instrument":
        return app, apmkit.instrument(app, exporters=["prometheus", names])
    agent = apmkit.Agent(exporters=["prometheus", names])
    if way == "asgi":
        return agent.asgi(app), agent
    app.add_middleware(apmkit.Middleware, agent=agent)
    return app, agent


async def run(app: Application, *paths: str) -> list[str]:
    """Start the application, request each path, stop it; return the bodies of the responses."""
    lifespan: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    bodies: list[str] = []

    async def receive_lifespan() -> Message:
        return lifespan.pop(0)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ignore(message: Message) -> None:
        if message["type"] != "lifespan.startup.complete":
            return
        for path in paths:
            await request(path)

    async def request(path: str) -> None:
        body = bytearray()

        async def send(message: Message) -> None:
            body.extend(message.get("body", b""))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"accept", b"application/openmetrics-text")],
        }
        await app(scope, receive, send)
        bodies.append(body.decode())

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive_lifespan, ignore)
    return bodies


@pytest.mark.parametrize("way", ["instrument", "asgi", "middleware"])
def test_each_request_has_one_span_and_one_observation(way: str) -> None:
    names = Names()
    app, _ = instrumented(way, names)

    *answers, page = asyncio.run(run(app, "/items/1", "/admin/users/ada", "/items/2", "/metrics"))

    assert answers == ["1", '"ada"', "2"]
    # The lifespan's end has delivered them.
    assert sorted(names.names) == [
        "GET /admin/users/{name}",
        "GET /items/{number}",
        "GET /items/{number}",
    ]
    counts = {
        sample.labels["http_route"]: sample.value
        for family in openmetrics_families(page)
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }
    assert counts == {"/items/{number}": 2, "/admin/users/{name}": 1}
