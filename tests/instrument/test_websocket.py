"""WebSockets: the handshake is a request, messages are counted, the connection has a lifetime."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from apmkit.record import clock
from tests.instrument.driving import EVERY_TRACE, Recorder, drive, websocket_scope

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from apmkit.instrument.asgi_types import Application, Message, Receive, Scope, Send

CONNECT: dict[str, Any] = {"type": "websocket.connect"}
ACCEPT: dict[str, Any] = {
    "type": "websocket.accept",
    "subprotocol": "chat",
    "headers": [(b"x-a", b"1")],
}
TEXT: dict[str, Any] = {"type": "websocket.send", "text": "hello"}
BYTES: dict[str, Any] = {"type": "websocket.send", "bytes": b""}
CLOSE: dict[str, Any] = {"type": "websocket.close", "code": 1000, "reason": ""}
RECEIVED: dict[str, Any] = {"type": "websocket.receive", "text": "hi"}
STREAM = "apmkit.http.server.stream.duration"


def sending(*messages: Message, receives: int = 1) -> Application:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(receives):
            await receive()
        for message in messages:
            await send(message)

    return app


def run(app: Any, *incoming: Message, path: str = "/chat") -> tuple[Recorder, list[Message]]:  # noqa: ANN401 - any application, any value
    recorder = Recorder()
    sent = asyncio.run(drive(recorder.around(app), websocket_scope(path), incoming or [CONNECT]))
    return recorder, sent


def test_every_message_passes_unchanged() -> None:
    messages = [ACCEPT, TEXT, BYTES, CLOSE]
    _, sent = run(sending(*messages))
    assert all(passed is message for passed, message in zip(sent, messages, strict=True))


def test_an_accepted_handshake_is_a_request_with_status_101() -> None:
    recorder, _ = run(sending(ACCEPT, CLOSE))
    span = recorder.request()
    assert (span.kind, span.status) == ("server", "unset")
    assert span.attributes["http.request.method"] == "GET"
    assert span.attributes["http.response.status_code"] == 101
    assert span.attributes["url.scheme"] == "ws"
    assert "apmkit.http.outcome" not in span.attributes
    assert [labels["http.response.status_code"] for labels in recorder.labels(STREAM)] == [101]


def test_a_handshake_has_the_route_and_the_current_span() -> None:
    found: list[trace.Span] = []

    async def chat(socket: WebSocket) -> None:
        found.append(trace.get_current_span())
        await socket.accept()
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/chat/{room}", chat)])
    recorder, _ = run(app, path="/chat/blue")
    span = recorder.request()
    assert span.name == "GET /chat/{room}"
    assert f"{found[0].get_span_context().span_id:016x}" == span.span_id


def test_a_handshake_that_is_closed_is_a_403() -> None:
    recorder, sent = run(sending(CLOSE))
    assert sent == [CLOSE]
    assert recorder.request().attributes["http.response.status_code"] == 403
    assert recorder.points(STREAM) == []


@pytest.mark.parametrize(("status", "outcome"), [(401, "unset"), (503, "error")])
def test_a_denial_response_has_its_own_status(status: int, outcome: str) -> None:
    messages: list[Message] = [
        {"type": "websocket.http.response.start", "status": status, "headers": []},
        {"type": "websocket.http.response.body", "body": b"no ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"entry"},
    ]
    recorder, sent = run(sending(*messages))
    assert sent == messages
    span = recorder.request()
    assert (span.attributes["http.response.status_code"], span.status) == (status, outcome)


def test_messages_are_counted_by_direction() -> None:
    disconnect = {"type": "websocket.disconnect", "code": 1000}
    recorder, _ = run(
        sending(ACCEPT, TEXT, BYTES, TEXT, receives=4), CONNECT, RECEIVED, RECEIVED, disconnect
    )
    assert recorder.counted("apmkit.websocket.messages") == {("receive",): 2, ("transmit",): 3}


def test_the_connection_has_a_duration_and_the_handshake_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = [1_000_000_000]
    monkeypatch.setattr(clock, "now", lambda: time[0])

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        time[0] += 250_000_000
        await send(ACCEPT)
        time[0] += 60_000_000_000
        await send(CLOSE)

    recorder, _ = run(app)
    span = recorder.request()
    assert span.end_unix_nano - span.start_unix_nano == 250_000_000
    assert [point.sum for point in recorder.points("http.server.request.duration")] == [0.25]
    assert [point.sum for point in recorder.points(STREAM)] == [pytest.approx(60.25)]


def test_spans_made_during_the_connection_belong_to_the_handshakes_trace() -> None:
    recorder = Recorder()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        with recorder.provider.get_tracer("shop").start_as_current_span("message"):
            pass

    asyncio.run(drive(recorder.around(app), websocket_scope("/chat"), [CONNECT]))
    handshake, message = recorder.spans()
    assert (message.trace_id, message.parent_span_id) == (handshake.trace_id, handshake.span_id)


def test_an_exception_during_the_connection_is_raised_and_recorded_in_a_linked_span() -> None:
    raised = LookupError("no such room")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        raise raised

    recorder = Recorder()
    with pytest.raises(LookupError) as caught:
        asyncio.run(drive(recorder.around(app), websocket_scope("/chat"), [CONNECT]))
    assert caught.value is raised
    handshake, failed = recorder.spans()
    assert handshake.status == "unset"
    assert failed.status == "error"
    assert [link.span_id for link in failed.links] == [handshake.span_id]
    assert [event.attributes["exception.message"] for event in failed.events] == ["no such room"]
    assert len(recorder.points(STREAM)) == 1


def test_an_exception_instead_of_the_handshake_is_its_error() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LookupError

    recorder = Recorder()
    with pytest.raises(LookupError):
        asyncio.run(drive(recorder.around(app), websocket_scope("/chat"), [CONNECT]))
    span = recorder.request()
    assert (span.status, span.attributes["error.type"]) == ("error", "LookupError")


def test_an_application_that_does_not_answer_the_handshake_has_no_response() -> None:
    recorder, _ = run(sending())
    assert recorder.request().attributes["apmkit.http.outcome"] == "no response"
    assert recorder.provider.open == {}


@pytest.mark.parametrize("budget", [0, EVERY_TRACE], ids=["dropped", "kept"])
def test_nothing_of_a_connection_waits_for_the_garbage_collector(budget: float) -> None:
    remembered: list[weakref.ref[Any]] = []
    recorder = Recorder(budget)

    class Witness:
        """Lives as long as the span that has it as an attribute."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        witness = Witness()
        remembered.append(weakref.ref(witness))
        trace.get_current_span().set_attribute("witness", witness)  # type: ignore[arg-type]
        await send(ACCEPT)
        await send(CLOSE)

    async def serve() -> None:
        await drive(recorder.around(app), websocket_scope("/chat"), [CONNECT])
        assert [reference() for reference in remembered] == [None]

    gc.collect()
    gc.disable()
    try:
        asyncio.run(serve())
    finally:
        gc.enable()
