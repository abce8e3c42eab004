"""The wrapper around an ASGI application: what it lets pass, what it answers, what it survives."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from apmkit.instrument.asgi import recorded_elsewhere
from apmkit.instrument.exchange import Exchange
from apmkit.instrument.http_metrics import HttpMetrics
from apmkit.instrument.server import ServerInstrumentation
from apmkit.record import clock
from apmkit.record.tracer import TracerProvider
from tests.instrument.driving import EVERY_TRACE, Recorder, drive, http_scope, websocket_scope

if TYPE_CHECKING:
    from starlette.requests import Request

    from apmkit.instrument.asgi_types import Message, Receive, Scope, Send

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = (b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode())
OK: list[dict[str, Any]] = [
    {"type": "http.response.start", "status": 200, "headers": []},
    {"type": "http.response.body", "body": b"ok"},
]


async def ok(_scope: Scope, _receive: Receive, send: Send) -> None:
    for message in OK:
        await send(message)


async def handler(_: Request) -> Response:
    return PlainTextResponse("ok")


def send_headers(*headers: tuple[bytes, bytes], recorder: Recorder | None = None) -> Recorder:
    recorder = recorder or Recorder()
    assert asyncio.run(drive(recorder.around(ok), http_scope(headers=list(headers)))) == OK
    return recorder


def malformed(recorder: Recorder) -> dict[tuple[object, ...], float]:
    return recorder.counted("apmkit.malformed.input")


def test_the_callers_trace_goes_on() -> None:
    span = send_headers(TRACEPARENT, (b"tracestate", b"shop=1")).request()
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, SPAN_ID)
    assert "shop=1" in span.trace_state


def test_an_upstream_that_is_not_trusted_is_linked_to_and_not_continued() -> None:
    recorder = send_headers(TRACEPARENT, recorder=Recorder(trust_upstream=False))
    span = recorder.request()
    assert span.trace_id != TRACE_ID
    assert not span.parent_span_id
    assert [(link.trace_id, link.span_id) for link in span.links] == [(TRACE_ID, SPAN_ID)]


def test_baggage_is_visible_in_the_application() -> None:
    found: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(baggage.get_baggage("tenant"))
        await ok(scope, receive, send)

    scope = http_scope(headers=[(b"baggage", b"tenant=acme")])
    asyncio.run(drive(Recorder().around(app), scope))
    assert found == ["acme"]


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ([(b"traceparent", b"nonsense")], "traceparent"),
        ([(b"traceparent", b"\xff\xfe")], "traceparent"),
        ([(b"traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01")], "traceparent"),
        ([(b"traceparent", b"0" * 2**20)], "traceparent"),
        ([TRACEPARENT, TRACEPARENT], "traceparent"),
        ([TRACEPARENT, (b"tracestate", b"a" * 2**20)], "tracestate"),
        ([TRACEPARENT, (b"tracestate", b"caf\xe9=1")], "tracestate"),
        ([(b"baggage", b"a=" + b"b" * 2**20)], "baggage"),
        ([(b"baggage", b"a=\xff")], "baggage"),
        ([(b"content-length", b"twelve")], "content-length"),
        ([(b"content-length", b"\xff")], "content-length"),
    ],
)
def test_a_malformed_header_changes_no_response_and_is_counted(
    headers: list[tuple[bytes, bytes]], what: str
) -> None:
    recorder = send_headers(*headers)
    assert malformed(recorder) == {(what,): 1}
    assert recorder.request().attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("name", [b"user-agent", b"x-any", b"host", b"\xff\xfe", b""])
@pytest.mark.parametrize(
    "value", [b"a" * 2**20, b"\xff\xfe\x00", b""], ids=["long", "not UTF-8", "empty"]
)
def test_a_strange_header_changes_no_response(name: bytes, value: bytes) -> None:
    recorder = send_headers((name, value))
    assert malformed(recorder) == {}
    assert recorder.request().attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("method", ["BREW", "get", "", "é", "A" * 2**16])
def test_a_strange_method_changes_no_response_and_no_label(method: str) -> None:
    recorder = Recorder()
    assert asyncio.run(drive(recorder.around(ok), http_scope(method=method))) == OK
    (labels,) = recorder.labels("http.server.request.duration")
    assert labels["http.request.method"] in {"GET", "_OTHER"}


@pytest.mark.parametrize("broken", ["new_series", "observe_request_size"])
@pytest.mark.parametrize("budget", [0, EVERY_TRACE], ids=["dropped", "kept"])
def test_an_error_in_the_metrics_changes_no_response_and_is_counted(
    broken: str, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(HttpMetrics, broken, failing)
    recorder = Recorder(budget)
    recorder.faults.reraise = False
    send_headers((b"content-length", b"2"), recorder=recorder)
    assert recorder.counted("apmkit.internal.errors") == {("asgi.end",): 1}
    assert recorder.provider.open == {}


@pytest.mark.parametrize(
    ("owner", "name", "place"),
    [
        (TracerProvider, "start_root", "asgi.begin"),
        (TracerProvider, "end_root", "asgi.end"),
        (ServerInstrumentation, "remote", "asgi.begin"),
        (Exchange, "describe", "relay.encode"),
        (Exchange, "_streams", "asgi.send"),
    ],
)
def test_an_error_inside_the_agent_changes_no_response_and_is_counted(
    owner: type, name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("injected")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    messages = [OK[0], {"type": "http.response.body", "body": b"o", "more_body": True}, OK[1]]
    monkeypatch.setattr(owner, name, failing)
    recorder = Recorder()
    recorder.faults.reraise = False
    scope = http_scope(headers=[TRACEPARENT])
    assert asyncio.run(drive(recorder.around(app), scope)) == messages
    assert recorder.counted("apmkit.internal.errors") == {(place,): 1}
    assert recorder.provider.open == {}


def test_an_error_inside_the_agent_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("injected")

    time = [10**9]
    monkeypatch.setattr(clock, "now", lambda: time[0])
    monkeypatch.setattr(HttpMetrics, "new_series", failing)
    recorder = Recorder()
    recorder.faults.reraise = False
    logged: list[int] = []
    with caplog.at_level(logging.WARNING, "apmkit"):
        for seconds in (0, 1, 58, 2, 1):
            time[0] += seconds * 10**9
            send_headers(recorder=recorder)
            assert len(caplog.records) == sum(logged), "nothing is logged on the request's stack"
            recorder.faults.report()
            logged.append(len(caplog.records) - sum(logged))
    assert logged == [1, 0, 0, 1, 0]
    assert "injected" in str(caplog.records[0].exc_info)
    assert recorder.counted("apmkit.internal.errors") == {("asgi.end",): 5}


@pytest.mark.parametrize(
    "message", [{}, {"type": "http.response.start", "status": "200"}, {"type": 7}]
)
def test_a_message_that_is_not_asgi_reaches_the_server_as_it_is(message: Message) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(message)
        await send(OK[1])

    recorder = Recorder()
    recorder.faults.reraise = False
    assert asyncio.run(drive(recorder.around(app), http_scope())) == [message, OK[1]]
    assert recorder.provider.open == {}


def test_what_the_servers_send_raises_reaches_the_application() -> None:
    caught: list[BaseException] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send(OK[0])
            await send(OK[1])
        except OSError as error:
            caught.append(error)

    async def send(message: Message) -> None:
        if message is OK[1]:
            raise gone

    async def receive() -> Message:
        return {"type": "http.request"}

    gone = BrokenPipeError()
    recorder = Recorder()
    asyncio.run(recorder.around(app)(http_scope(), receive, send))
    assert caught == [gone]
    assert recorder.request().attributes["apmkit.http.outcome"] == "disconnected"


def test_receive_is_the_servers_own() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def app(scope: Scope, own: Receive, send: Send) -> None:
        assert own is receive
        await ok(scope, own, send)

    async def send(_: Message) -> None:
        pass

    asyncio.run(Recorder().around(app)(http_scope(), receive, send))


def lifespan(app: Any, recorder: Recorder) -> list[str]:  # noqa: ANN401 - any application, any value
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    return [
        message["type"] for message in asyncio.run(drive(recorder.around(app), scope, messages))
    ]


def test_the_lifespan_starts_and_stops_the_agent() -> None:
    recorder = Recorder()
    assert lifespan(Starlette(), recorder) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert (recorder.started, recorder.stopped) == (1, 1)
    assert recorder.spans() == []


def test_an_agent_that_fails_to_start_or_stop_does_not_keep_the_application_from_it() -> None:
    def failing() -> None:
        raise RuntimeError("injected")

    recorder = Recorder()
    recorder.faults.reraise = False
    recorder.server.start = recorder.server.stop = failing
    assert lifespan(Starlette(), recorder) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert recorder.counted("apmkit.internal.errors") == {("asgi.lifespan",): 2}


def test_without_a_lifespan_the_first_request_starts_the_agent() -> None:
    recorder = Recorder()
    send_headers(recorder=recorder)
    send_headers(recorder=recorder)
    assert recorder.started == 1


def test_an_unknown_kind_of_scope_passes() -> None:
    sent = [{"type": "telepathy.send"}]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(sent[0])

    recorder = Recorder()
    assert asyncio.run(drive(recorder.around(app), {"type": "telepathy"})) == sent
    assert recorder.spans() == []


def test_the_agents_own_path_is_answered_and_not_recorded() -> None:
    recorder = Recorder(endpoints={"/metrics": PlainTextResponse("apmkit")})
    app = recorder.around(PlainTextResponse("application"))
    bodies = [
        asyncio.run(drive(app, http_scope(path)))[-1]["body"] for path in ("/metrics", "/metrics/x")
    ]
    assert bodies == [b"apmkit", b"application"]
    assert [span.attributes["url.path"] for span in recorder.requests()] == ["/metrics/x"]
    assert recorder.started == 1


def test_a_websocket_on_the_agents_path_is_the_applications() -> None:
    recorder = Recorder(endpoints={"/metrics": PlainTextResponse("apmkit")})

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    sent = asyncio.run(drive(recorder.around(app), websocket_scope("/metrics")))
    assert sent == [{"type": "websocket.accept"}]


@pytest.mark.parametrize("name", ["OTEL_PYTHON_EXCLUDED_URLS", "OTEL_PYTHON_ASGI_EXCLUDED_URLS"])
def test_excluded_urls_are_not_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "example/health,^https")
    recorder = Recorder()
    app = recorder.around(ok)
    for scope in (
        http_scope("/health"),
        http_scope(scheme="https"),
        websocket_scope("/health"),
        http_scope("/shop"),
    ):
        asyncio.run(drive(app, scope))
    assert [span.attributes["url.path"] for span in recorder.requests()] == ["/shop"]


def test_headers_are_read_once_for_excluded_urls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXCLUDED_URLS", "shop.example/health")
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await ok(scope, receive, send)

    recorder = Recorder()
    headers = [(b"host", b"shop.example")]
    for path in ("/health", "/shop"):
        asyncio.run(drive(recorder.around(app), http_scope(path, headers=iter(headers))))
    assert seen == headers * 2
    assert [span.attributes["url.path"] for span in recorder.requests()] == ["/shop"]


def test_an_application_wrapped_twice_is_recorded_once() -> None:
    recorder = Recorder()
    inner = Starlette(
        routes=[Mount("/sub", app=recorder.around(Starlette(routes=[Route("/x", handler)])))]
    )
    asyncio.run(drive(recorder.around(recorder.around(inner)), http_scope("/sub/x")))
    assert recorder.request().name == "GET /sub/x"
    assert [sum(point.counts) for point in recorder.points("http.server.request.duration")] == [1]


def with_opentelemetry_inside(recorder: Recorder) -> Starlette:
    app = Starlette(routes=[Route("/users/{user}", handler)])
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=recorder.provider,
        meter_provider=MeterProvider(),
        exclude_spans=["send", "receive"],
    )
    return app


def test_opentelemetrys_middleware_inside_records_and_apmkit_does_not() -> None:
    recorder = Recorder()
    app = recorder.around(with_opentelemetry_inside(recorder))
    sent = asyncio.run(drive(app, http_scope("/users/7")))
    assert sent[-1]["body"] == b"ok"
    span = recorder.request()
    assert (span.name, span.kind) == ("GET /users/7", "server")
    assert span.scope_name == "opentelemetry.instrumentation.asgi"
    assert recorder.points("http.server.request.duration") == []


def test_opentelemetrys_middleware_outside_records_and_apmkit_does_not() -> None:
    recorder = Recorder()
    app = OpenTelemetryMiddleware(
        recorder.around(ok),
        tracer_provider=recorder.provider,
        meter_provider=MeterProvider(),
        exclude_spans=["send", "receive"],
    )
    asyncio.run(drive(app, http_scope("/users/7")))
    assert recorder.request().scope_name == "opentelemetry.instrumentation.asgi"


def test_opentelemetrys_marks_on_an_application_are_found() -> None:
    recorder = Recorder()
    marked = Starlette()
    marked._is_instrumented_by_opentelemetry = True  # type: ignore[attr-defined]
    assert recorded_elsewhere(marked)
    assert recorded_elsewhere(OpenTelemetryMiddleware(ok))
    assert recorded_elsewhere(recorder.around(OpenTelemetryMiddleware(ok)))
    assert not recorded_elsewhere(Starlette())
    assert not recorded_elsewhere(ok)


def test_an_application_whose_layers_go_in_a_circle_is_looked_at_and_left() -> None:
    class Layer:
        app: object

    layer = Layer()
    layer.app = layer
    assert not recorded_elsewhere(layer)


def test_a_request_inside_an_ended_or_foreign_span_is_recorded_under_no_parent() -> None:
    recorder = Recorder()
    with recorder.provider.get_tracer("server").start_as_current_span("accept"):
        send_headers(recorder=recorder)
    accept = next(span for span in recorder.spans() if span.name == "accept")
    request = next(span for span in recorder.spans() if span.kind == "server")
    assert not request.parent_span_id
    assert request.trace_id != accept.trace_id
    assert trace.get_current_span() is trace.INVALID_SPAN
