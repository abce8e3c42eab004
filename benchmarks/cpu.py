"""One row's CPU time a request, measured in this process; prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from benchmarks.agents import ROWS, Subject
from benchmarks.loads import paths, receiver, scope_of, swallow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

_WARM_UP = 1.0  # seconds: caches fill, and apmkit's sampling settles on its budget
_BATCH = 32


async def drive(app: ASGIApp, requests: Iterator[str], number: int) -> None:
    """Send this many requests, one after the other, as uvicorn would call the application."""
    send = swallow()
    for _ in range(number):
        await app(scope_of(next(requests)), receiver(), send)


async def drive_for(app: ASGIApp, requests: Iterator[str], seconds: float) -> int:
    """Send requests for some seconds; returns how many."""
    sent = 0
    end = perf_counter() + seconds
    while perf_counter() < end:
        await drive(app, requests, _BATCH)
        sent += _BATCH
        await asyncio.sleep(0)  # what an agent scheduled on the loop gets its turn
    return sent


async def measure(subject: Subject, load: str, seconds: float) -> dict[str, float]:
    """Drive the load, one scrape and the final flush; count the CPU time of all threads.

    Returns:
        `cpu` in microseconds a request, `sent` in requests, warm-up included.
    """
    requests = paths(load)
    warm_up = await drive_for(subject.app, requests, _WARM_UP)
    start = process_time()
    sent = await drive_for(subject.app, requests, seconds)
    if subject.scrape_path:
        await subject.app(scope_of(subject.scrape_path), receiver(), swallow())
    subject.finish()
    return {"cpu": (process_time() - start) / sent * 1e6, "sent": warm_up + sent}


def main() -> None:
    """Measure the row and load named on the command line, for some seconds."""
    row, load, seconds, endpoint = sys.argv[1:]
    subject = ROWS[row](load, endpoint)
    print(json.dumps(asyncio.run(measure(subject, load, float(seconds)))))


if __name__ == "__main__":
    main()
