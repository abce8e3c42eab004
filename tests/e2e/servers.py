"""Real server programs for the e2e tests: found, started on free ports, waited for, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

ROOT = Path(__file__).resolve().parents[2]

_STARTS_WITHIN = 30.0
_STOPS_WITHIN = 4.0
_POLL_INTERVAL = 0.05

ResultType = TypeVar("ResultType")


class Server(NamedTuple):
    """A running server program."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def require(program: str) -> str:
    """Return the path of a server program, from PATH or from the cache that CI builds into.

    A laptop that lacks the program skips the test; CI, where the variable CI is set, fails.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apmkit" / "bin"
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), str(cache)]))
    if found is not None:
        return found
    reason = f"{program} is neither on PATH nor in {cache}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def client() -> httpx.Client:
    """Return a client that asks no proxy of the environment for what is on this machine."""
    return httpx.Client(trust_env=False, timeout=10.0)


def eventually(
    check: Callable[[], ResultType | None], what: str, within: float = 20.0
) -> ResultType:
    """Ask until `check` returns something true, and return that; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {within:g} s; the last answer was {found!r}")
        time.sleep(_POLL_INTERVAL)


def openmetrics_families(page: str) -> Iterator[Metric]:
    """Parse a page in OpenMetrics strictly; raises ValueError where it is not."""
    families: Iterator[Metric] = text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
    return families


@contextlib.contextmanager
def running(
    command: Sequence[str], url: str, ready: str, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server program while the block runs; enter when `url` + `ready` answers 2xx.

    The program sees none of the variables that configure an agent but those in `env`.
    """
    own = {k: v for k, v in os.environ.items() if not k.startswith(("APMKIT_", "OTEL_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**own, **(env or {})}, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(url, process, log)
    try:
        _wait_until_ready(server, ready)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def uvicorn(app: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve `module:app`, which has an agent, with the Python that runs the tests."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", app, "--port", str(port)),
        *("--no-access-log", "--timeout-graceful-shutdown", "5"),
    ]
    with running(command, f"http://127.0.0.1:{port}", "/metrics", log, env) as server:
        yield server


def _wait_until_ready(server: Server, ready: str) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    with client() as http:
        while time.monotonic() < deadline and server.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if http.get(server.url + ready).is_success:
                    return
            time.sleep(_POLL_INTERVAL)
    said = server.log.read_text(errors="replace")[-4_000:]
    pytest.fail(f"{server.process.args!r} did not come up at {server.url}{ready}; it said:\n{said}")
