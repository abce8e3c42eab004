"""The metrics of requests: exact, few series, and never by path."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from apmkit.record.metrics import MAX_SERIES
from tests.instrument.driving import Recorder, drive, http_scope, websocket_scope

if TYPE_CHECKING:
    from apmkit.instrument.asgi_types import Receive, Scope, Send
    from apmkit.instrument.http_metrics import HttpMetrics, Key

DURATION = "http.server.request.duration"
ACTIVE = "http.server.active_requests"


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"12345"})


def key(
    route: str | None = "/basket", method: str = "GET", status: int = 200, error: str | None = None
) -> Key:
    return route, method, status, "http", "1.1", error


def http_metrics() -> tuple[HttpMetrics, Recorder]:
    recorder = Recorder()
    return recorder.server.metrics, recorder


def test_a_series_has_the_labels_of_the_conventions() -> None:
    metrics, recorder = http_metrics()
    metrics.new_series(key(status=503, error="503")).observe(0.5, 10)
    labels = {
        "http.request.method": "GET",
        "http.response.status_code": 503,
        "http.route": "/basket",
        "error.type": "503",
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }
    assert recorder.labels(DURATION) == [labels]
    assert recorder.labels("http.server.response.body.size") == [labels]


def test_what_is_not_known_is_no_label() -> None:
    metrics, _ = http_metrics()
    assert metrics.labels((None, "GET", 0, "http", "", None)) == {
        "http.request.method": "GET",
        "url.scheme": "http",
    }


def test_a_status_from_an_enum_is_a_number() -> None:
    metrics, recorder = http_metrics()
    metrics.new_series(key(status=HTTPStatus.CREATED)).observe(0.5, 10)
    (labels,) = recorder.labels(DURATION)
    assert type(labels["http.response.status_code"]) is int


def test_a_series_is_found_again_by_its_key() -> None:
    metrics, recorder = http_metrics()
    series = metrics.new_series(key())
    assert metrics.by_key[key()] is series
    metrics.new_series(key()).observe(1, 1)
    series.observe(1, 1)
    assert [sum(point.counts) for point in recorder.points(DURATION)] == [2]


def test_the_name_of_an_unknown_method_is_http() -> None:
    metrics, _ = http_metrics()
    assert metrics.new_series(key(method="_OTHER")).name == "HTTP /basket"
    assert metrics.new_series(key(route=None)).name == "GET"


def test_any_number_of_kinds_of_requests_is_bounded_and_exact() -> None:
    metrics, recorder = http_metrics()
    for number in range(MAX_SERIES + 500):
        metrics.new_series(key(f"/{number}")).observe(0.1, 1)
    points = recorder.points(DURATION)
    assert len(points) == MAX_SERIES + 1
    assert sum(sum(point.counts) for point in points) == MAX_SERIES + 500
    assert dict(points[-1].attributes) == {"otel.metric.overflow": True}
    assert len(metrics.by_key) <= MAX_SERIES


def test_a_request_is_slow_above_the_bucket_of_the_99th_percentile() -> None:
    metrics, _ = http_metrics()
    series = metrics.new_series(key())
    for _ in range(199):
        series.observe(0.02, 1)
    before = series.slow_after
    series.observe(3, 1)
    assert before > 10**12
    assert series.slow_after == 25_000_000


def test_hostile_paths_and_methods_make_one_series() -> None:
    recorder = Recorder()
    app = recorder.around(bare)

    async def serve() -> None:
        for number in range(300):
            await drive(app, http_scope(f"/{number}", f"BREW{number}"))

    asyncio.run(serve())
    assert recorder.counted(DURATION) == {("_OTHER", 200, "1.1", "http"): 300}


def active(recorder: Recorder) -> dict[tuple[object, ...], float]:
    return recorder.counted(ACTIVE)


def test_requests_in_flight_are_counted_by_method_and_scheme() -> None:
    recorder = Recorder()
    seen: list[dict[tuple[object, ...], float]] = []

    async def serve() -> None:
        all_there = asyncio.Event()
        here = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal here
            here += 1
            if here == 3:
                seen.append(active(recorder))
                all_there.set()
            await all_there.wait()
            await bare(scope, receive, send)

        wrapped = recorder.around(app)
        requests: list[dict[str, Any]] = [
            http_scope(), http_scope(), http_scope(method="POST", scheme="https"),
        ]  # fmt: skip
        await asyncio.gather(*(drive(wrapped, scope) for scope in requests))

    asyncio.run(serve())
    assert seen == [{("GET", "http"): 2, ("POST", "https"): 1}]
    assert active(recorder) == {("GET", "http"): 0, ("POST", "https"): 0}


def test_a_websocket_is_active_during_its_handshake_only() -> None:
    recorder = Recorder()
    seen: list[dict[tuple[object, ...], float]] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(active(recorder))
        await send({"type": "websocket.accept"})
        seen.append(active(recorder))

    asyncio.run(drive(recorder.around(app), websocket_scope(), [{"type": "websocket.connect"}]))
    assert seen == [{("GET", "ws"): 1}, {("GET", "ws"): 0}]


def test_a_span_of_a_background_job_is_no_active_request() -> None:
    recorder = Recorder()
    span = recorder.provider.get_tracer("shop").start_span("job")
    assert active(recorder) == {}
    span.end()


def test_a_kept_request_is_the_example_of_its_bucket() -> None:
    recorder = Recorder()
    asyncio.run(drive(recorder.around(bare), http_scope()))
    span = recorder.request()
    (point,) = recorder.points(DURATION)
    (exemplar,) = point.exemplars.values()
    assert (exemplar.trace_id, exemplar.span_id) == (span.trace_id, span.span_id)
    assert exemplar.value == point.sum


def test_a_dropped_request_is_no_example() -> None:
    recorder = Recorder(0)
    asyncio.run(drive(recorder.around(bare), http_scope()))
    assert [point.exemplars for point in recorder.points(DURATION)] == [{}]
