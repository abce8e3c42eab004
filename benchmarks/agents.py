"""The rows of the table: the same application under each agent.

Every row counts the same things, so that the rows can be compared: for each request one
observation of the server's duration by method, route and status; for each SQL statement and each
cache read one observation of its duration. The rows that trace also make one span for each of
these. Imports of agents are local: a row pays for its own agent only, in memory too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.loads import Backends, application, bare_cache, bare_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Histogram
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SPANS_A_REQUEST = {"hello": 1, "work": 6}


@dataclass(frozen=True)
class Subject:
    """An application under an agent that has been started.

    Attributes:
        app: The ASGI application to drive.
        finish: Sends what the agent still holds and stops it.
        scrape_path: Where Prometheus scrapes this agent; None when it does not.
    """

    app: ASGIApp
    finish: Callable[[], None] = lambda: None
    scrape_path: str | None = None


def none(load: str, endpoint: str) -> Subject:
    """Build the application with no agent; the endpoint is not used."""
    del endpoint
    return Subject(application(load, Backends(bare_connection(), bare_cache().get)))


def apmkit(load: str, endpoint: str) -> Subject:
    """Build the application under apmkit with its default trace budget."""
    return _apmkit(load, endpoint)


def apmkit_all(load: str, endpoint: str) -> Subject:
    """Build the application under apmkit with every trace kept."""
    return _apmkit(load, endpoint, trace_budget=float("inf"))


def apmkit_agent(endpoint: str, **settings: Any) -> Any:
    """Make apmkit's agent with both outlets, not started yet."""
    import apmkit as package

    return package.Agent(
        service_name="bench", otlp_endpoint=endpoint, exporters=["prometheus", "otlp"], **settings
    )


def _apmkit(load: str, endpoint: str, **settings: Any) -> Subject:
    agent = apmkit_agent(endpoint, **settings)
    cache = agent.wrap(bare_cache(), name="menu")
    app = agent.asgi(application(load, Backends(agent.wrap(bare_connection()), cache.get)))
    agent.start()

    def finish() -> None:
        agent.flush(timeout=5)
        agent.stop(timeout=2)

    return Subject(app, finish, scrape_path="/metrics")


class _TimedCursor:
    def __init__(self, cursor: Any, seconds: Histogram) -> None:
        self._cursor = cursor
        self._seconds = seconds

    def execute(self, statement: str, parameters: tuple[object, ...]) -> Any:
        start = perf_counter()
        try:
            return self._cursor.execute(statement, parameters)
        finally:
            operation = statement.partition(" ")[0]
            self._seconds.labels(operation).observe(perf_counter() - start)


class _TimedConnection:
    def __init__(self, connection: Any, seconds: Histogram) -> None:
        self._connection = connection
        self._seconds = seconds

    def cursor(self) -> _TimedCursor:
        return _TimedCursor(self._connection.cursor(), self._seconds)


def prometheus(load: str, endpoint: str) -> Subject:
    """Build the application with prometheus-client alone: metrics, no traces, no export."""
    del endpoint
    from prometheus_client import Counter, Histogram, make_asgi_app

    requests = Counter("requests", "Requests.", ["method", "route", "status"])
    seconds = Histogram("request_seconds", "Duration.", ["method", "route", "status"])
    statements = Histogram("sql_seconds", "Duration.", ["operation"])
    reads = Histogram("cache_seconds", "Duration.", ["cache", "hit"])
    cached = bare_cache().get
    metrics = make_asgi_app()

    def read(key: str) -> object:
        start = perf_counter()
        value = cached(key)
        hit = "false" if value is None else "true"
        reads.labels("menu", hit).observe(perf_counter() - start)
        return value

    inner = application(load, Backends(_TimedConnection(bare_connection(), statements), read))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/metrics":
            await metrics(scope, receive, send)
            return
        start = perf_counter()
        status = "500"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await inner(scope, receive, watched)
        finally:
            labels = scope["method"], scope["route"].path, status
            requests.labels(*labels).inc()
            seconds.labels(*labels).observe(perf_counter() - start)

    return Subject(app, scrape_path="/metrics")


def opentelemetry(load: str, endpoint: str) -> Subject:
    """Build the application under OpenTelemetry's SDK, set up as its documentation says.

    Counted: the ASGI middleware (send and receive spans off), the DB-API instrumentation that
    opentelemetry-instrumentation-sqlite3 is a name for, cache reads as a span and a histogram made
    by hand, batch and periodic export over HTTP with the SDK's default sizes and intervals.
    """
    # The stable conventions; "database" is what makes the DB-API instrumentation record
    # db.client.operation.duration by itself, which is cheaper than a second wrapper around it.
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http,database"
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.instrumentation.dbapi import instrument_connection
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import DropAggregation, View
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind

    resource = Resource.create({"service.name": "bench"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{endpoint}/v1/metrics"))
    # No other row counts returned rows, so this one does not have to either.
    unasked = View(
        instrument_name="db.client.response.returned_rows", aggregation=DropAggregation()
    )
    metrics = MeterProvider([reader], resource=resource, views=[unasked])

    tracer = traces.get_tracer("bench")
    duration = metrics.get_meter("bench").create_histogram(
        "cache.client.operation.duration", unit="s", description="Duration of cache operations."
    )
    cached = bare_cache().get
    common = {"cache.name": "menu", "cache.operation.name": "get"}
    outcomes = {hit: {**common, "cache.hit": hit} for hit in (False, True)}

    def read(key: str) -> object:
        start = perf_counter()
        with tracer.start_as_current_span(
            "get menu", kind=SpanKind.CLIENT, attributes=common
        ) as span:
            value = cached(key)
            span.set_attribute("cache.hit", value is not None)
        duration.record(perf_counter() - start, outcomes[value is not None])
        return value

    connection = instrument_connection(
        "opentelemetry.instrumentation.sqlite3",
        bare_connection(),
        "sqlite",
        {},
        tracer_provider=traces,
        meter_provider=metrics,
    )
    app = OpenTelemetryMiddleware(
        application(load, Backends(connection, read)),
        tracer_provider=traces,
        meter_provider=metrics,
        exclude_spans=["receive", "send"],
    )

    def finish() -> None:
        traces.shutdown()
        metrics.shutdown()

    return Subject(app, finish)


ROWS: dict[str, Callable[[str, str], Subject]] = {
    "none": none,
    "prometheus": prometheus,
    "apmkit": apmkit,
    "apmkit-all": apmkit_all,
    "opentelemetry": opentelemetry,
}
