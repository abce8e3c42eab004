"""The agent as an application meets it: instrument, record by hand, start and stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import apmkit
from apmkit import Agent, SettingsError
from apmkit.instrument import exchange
from apmkit.relay.export import Delivered, Outcome
from tests.collecting import Collecting, account, recording
from tests.instrument.driving import EVERY_TRACE, drive, http_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from apmkit.instrument.asgi_types import Application


@pytest.fixture(autouse=True)
def _a_busy_machine_makes_no_background_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request return up to a minute after its response, without a span for what it did."""
    monkeypatch.setattr(exchange, "_BACKGROUND", 60_000_000_000)


async def handler(_: Request) -> Response:
    return PlainTextResponse("ok")


async def failing(_: Request) -> Response:
    raise LookupError("no such basket")


ROUTES = [Route("/users/{user}", handler), Route("/failing", failing)]


def get(app: Application, path: str, **changes: Any) -> tuple[int, bytes]:  # noqa: ANN401 - any application, any value
    start, *rest = asyncio.run(drive(app, http_scope(path, **changes)))
    return start["status"], b"".join(message.get("body", b"") for message in rest)


# Instrumenting


@pytest.mark.parametrize("make", [FastAPI, Starlette])
def test_instrument_records_an_application_in_place(make: type[Starlette]) -> None:
    exporter = Collecting()
    app = make(routes=ROUTES)
    agent = apmkit.instrument(app, exporters=[exporter], trace_budget=EVERY_TRACE)
    assert get(app, "/users/7") == (200, b"ok")
    assert agent.flush()
    assert [span.name for span in exporter.spans] == ["GET /users/{user}"]


def test_instrument_twice_is_the_same_agent_and_one_record() -> None:
    exporter = Collecting()
    app = Starlette(routes=ROUTES)
    agent = apmkit.instrument(app, exporters=[exporter], trace_budget=EVERY_TRACE)
    assert apmkit.instrument(app, exporters=[]) is agent
    get(app, "/users/7")
    agent.flush()
    assert len(exporter.spans) == 1


def test_instrument_reaches_an_application_that_runs_already() -> None:
    exporter = Collecting()
    app = Starlette(routes=ROUTES)
    get(app, "/users/7")
    agent = apmkit.instrument(app, exporters=[exporter], trace_budget=EVERY_TRACE)
    get(app, "/users/7")
    agent.flush()
    assert len(exporter.spans) == 1


def test_instrument_sees_the_exception_and_the_500_that_answers_it() -> None:
    exporter = Collecting()
    app = Starlette(routes=ROUTES)
    agent = apmkit.instrument(app, exporters=[exporter], trace_budget=EVERY_TRACE)
    with pytest.raises(LookupError):
        get(app, "/failing")
    agent.flush()
    (span,) = exporter.spans
    assert span.attributes["http.response.status_code"] == 500
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize("app", [handler, object(), None])
def test_instrument_says_what_to_do_with_any_other_application(app: object) -> None:
    with pytest.raises(TypeError, match=r"app = apmkit\.Agent\(\.\.\.\)\.asgi\(app\)"):
        apmkit.instrument(app)


def test_asgi_wraps_any_application() -> None:
    agent, exporter = recording()
    assert get(agent.asgi(PlainTextResponse("plain")), "/") == (200, b"plain")
    agent.flush()
    assert [span.name for span in exporter.spans] == ["GET"]


def test_the_starlette_convention_adds_it_as_middleware() -> None:
    agent, exporter = recording()
    app = Starlette(routes=ROUTES, middleware=[StarletteMiddleware(apmkit.Middleware, agent=agent)])
    assert get(app, "/users/7") == (200, b"ok")
    agent.flush()
    assert [span.name for span in exporter.spans] == ["GET /users/{user}"]


def test_a_disabled_agent_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    app, client = Starlette(routes=ROUTES), object()
    agent = apmkit.instrument(app)
    assert agent.asgi(app) is app
    assert agent.wrap(client) is client
    agent.start()
    assert get(app, "/users/7") == (200, b"ok")
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert not agent.server.running


def test_the_agent_becomes_the_global_provider_unless_there_is_one() -> None:
    first, _ = recording()
    second, _ = recording()
    assert trace.get_tracer_provider() is first.tracer_provider
    assert second.tracer_provider is not first.tracer_provider


# The agent's own paths


