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
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from apmkit.instrument import asgi as asgi_module
from apmkit.instrument import exchange as exchange_module
from apmkit.instrument.exchange import Exchange
from apmkit.record import clock
from tests.instrument.driving import EVERY_TRACE, Recorder, drive, http_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from apmkit.instrument.asgi import Application, Message, Receive, Scope, Send

DURATION = "http.server.request.duration"
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}
LAST: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1_000_000_000
        monkeypatch.setattr(clock, "now", lambda: self.time)

    def advance(self, seconds: float) -> None:
        self.time += int(seconds * 1e9)


def sending(*messages: Message) -> Application:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def started(**more: Any) -> Message:  # noqa: ANN401 - any application, any value
    return {**START, **more}


def run(
    app: Any,  # noqa: ANN401 - any application, any value
    scope: Scope | None = None,
    budget: float = EVERY_TRACE,
) -> tuple[Recorder, list[Message]]:
    recorder = Recorder(budget)
    sent = asyncio.run(drive(recorder.around(app), scope or http_scope("/basket")))
    return recorder, sent


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


def test_the_clock_stops_at_the_last_body_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        time.advance(0.25)
        await send(START)
        time.advance(0.5)
        await send(LAST)
        time.advance(7)

    recorder, _ = run(app)
    root = next(span for span in recorder.spans() if span.kind == "server")
    assert root.end_unix_nano - root.start_unix_nano == 750_000_000
    assert [point.sum for point in recorder.points(DURATION)] == [0.75]


def test_the_clock_includes_the_last_trailers(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(started(trailers=True))
        await send(LAST)
        time.advance(1)
        await send({"type": "http.response.trailers", "headers": []})

    recorder, _ = run(app)
    assert [point.sum for point in recorder.points(DURATION)] == [1.0]


def with_background(task: Callable[[], Awaitable[None]]) -> Starlette:
    async def handler(_: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(task))

    return Starlette(routes=[Route("/jobs/{job}", handler)])


def test_a_background_task_is_a_linked_trace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)

    async def task() -> None:
        time.advance(90)

    recorder, _ = run(with_background(task), http_scope("/jobs/7"))
    root, background = recorder.spans()
    assert root.end_unix_nano == root.start_unix_nano
    assert (background.name, background.kind) == ("GET /jobs/{job} background", "internal")
    assert background.trace_id != root.trace_id
    assert not background.parent_span_id
    assert [(link.trace_id, link.span_id) for link in background.links] == [
        (root.trace_id, root.span_id)
    ]
    assert background.end_unix_nano - background.start_unix_nano == 90_000_000_000
    assert [point.sum for point in recorder.points(DURATION)] == [0.0]


def test_spans_of_a_background_task_belong_to_it_and_not_to_the_request() -> None:
    recorder = Recorder()

    async def task() -> None:
        with recorder.provider.get_tracer("shop").start_as_current_span("mail"):
            pass

    asyncio.run(drive(recorder.around(with_background(task)), http_scope("/jobs/7")))
    spans = {span.name: span for span in recorder.spans()}
    assert spans["mail"].parent_span_id == spans["GET /jobs/{job} background"].span_id
    assert spans["mail"].trace_id == spans["GET /jobs/{job} background"].trace_id


def test_an_exception_of_a_background_task_is_on_its_span_and_not_on_the_request() -> None:
    async def task() -> None:
        raise LookupError("no mail server")

    recorder = Recorder()
    with pytest.raises(LookupError, match="no mail server"):
        asyncio.run(drive(recorder.around(with_background(task)), http_scope("/jobs/7")))
    spans = {span.kind: span for span in recorder.spans()}
    assert (spans["server"].status, spans["server"].events) == ("unset", [])
    assert spans["internal"].status == "error"
    assert [event.attributes["exception.type"] for event in spans["internal"].events] == [
        "LookupError"
    ]


def test_a_dropped_request_has_no_background_trace_of_success() -> None:
    async def task() -> None:
        trace.get_current_span().add_event("unseen")

    recorder, _ = run(with_background(task), http_scope("/jobs/7"), budget=0)
    assert recorder.spans() == []
    assert recorder.provider.open == {}


def test_a_handlers_exception_is_on_the_request_that_answers_it_with_a_500(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)

    async def handler(_: Request) -> Response:
        time.advance(0.5)
        raise LookupError("no such basket")

    recorder = Recorder()
    app = recorder.around(Starlette(routes=[Route("/basket", handler)]))
    with pytest.raises(LookupError):
        asyncio.run(drive(app, http_scope("/basket")))
    span = recorder.request()
    assert (span.status, span.status_message) == ("error", "LookupError: no such basket")
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "500"
    assert "apmkit.http.outcome" not in span.attributes
    assert [event.attributes["exception.message"] for event in span.events] == ["no such basket"]
    assert span.end_unix_nano - span.start_unix_nano == 500_000_000


