"""When a request ends and how: its clock, background work, streams, exceptions, cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.instrument.driving import (
    EVERY_TRACE,
    LAST,
    START,
    Clock,
    Recorder,
    drive,
    http_scope,
    run,
    sending,
    started,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from apmkit.instrument.asgi_types import Message, Receive, Scope, Send

DURATION = "http.server.request.duration"


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
