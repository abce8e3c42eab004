"""The whole public API under the type checker; `test_public_api.py` runs it through mypy.

It is never imported: what is asserted here are types.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.applications import Starlette
from typing_extensions import assert_type

import apmkit
from apmkit import Agent, Middleware, SettingsError, instrument
from apmkit.instrument.calls import CacheCall, DatabaseCall
from apmkit.record.current import CurrentSpan
from apmkit.record.metrics import Counter, Gauge, Histogram
from apmkit.record.tracer import Tracer, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping


def made_in_one_line() -> None:
    app = FastAPI()
    assert_type(apmkit.instrument(app), Agent)
    assert_type(instrument(app, service_name="orders", trace_budget=10.0), Agent)
    assert_type(instrument(Starlette(), exporters=["prometheus", "otlp"]), Agent)


def made_by_hand(app: Callable[..., Awaitable[None]]) -> Agent:
    agent = Agent(exporters=[], service_name="orders")
    wrapped = agent.asgi(app)
    Middleware(wrapped, agent)
    starlette = Starlette()
    starlette.add_middleware(apmkit.Middleware, agent=agent)
    return agent


async def asgi_3(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """An application as the ASGI specification types it."""


def wraps_applications(agent: Agent) -> None:
    agent.asgi(asgi_3)
    agent.asgi(Starlette())
    agent.asgi(FastAPI())


def wraps_clients(agent: Agent) -> None:
    connection = sqlite3.connect(":memory:")
    assert_type(agent.wrap(connection), sqlite3.Connection)
    cache: dict[str, int] = {}
    assert_type(agent.wrap(cache, name="prices"), dict[str, int])


async def records_calls(agent: Agent) -> None:
    with agent.db_call("postgresql", statement="SELECT 1", namespace="shop") as query:
        assert_type(query, DatabaseCall)
    async with agent.db_call("mongodb", operation="find", collection="items"):
        pass
    with agent.cache_call("redis", "GET", key="a", tier="remote") as lookup:
        assert_type(lookup, CacheCall)
        assert_type(lookup.hit, "bool | None")
        lookup.hit = True
    async with agent.cache_call("redis", "SET"):
        pass


async def records_spans(agent: Agent) -> None:
    assert_type(agent.span("price basket", items=3), CurrentSpan)
    with agent.span("price basket") as span:
        span.set_attribute("basket.value", 42.5)
        span.add_event("priced")
    async with agent.span("price basket", urgent=True, tags=["a", "b"]):
        pass
    assert_type(agent.tracer, Tracer)
    assert_type(agent.tracer_provider, TracerProvider)


async def decorates(agent: Agent) -> None:
    @agent.traced
    def plain(number: int) -> str:
        return str(number)

    @agent.traced
    async def coroutine(number: int) -> str:
        return str(number)

    assert_type(plain(1), str)
    assert_type(await coroutine(1), str)
    plain("1")  # type: ignore[arg-type]  # the decorated function keeps its parameters


def records_metrics(agent: Agent) -> None:
    agent.record("basket.value", 42.5, {"currency": "EUR"})
    counter = agent.counter("orders", "{order}", "Orders taken.")
    assert_type(counter, Counter)
    counter.add(1, {"currency": "EUR"})
    gauge = agent.gauge("queue.length", unit="{job}")
    assert_type(gauge, Gauge)
    gauge.set(3)
    histogram = agent.histogram("basket.value", "EUR", boundaries=(1, 10, 100))
    assert_type(histogram, Histogram)
    histogram.observe(42.5)
    series = counter.bind({"currency": "EUR"})
    series.add()


def lives(agent: Agent) -> None:
    assert_type(agent.start(), None)
    assert_type(agent.flush(timeout=1.0), bool)
    assert_type(agent.stop(), None)
    assert_type(agent.stats(), dict[str, Any])


def is_told_what_is_wrong() -> str:
    try:
        Agent(trace_budget=-1)
    except SettingsError as error:
        return str(error)
    return ""


def is_refused(agent: Agent) -> None:
    Agent(["prometheus"])  # type: ignore[call-arg]  # exporters are given by name
    agent.cache_call("redis")  # type: ignore[call-arg]  # which operation?
    agent.counter("orders").add("1")  # type: ignore[arg-type]  # not a number
    agent.span("price basket", items=object())  # type: ignore[arg-type]  # not an attribute
