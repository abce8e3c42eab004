"""One request: its response passes unchanged, and its span says what happened."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from apmkit.instrument import asgi as asgi_module
from apmkit.instrument import exchange as exchange_module
from apmkit.instrument.exchange import Exchange
from tests.instrument.driving import (
    EVERY_TRACE,
    LAST,
    START,
    Recorder,
    drive,
    http_scope,
    run,
    sending,
    started,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from apmkit.instrument.asgi_types import Message, Receive, Scope, Send

DURATION = "http.server.request.duration"


RESPONSES = {
    "whole": [started(), LAST],
    "without headers": [
        {"type": "http.response.start", "status": 204},
        {"type": "http.response.body"},
    ],
    "zero bytes": [started(), {"type": "http.response.body", "body": b"", "more_body": False}],
    "streaming": [
        started(),
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": True},
        {"type": "http.response.body", "body": b"two", "more_body": False},
    ],
    "trailers": [
        started(trailers=True),
        LAST,
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"2")]},
    ],
    "event stream": [
        started(headers=[(b"content-type", b"text/event-stream; charset=utf-8")]),
        {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ],
    "pushes and files": [
        {"type": "http.response.push", "path": "/style.css", "headers": []},
        started(),
        {"type": "http.response.pathsend", "path": "/srv/file"},
    ],
    "early hints": [{"type": "http.response.early_hint", "links": [b"</a>"]}, started(), LAST],
    "unknown keys": [{**started(), "extension": object()}, {**LAST, "extension": 1}],
    "header names in upper case": [started(headers=[(b"Content-Type", b"x/y")]), LAST],
    "headers as lists": [started(headers=[[b"content-type", b"x/y"]]), LAST],
}


@pytest.mark.parametrize("messages", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize("budget", [0, EVERY_TRACE], ids=["dropped", "kept"])
def test_every_message_of_a_response_passes_unchanged(
    messages: list[Message], budget: float
) -> None:
    before = [dict(message) for message in messages]
    _, sent = run(sending(*messages), budget=budget)
    assert all(passed is message for passed, message in zip(sent, messages, strict=True))
    assert sent == before


def test_an_asgi_2_application_is_answered() -> None:
    class App:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            await sending(START, LAST)(self.scope, receive, send)

    recorder, sent = run(App)
    assert sent == [START, LAST]
    assert recorder.request().attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_a_file_that_the_server_sends_itself_is_the_whole_response(kind: str) -> None:
    headers = [(b"Content-Length", b"1234")]
    messages = [started(headers=headers), {"type": f"http.response.{kind}", "path": "/srv/file"}]
    recorder, sent = run(sending(*messages))
    assert sent == messages
    span = recorder.request()
    assert span.attributes["http.response.body.size"] == 1234
    assert "apmkit.http.outcome" not in span.attributes


def test_headers_that_can_be_read_only_once_arrive() -> None:
    recorder, sent = run(sending(started(headers=iter([(b"x-a", b"1")])), LAST))
    assert list(sent[0]["headers"]) == [(b"x-a", b"1")]
    assert recorder.request().status == "unset"


def test_request_headers_that_can_be_read_only_once_arrive() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await sending(START, LAST)(scope, receive, send)

    run(app, http_scope(headers=iter([(b"host", b"shop.example")])))
    assert seen == [(b"host", b"shop.example")]


def test_a_scope_with_the_least_that_asgi_asks_for_is_answered() -> None:
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
    recorder, sent = run(sending(START, LAST), scope)
    assert sent == [START, LAST]
    assert recorder.request().name == "GET"


def test_the_current_span_in_a_handler_is_the_requests_span() -> None:
    found: list[trace.SpanContext] = []

    async def handler(_: Request) -> Response:
        span = trace.get_current_span()
        span.set_attribute("shop.items", 3)
        found.append(span.get_span_context())
        return PlainTextResponse("ok")

    recorder, _ = run(Starlette(routes=[Route("/{name}", handler)]), http_scope("/ann"))
    span = recorder.request()
    assert [(f"{c.trace_id:032x}", f"{c.span_id:016x}") for c in found] == [
        (span.trace_id, span.span_id)
    ]
    assert span.attributes["shop.items"] == 3
    assert span.attributes["http.route"] == "/{name}"


def test_a_name_and_attributes_that_the_application_sets_win() -> None:
    async def handler(_: Request) -> Response:
        span = trace.get_current_span()
        span.update_name("checkout")
        span.set_attribute("http.route", "/mine")
        return PlainTextResponse("ok")

    recorder, _ = run(Starlette(routes=[Route("/{name}", handler)]), http_scope("/ann"))
    span = recorder.request()
    assert span.name == "checkout"
    assert span.attributes["http.route"] == "/mine"
    assert span.attributes["http.response.status_code"] == 200


def test_an_application_that_ends_its_requests_span_is_counted_all_the_same() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        trace.get_current_span().end()
        await sending(START, LAST)(scope, receive, send)

    recorder, sent = run(app)
    assert sent == [START, LAST]
    assert len(recorder.requests()) == 1
    assert [sum(point.counts) for point in recorder.points(DURATION)] == [1]


def test_the_context_is_as_before_afterwards() -> None:
    async def serve() -> None:
        await drive(Recorder().around(sending(START, LAST)), http_scope())
        assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(serve())


def test_context_variables_of_the_application_are_visible_to_its_server() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="before")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("after")
        await sending(START, LAST)(scope, receive, send)

    async def serve() -> str:
        await drive(Recorder().around(app), http_scope())
        return variable.get()

    assert asyncio.run(serve()) == "after"


def test_concurrent_requests_do_not_mix() -> None:
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = trace.get_current_span()
        await asyncio.sleep(0)
        with recorder.provider.get_tracer("shop").start_as_current_span(scope["path"]):
            await asyncio.sleep(0)
        assert trace.get_current_span() is own
        await sending(START, LAST)(scope, receive, send)

    async def serve() -> None:
        wrapped = recorder.around(app)
        await asyncio.gather(*(drive(wrapped, http_scope(f"/{number}")) for number in range(50)))

    asyncio.run(serve())
    roots = {span.span_id: span for span in recorder.spans() if span.kind == "server"}
    inner = [span for span in recorder.spans() if span.scope_name == "shop"]
    assert len(roots) == len({span.trace_id for span in roots.values()}) == len(inner) == 50
    assert all(roots[span.parent_span_id].attributes["url.path"] == span.name for span in inner)


def test_an_abandoned_stream_that_holds_a_span_is_closed_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()

    async def chunks() -> AsyncIterator[bytes]:
        with recorder.provider.get_tracer("shop").start_as_current_span("rows"):
            yield b"first"
            yield b"second"

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        async for chunk in chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            raise LookupError("in the middle")

    with pytest.raises(LookupError):
        asyncio.run(drive(recorder.around(app), http_scope()))
    gc.collect()
    assert caplog.records == []
    assert {span.name for span in recorder.spans()} == {"GET", "rows"}


@pytest.mark.parametrize("budget", [0, EVERY_TRACE], ids=["dropped", "kept"])
@pytest.mark.parametrize("failing", [False, True], ids=["answered", "raising"])
def test_nothing_of_a_request_waits_for_the_garbage_collector(
    budget: float, *, failing: bool
) -> None:
    remembered: list[weakref.ref[Any]] = []

    class Watched(Exchange):
        """An exchange that can be referred to weakly."""

        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - any application, any value
            super().__init__(*arguments)
            self.span.set_attribute("witness", Witness())  # type: ignore[arg-type]
            remembered.append(weakref.ref(self))
            remembered.append(weakref.ref(self.span.attributes["witness"]))  # type: ignore[index]

    class Witness:
        """Lives as long as the span that has it as an attribute."""

        def __str__(self) -> str:
            return "witness"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with recorder.provider.get_tracer("shop").start_as_current_span("inner"):
            pass
        if failing:
            raise LookupError
        await sending(START, LAST)(scope, receive, send)

    recorder = Recorder(budget)
    wrapped = recorder.around(app)

    async def serve() -> None:
        with suppress(LookupError):
            await drive(wrapped, http_scope())
        assert [reference() for reference in remembered] == [None, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asgi_module, "Exchange", Watched)
        gc.collect()
        gc.disable()
        try:
            asyncio.run(serve())
        finally:
            gc.enable()


@pytest.mark.parametrize("size", [b"12", b" 12", b"0"])
def test_the_size_of_a_request_is_its_content_length(size: bytes) -> None:
    recorder, _ = run(sending(START, LAST), http_scope(headers=[(b"content-length", size)]))
    assert [point.sum for point in recorder.points("http.server.request.body.size")] == [int(size)]


def test_peers_are_remembered_in_bounded_memory() -> None:
    recorder = Recorder()
    app = recorder.around(sending(START, LAST))

    async def serve() -> None:
        for port in range(exchange_module._MAX_PEERS + 10):
            await drive(app, http_scope(client=("198.51.100.7", port)))

    asyncio.run(serve())
    assert len(recorder.server.peers) <= exchange_module._MAX_PEERS
    assert recorder.spans()[-1].attributes["client.port"] == exchange_module._MAX_PEERS + 9
