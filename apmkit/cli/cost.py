"""What the agent costs the demo's shop: CPU time a request, with the agent and without."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from apmkit.cli import shop
from apmkit.relay.export import Delivered

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

    from fastapi import FastAPI

    from apmkit.relay.export import Outcome, Signal

_ROUNDS = 15
_REQUESTS_A_ROUND = 100


class Cost(NamedTuple):
    """Microseconds of CPU time a request, medians of `rounds` rounds of `requests` requests.

    `added` is the median of the differences within a round.
    """

    without: float
    with_agent: float
    added: float
    rounds: int
    requests: int


def measure(database_path: Path) -> Cost:
    """Call the shop's product page directly, with the agent and without it in turn.

    There is no server or client in it, only the application. The time is that of the whole
    process, the agent's threads included. Traces are kept within the default budget, encoded and
    handed to an exporter, which drops them.

    Args:
        database_path: the shop's SQLite file.
    """
    bare, _ = shop.build(database_path, exporters=[], disabled=True)
    instrumented, agent = shop.build(database_path, exporters=["prometheus", _Nowhere()])
    try:
        return asyncio.run(_in_turn(bare, instrumented))
    finally:
        agent.stop()


class _Nowhere:
    """Takes traces and drops them, so that the agent does all its work."""

    name = "nowhere"
    signals: frozenset[Signal] = frozenset({"traces"})

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
        del signal, request, timeout
        return Delivered()

    def close(self) -> None:
        pass


async def _in_turn(bare: FastAPI, instrumented: FastAPI) -> Cost:
    await _round(bare)
    await _round(instrumented)
    without, with_agent = [], []
    for number in range(_ROUNDS):
        first, second = (bare, instrumented) if number % 2 else (instrumented, bare)
        times = {id(app): await _round(app) for app in (first, second)}
        without.append(times[id(bare)])
        with_agent.append(times[id(instrumented)])
    added = [more - less for more, less in zip(with_agent, without, strict=True)]
    return Cost(
        statistics.median(without),
        statistics.median(with_agent),
        statistics.median(added),
        _ROUNDS,
        _REQUESTS_A_ROUND,
    )


async def _round(app: FastAPI) -> float:
    start = time.process_time()
    for number in range(_REQUESTS_A_ROUND):
        await app(_scope(f"/products/{1 + number}"), _receive, _send)
    return (time.process_time() - start) / _REQUESTS_A_ROUND * 1e6


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"demo")],
    }


async def _receive() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: MutableMapping[str, Any]) -> None:
    pass
