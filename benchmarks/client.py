"""A closed-loop load client: keep-alive connections that each wait for the answer to ask again."""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter
from typing import TYPE_CHECKING, cast

from benchmarks.loads import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECTIONS = 16
_WARM_UP = 1.0  # seconds


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], latencies: list[float]) -> None:
        self._requests = requests
        self._latencies = latencies
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"the server answered {head[:40]!r}")
        self._latencies.append(perf_counter() - self._asked)
        self._received = b""
        self._ask()

    def _ask(self) -> None:
        self._asked = perf_counter()
        self._transport.write(next(self._requests))


async def measure(port: int, load: str, seconds: float) -> dict[str, float]:
    """Load the server, first to warm it up.

    Returns:
        `rate` in requests a second, `p99` in milliseconds, `sent` in requests, warm-up included.
    """
    headers = "host: 127.0.0.1\r\nuser-agent: bench/1\r\naccept: */*\r\n\r\n"
    requests = (f"GET {path} HTTP/1.1\r\n{headers}".encode() for path in paths(load))
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    connections = [
        await loop.create_connection(lambda: _Connection(requests, latencies), "127.0.0.1", port)
        for _ in range(_CONNECTIONS)
    ]
    await asyncio.sleep(_WARM_UP)
    warm_up = len(latencies)
    latencies.clear()
    start = perf_counter()
    await asyncio.sleep(seconds)
    rate = len(latencies) / (perf_counter() - start)
    measured = sorted(latencies)
    for transport, _ in connections:
        transport.abort()
    p99 = measured[int(len(measured) * 0.99)]
    # The server answers what is in flight when the connections close, so it counts as sent.
    sent = warm_up + len(measured) + _CONNECTIONS
    return {"rate": rate, "p99": p99 * 1000, "sent": sent}


def main() -> None:
    """Load the port with the load and for the seconds named on the command line."""
    port, load, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(int(port), load, float(seconds)))))


if __name__ == "__main__":
    main()
