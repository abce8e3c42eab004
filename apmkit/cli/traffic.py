"""The demo's customers: bounded HTTP traffic from a process of its own.

The process prints one line a request, which `drive` reads: route, status and duration.
"""

from __future__ import annotations

import http.client
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 8
NO_ROUTE = "(no route)"

# route, method, share of the requests
_MIX = (
    ("/products/{product_id}", "GET", 62),
    ("/products", "GET", 15),
    ("/orders/{product_id}", "POST", 18),
    ("/products/{product_id}/delivery", "GET", 2),
    (NO_ROUTE, "GET", 3),
)
_PRODUCTS_ASKED_FOR = 210  # more than there are, so that some answers are 404
_SEED = 7
_SERVER_ERROR = 500


class Answer(NamedTuple):
    """One request as a customer saw it; `seconds` is exact."""

    method: str
    route: str
    status: int
    seconds: float


def drive(port: int, requests: int) -> Iterator[Answer]:
    """Send `requests` requests to a server on this machine, eight at a time; yield the answers.

    Raises:
        RuntimeError: if the process that sends them fails.
    """
    command = [sys.executable, "-m", "apmkit.cli.traffic", str(port), str(requests)]
    # In a session of its own, so that Ctrl-C reaches it through us alone.
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            for line in process.stdout or ():
                method, route, status, seconds = line.rstrip("\n").split("\t")
                yield Answer(method, route, int(status), float(seconds))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(f"the traffic ended with exit code {process.returncode}")


def plan(requests: int) -> list[tuple[str, str, str]]:
    """Return method, route and path of each request, the same ones every time."""
    random_numbers = random.Random(_SEED)  # noqa: S311 - no secret
    weights = [share for _, _, share in _MIX]
    planned = []
    for route, method, _ in random_numbers.choices(_MIX, weights, k=requests):
        # Some products are in demand, which gives the cache something to do.
        product = 1 + int(_PRODUCTS_ASKED_FOR * random_numbers.random() ** 2)
        path = "/favicon.ico" if route == NO_ROUTE else route.format(product_id=product)
        planned.append((method, route, path))
    return planned


def send(port: int, requests: int) -> None:
    """Send the planned requests and print a line for each."""
    planned = plan(requests)
    shares = [planned[number::CONNECTIONS] for number in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for future in [pool.submit(_customer, port, share) for share in shares]:
            future.result()


def _customer(port: int, share: list[tuple[str, str, str]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for method, route, path in share:
        start = time.perf_counter()
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        seconds = time.perf_counter() - start
        if response.status >= _SERVER_ERROR:
            connection.close()  # uvicorn ends a connection on which the application raised
        # One write, so that the lines of eight threads do not mix.
        sys.stdout.write(f"{method}\t{route}\t{response.status}\t{seconds:.6f}\n")
        sys.stdout.flush()
    connection.close()


if __name__ == "__main__":
    send(int(sys.argv[1]), int(sys.argv[2]))
