"""What apmkit costs beside its CPU time: import, memory, and how long it holds the event loop.

Each figure is taken in a process of its own: `python -m benchmarks.footprint FIGURE ARGUMENT`
prints one line of JSON, {"value": ..., "worst": ...}.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import Message

_REPEATS = 10
_SERIES = 2_000
_SPANS = 1_000


class _Ticker:
    """Turns with the event loop and keeps the longest time it waited for its turn."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew from this moment."""
        self._last = perf_counter()
        self.longest = 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(0)
            now = perf_counter()
            self.longest = max(self.longest, now - self._last)
            self._last = now


def import_time(_: str) -> dict[str, float]:
    """Milliseconds that `import apmkit` takes, up to the Agent that everyone imports it for."""
    start = perf_counter()
    from apmkit import Agent  # noqa: F401 - the import is what is measured

    return {"value": (perf_counter() - start) * 1000}


def memory(row_and_endpoint: str) -> dict[str, float]:
    """Resident MiB of the `work` application under a row, after 1,000 requests."""
    import psutil

    from benchmarks.agents import ROWS
    from benchmarks.cpu import drive
    from benchmarks.loads import paths

    row, _, endpoint = row_and_endpoint.partition("@")
    subject = ROWS[row]("work", endpoint)
    asyncio.run(drive(subject.app, paths("work"), 1_000))
    resident = psutil.Process().memory_info().rss
    subject.finish()
    return {"value": resident / 2**20}


def scrape(endpoint: str) -> dict[str, float]:
    """Longest milliseconds a scrape of 2,000 series holds the event loop."""
    from benchmarks.agents import apmkit_agent
    from benchmarks.loads import receiver, scope_of

    agent = apmkit_agent(endpoint)
    app = agent.asgi(_nothing)
    agent.start()
    for number in range(_SERIES):
        agent.record("bench.value", 0.01, {"series": str(number)})
    agent.flush(timeout=5)

    async def once(ticker: _Ticker) -> Callable[[], None]:
        body = bytearray()

        async def keep(message: Message) -> None:
            body.extend(message.get("body", b""))

        ticker.forget()
        await app(scope_of("/metrics"), receiver(), keep)

        def check() -> None:
            seen = len(set(re.findall(rb'series="(\d+)"', body)))
            if seen < _SERIES - 1:  # one of them may be the overflow series
                sys.exit(f"the scrape shows {seen} series of {_SERIES}")

        return check

    return _holds(once, agent)


def trace(endpoint: str) -> dict[str, float]:
    """Longest milliseconds a kept trace of 1,000 spans holds the event loop at its root's end."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from benchmarks.agents import apmkit_agent
    from benchmarks.loads import receiver, scope_of, swallow
    from benchmarks.processes import Collector

    collector = Collector(endpoint)
    before = collector.spans()
    agent = apmkit_agent(endpoint, trace_budget=float("inf"))
    tickers: list[_Ticker] = []

    async def many(request: Request) -> PlainTextResponse:
        del request
        for number in range(_SPANS - 1):
            with agent.span("step", number=number):
                pass
            await asyncio.sleep(0)
        tickers[-1].forget()  # from here on the root ends; what came before is the application's
        return PlainTextResponse("done")

    app = agent.asgi(Starlette(routes=[Route("/many", many)]))
    agent.start()

    async def once(ticker: _Ticker) -> Callable[[], None]:
        tickers.append(ticker)
        await app(scope_of("/many"), receiver(), swallow())
        return lambda: None  # what arrived is counted at the end

    said = _holds(once, agent)
    arrived = collector.spans() - before
    if arrived != _REPEATS * _SPANS:  # a trace that was dropped costs nothing and proves nothing
        sys.exit(f"{arrived} spans arrived of {_REPEATS * _SPANS}")
    return said


def _holds(
    once: Callable[[_Ticker], Awaitable[Callable[[], None]]], agent: Any
) -> dict[str, float]:
    async def repeat() -> list[float]:
        holds = []
        for _ in range(_REPEATS):
            ticker = _Ticker()
            ticking = asyncio.create_task(ticker.run())
            await asyncio.sleep(0)
            check = await once(ticker)
            await asyncio.sleep(0.2)  # work that was put off, in slices, counts as well
            ticking.cancel()
            holds.append(ticker.longest * 1000)
            check()  # reading a page of megabytes holds the loop too, and is not the agent's
        return holds

    holds = asyncio.run(repeat())
    agent.flush(timeout=5)
    agent.stop(timeout=2)
    return {"value": statistics.median(holds), "worst": max(holds)}


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive, send


_FIGURES: dict[str, Callable[[str], dict[str, float]]] = {
    "import": import_time,
    "memory": memory,
    "scrape": scrape,
    "trace": trace,
}


def main() -> None:
    """Take the figure named on the command line."""
    figure, argument = sys.argv[1:]
    print(json.dumps(_FIGURES[figure](argument)))


if __name__ == "__main__":
    main()