def test_a_500_without_an_exception_is_an_error_without_one() -> None:
    recorder, _ = run(sending(started(status=500), LAST))
    span = recorder.request()
    assert (span.status, span.events) == ("error", [])
    assert "apmkit.http.outcome" not in span.attributes


@pytest.mark.parametrize("budget", [0, EVERY_TRACE], ids=["dropped", "kept"])
@pytest.mark.parametrize(
    "messages", [[], [START], [START, LAST]], ids=["before", "in between", "after"]
)
@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_reaches_the_server_as_the_same_object(
    messages: list[Message], kind: type[BaseException], budget: float
) -> None:
    raised = kind("as it was")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(*messages)(scope, receive, send)
        raise raised

    async def serve() -> BaseException | None:
        try:
            await drive(Recorder(budget).around(app), http_scope())
        except BaseException as error:  # noqa: BLE001 - to look at it
            return error
        return None

    assert asyncio.run(serve()) is raised
    assert raised.__cause__ is None
    assert raised.__context__ is None


def test_an_exception_without_a_response_is_an_error_with_its_class() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LookupError("no such basket")

    recorder = Recorder()
    with pytest.raises(LookupError):
        asyncio.run(drive(recorder.around(app), http_scope()))
    span = recorder.request()
    assert span.status == "error"
    assert span.attributes["error.type"] == "LookupError"
    assert "http.response.status_code" not in span.attributes
    assert recorder.labels(DURATION)[0]["error.type"] == "LookupError"


def test_an_application_that_sends_nothing_has_no_response() -> None:
    recorder, _ = run(sending())
    assert recorder.request().attributes["apmkit.http.outcome"] == "no response"


def test_a_response_without_its_end_is_disconnected() -> None:
    recorder, _ = run(sending(START))
    assert recorder.request().attributes["apmkit.http.outcome"] == "disconnected"
    assert recorder.provider.open == {}


def test_a_cancelled_request_is_cancelled_and_no_error() -> None:
    recorder = Recorder()

    async def serve() -> None:
        running = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            running.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(drive(recorder.around(app), http_scope()))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    span = recorder.request()
    assert span.attributes["apmkit.http.outcome"] == "cancelled"
    assert (span.status, span.events) == ("unset", [])


def test_a_request_that_is_cancelled_after_its_500_was_answered() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(started(status=500))
        await send(LAST)
        raise asyncio.CancelledError

    async def serve() -> None:
        with pytest.raises(asyncio.CancelledError):
            await drive(recorder.around(app), http_scope())

    recorder = Recorder()
    asyncio.run(serve())
    assert "apmkit.http.outcome" not in recorder.request().attributes


def test_a_client_that_leaves_a_stream_ends_the_request() -> None:
    async def handler(_: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return StreamingResponse(chunks())

    recorder, sent = run(Starlette(routes=[Route("/", handler)]), http_scope("/"))
    assert [message.get("body") for message in sent if message["type"] == "http.response.body"] in (
        [b"first"],
        [],
    )
    assert recorder.request().attributes["apmkit.http.outcome"] in {"disconnected", "no response"}


def test_a_stream_counts_its_first_byte_and_its_whole_duration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        time.advance(0.5)
        await send(START)
        await send({"type": "http.response.body", "body": b"12", "more_body": True})
        time.advance(2)
        await send({"type": "http.response.body", "body": b"3"})

    recorder, _ = run(app)
    assert recorder.request().attributes["apmkit.http.time_to_first_byte"] == 0.5
    assert [point.sum for point in recorder.points(DURATION)] == [2.5]
    assert [point.sum for point in recorder.points("apmkit.http.server.time_to_first_byte")] == [
        0.5
    ]
    assert [point.sum for point in recorder.points("http.server.response.body.size")] == [3]
    assert recorder.points("apmkit.http.server.stream.duration") == []


def test_an_event_stream_takes_as_long_as_its_start_and_lasts_as_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        time.advance(0.5)
        await send(started(headers=[(b"content-type", b"text/event-stream")]))
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        time.advance(60)
        await send({"type": "http.response.body", "body": b""})

    recorder, _ = run(app)
    assert [point.sum for point in recorder.points(DURATION)] == [0.5]
    assert [point.sum for point in recorder.points("apmkit.http.server.stream.duration")] == [
        pytest.approx(60.5)
    ]


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