def test_metrics_are_answered_and_not_recorded() -> None:
    app = Starlette(routes=ROUTES)
    agent = apmkit.instrument(app, exporters=["prometheus"])
    get(app, "/users/7")
    status, body = get(app, "/metrics", client=("127.0.0.1", 50_000))
    assert status == 200
    assert b'http_route="/users/{user}"' in body
    assert b'http_route="/metrics"' not in body
    assert agent.stats()["open_requests"] == 0


def test_a_client_from_elsewhere_is_refused_with_a_sentence() -> None:
    app = Starlette(routes=ROUTES)
    apmkit.instrument(app, exporters=["prometheus"])
    status, body = get(app, "/metrics", client=("203.0.113.9", 50_000))
    assert status == 403
    assert b"ops_networks" in body


def test_a_route_of_the_applications_own_wins_and_the_agent_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Starlette(routes=[Route("/metrics", handler)])
    agent = apmkit.instrument(app, exporters=["prometheus"])
    agent.start()
    assert get(app, "/metrics") == (200, b"ok")
    with caplog.at_level(logging.WARNING, "apmkit"):
        agent.stop()
    assert ["route '/metrics' of its own" in record.message for record in caplog.records] == [True]


def test_without_a_path_there_is_no_page() -> None:
    app = Starlette(routes=ROUTES)
    apmkit.instrument(app, exporters=["prometheus"], metrics_path=None)
    assert get(app, "/metrics", client=("127.0.0.1", 50_000))[0] == 404


# Recording by hand


def test_a_span_records_a_block_under_the_current_one() -> None:
    agent, exporter = recording()
    with agent.span("outer", items=3) as outer:
        assert trace.get_current_span() is outer
        with agent.span("inner"):
            pass
    agent.flush()
    inner, outer_seen = sorted(exporter.spans, key=lambda span: span.name)
    assert inner.parent_span_id == outer_seen.span_id
    assert outer_seen.attributes == {"items": 3}
    assert inner.scope_name == "apmkit.application"


def test_a_span_works_with_async_with_and_lets_exceptions_pass() -> None:
    agent, exporter = recording()
    raised = LookupError("no such basket")

    async def work() -> None:
        async with agent.span("work"):
            raise raised

    with pytest.raises(LookupError) as caught:
        asyncio.run(work())
    assert caught.value is raised
    agent.flush()
    assert [(span.status, span.events[0].name) for span in exporter.spans] == [
        ("error", "exception")
    ]


def test_traced_makes_each_call_of_a_function_a_span() -> None:
    agent, exporter = recording()

    @agent.traced
    def plain(number: int) -> int:
        return number + 1

    @agent.traced
    async def waiting(number: int) -> int:
        await asyncio.sleep(0)
        return number + 2

    assert (plain(1), plain(2), asyncio.run(waiting(1))) == (2, 3, 3)
    assert (plain.__name__, waiting.__name__) == ("plain", "waiting")
    agent.flush()
    names = [span.name.rpartition(".")[2] for span in exporter.spans]
    assert names == ["plain", "plain", "waiting"]


def test_a_generator_may_hold_a_span_and_be_left(caplog: pytest.LogCaptureFixture) -> None:
    agent, exporter = recording()

    def rows() -> Iterator[int]:
        with agent.span("rows"):
            yield from range(3)

    with agent.span("around"):
        abandoned = rows()
        next(abandoned)
        del abandoned
        gc.collect()
    assert trace.get_current_span() is trace.INVALID_SPAN
    agent.flush()
    assert {span.name for span in exporter.spans} == {"rows", "around"}
    assert caplog.records == []


def test_a_traced_generator_function_yields_what_it_yielded() -> None:
    agent, _ = recording()

    @agent.traced
    def rows() -> Iterator[int]:
        yield from range(3)

    assert list(rows()) == [0, 1, 2]


def test_numbers_go_into_metrics_of_their_names() -> None:
    agent, _ = recording()
    agent.record("basket.value", 42.5, {"currency": "EUR"})
    agent.counter("orders", "{order}").add(2)
    agent.gauge("queue.length").set(7)
    agent.histogram("wait", "s", boundaries=(1, 2)).observe(1.5)
    read = {metric.name: metric for metric in agent._pipeline.collect().metrics}
    assert dict(read["basket.value"].points[0].attributes) == {"currency": "EUR"}
    assert read["basket.value"].points[0].sum == 42.5
    assert [read[name].points[0].value for name in ("orders", "queue.length")] == [2, 7]
    assert (read["wait"].boundaries, read["wait"].points[0].counts) == ((1, 2), [0, 1, 0])


