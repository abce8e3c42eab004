"""Driving ASGI applications in this process, and reading what the agent recorded of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from apmkit.instrument.asgi import Instrumented
from apmkit.instrument.server import ServerInstrumentation
from apmkit.record import clock
from apmkit.record.faults import Faults
from apmkit.record.metrics import Metrics
from apmkit.record.sampling import BudgetSampler
from apmkit.record.tracer import TracerProvider
from apmkit.relay import snapshot, wire
from apmkit.relay.decode import DecodedSpan, decode_traces
from apmkit.relay.journal import MemoryJournal
from apmkit.relay.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest

    from apmkit.instrument.asgi_types import Application, Message, Receive, Scope, Send
    from apmkit.relay.snapshot import Point

EVERY_TRACE = float("inf")
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}
LAST: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}
LABELS = dict[str, "str | bool | int | float"]


class Recorder:
    """The parts of an agent that record requests: no thread, kept traces in memory.

    `started` and `stopped` count what the applications asked for.
    """

    def __init__(
        self,
        trace_budget: float = EVERY_TRACE,
        endpoints: Mapping[str, Application] | None = None,
        *,
        trust_upstream: bool = True,
    ) -> None:
        self.metrics = Metrics()
        self.faults = Faults(self.metrics)
        journal = MemoryJournal()
        self._reader = journal.reader()
        self.relay = Relay(journal, self.faults)
        self.provider = TracerProvider(BudgetSampler(trace_budget), self.relay, self.faults)
        self.started = self.stopped = 0
        self.server = ServerInstrumentation(
            self.provider,
            self.metrics,
            endpoints or {},
            trust_upstream=trust_upstream,
            start=self._start,
            stop=self._stop,
        )

    def _start(self) -> None:
        self.started += 1
        self.server.running = True

    def _stop(self) -> None:
        self.stopped += 1
        self.server.running = False

    def around(self, app: Any) -> Instrumented:  # noqa: ANN401 - any application, any value
        """Return `app` with this recorder around it."""
        return Instrumented(app, self.server)

    def spans(self) -> list[DecodedSpan]:
        """Return every span kept so far, as a backend would see it."""
        payloads = [payload for payload, _ in self._reader.read(1 << 40)]
        return decode_traces(wire.request(wire.resource_prefix({}), payloads))

    def requests(self) -> list[DecodedSpan]:
        """Return the spans of requests: on a busy machine others may tell of what came after."""
        return [span for span in self.spans() if span.kind == "server"]

    def request(self) -> DecodedSpan:
        """Return the span of the one request that was kept."""
        (span,) = self.requests()
        return span

    def points(self, name: str) -> list[Point]:
        """Return all series of a metric that have a value."""
        read = snapshot.take(self.metrics, 0)
        return [point for metric in read.metrics if metric.name == name for point in metric.points]

    def labels(self, name: str) -> list[LABELS]:
        """Return the labels of those series."""
        return [dict(point.attributes) for point in self.points(name)]

    def counted(self, name: str) -> dict[tuple[object, ...], float]:
        """Return a metric's numbers by the values of its labels."""
        return {
            tuple(value for _, value in point.attributes): sum(point.counts)
            if point.counts
            else point.value
            for point in self.points(name)
        }


def http_scope(path: str = "/", method: str = "GET", **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any application, any value
    """Return the scope of a request as a server makes it; a change to None stays in it."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("192.0.2.1", 8000),
        "client": ("198.51.100.7", 50_000),
        "scheme": "http",
        "method": method,
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"shop.example"), (b"user-agent", b"curl/8.5")],
        "state": {},
    }
    scope.update(changes)
    return scope


def websocket_scope(path: str = "/", **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any application, any value
    """Return the scope of a WebSocket handshake."""
    scope = http_scope(path, type="websocket", scheme="ws", subprotocols=[], extensions={})
    del scope["method"]
    scope.update(changes)
    return scope


async def drive(
    app: Application,
    scope: Scope,
    incoming: Iterable[Message] = ({"type": "http.request", "body": b""},),
) -> list[Message]:
    """Run an application once and return the messages it sent.

    After `incoming` the client is gone.
    """
    sent: list[Message] = []
    waiting = list(incoming)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        kind = scope["type"]
        return {"type": f"{kind}.disconnect", **({"code": 1001} if kind == "websocket" else {})}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1_000_000_000
        monkeypatch.setattr(clock, "now", lambda: self.time)

    def advance(self, seconds: float) -> None:
        self.time += int(seconds * 1e9)


def sending(*messages: Message) -> Application:
    """Return an application that sends these messages."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def started(**more: Any) -> Message:  # noqa: ANN401 - any application, any value
    """Return the start of a response, with something else in it."""
    return {**START, **more}


def run(
    app: Any,  # noqa: ANN401 - any application, any value
    scope: Scope | None = None,
    budget: float = EVERY_TRACE,
) -> tuple[Recorder, list[Message]]:
    """Drive an application once; return what was recorded and what it sent."""
    recorder = Recorder(budget)
    sent = asyncio.run(drive(recorder.around(app), scope or http_scope("/basket")))
    return recorder, sent