def test_a_number_that_cannot_be_recorded_is_counted_and_raises_nothing() -> None:
    agent, _ = recording()
    agent._faults.reraise = False
    agent.counter("orders")
    agent.record("orders", 1)
    agent.record("basket.value", "much")  # type: ignore[arg-type]
    read = {metric.name: metric for metric in agent._pipeline.collect().metrics}
    assert [point.value for point in read["apmkit.internal.errors"].points] == [2]


# Its life


def names_of_threads() -> set[str]:
    # A scrape of an earlier test may still be ending; it is a thread of its own.
    names = {thread.name for thread in threading.enumerate()} - {"apmkit scrape"}
    return {name for name in names if name.startswith("apmkit")}


def test_nothing_runs_before_the_first_request() -> None:
    agent, _ = recording()
    assert names_of_threads() == set()
    get(agent.asgi(PlainTextResponse("ok")), "/")
    assert names_of_threads() == {"apmkit", "apmkit-collecting"}
    agent.stop()
    assert names_of_threads() == set()


def test_stop_delivers_what_is_pending() -> None:
    agent, exporter = recording()
    agent.start()
    with agent.span("last"):
        pass
    agent.stop()
    assert [span.name for span in exporter.spans] == ["last"]
    assert account(agent)["pending"] == 0


def test_a_stopped_agent_can_start_again() -> None:
    agent, exporter = recording()
    for name in ("first", "second"):
        agent.start()
        agent.start()
        with agent.span(name):
            pass
        agent.stop()
        agent.stop()
    assert [span.name for span in exporter.spans] == ["first", "second"]


def test_an_agent_nobody_holds_is_freed() -> None:
    agent, _ = recording(disabled=False)
    trace._TRACER_PROVIDER = None
    reference = weakref.ref(agent)
    del agent
    gc.collect()
    assert reference() is None


def test_an_exporter_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match=r"'jaeger' is not installed.*'otlp', 'prometheus'"):
        Agent(exporters=["jaeger"])


def test_an_exporter_that_hangs_holds_no_request_and_no_stop() -> None:
    release = threading.Event()

    def hang() -> Outcome:
        release.wait(30)
        return Delivered()

    agent, _ = recording(hang)
    app = agent.asgi(PlainTextResponse("ok"))
    try:
        assert get(app, "/") == (200, b"ok")
        flushing = threading.Thread(target=agent.flush, args=(0.01,))
        flushing.start()
        assert get(app, "/") == (200, b"ok")
        before = time.monotonic()
        agent.stop(0.1)
        assert time.monotonic() - before < 5
        assert account(agent)["created"] == account(agent)["pending"] == 2
    finally:
        release.set()
    flushing.join()


def test_an_object_that_is_no_exporter_is_refused_at_once() -> None:
    with pytest.raises(apmkit.SettingsError, match="an object of object"):
        Agent(exporters=[object()])  # type: ignore[list-item]


def test_a_span_may_have_an_attribute_called_name() -> None:
    agent, exporter = recording()
    with agent.span("step", name="first"):
        pass
    agent.flush()
    assert exporter.spans[0].attributes["name"] == "first"


def test_instrumenting_again_checks_the_settings_and_says_that_the_first_hold(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Starlette()
    agent = apmkit.instrument(app, service_name="one", exporters=[])
    with pytest.raises(apmkit.SettingsError):
        apmkit.instrument(app, wrong=1)
    assert apmkit.instrument(app, service_name="two") is agent
    agent._faults.report()
    assert "another service_name" in caplog.text


def test_the_exception_behind_a_500_lies_within_its_span() -> None:
    agent, exporter = recording()

    async def failing(_: Request) -> Response:
        return PlainTextResponse(str(1 // 0))

    app = Starlette(routes=[Route("/", failing)])
    with pytest.raises(ZeroDivisionError):
        asyncio.run(drive(agent.asgi(app), http_scope("/")))
    agent.flush()
    (span,) = exporter.spans
    (event,) = span.events
    assert event.name == "exception"
    assert span.start_unix_nano <= event.time_unix_nano <= span.end_unix_nano
