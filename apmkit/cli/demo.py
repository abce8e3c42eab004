"""`apmkit demo`: a shop under real traffic, and what the agent saw of it."""

from __future__ import annotations

import socket
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from apmkit.cli import cost, report, shop
from apmkit.cli.slowest import SlowestTrace
from apmkit.cli.traffic import CONNECTIONS, Answer, drive
from apmkit.config import Settings
from apmkit.relay import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

_START_TIMEOUT = 10.0  # seconds
_LOOK_AGAIN = 0.01  # seconds
_UNBOUNDED_WIDTH = 120  # columns, where there is no terminal to ask


def run(*, requests: int, keep: bool, console: Console | None = None) -> int:
    """Run the demo.

    Args:
        requests: how many to send.
        keep: whether the shop runs on until Ctrl-C.
        console: where to print; by default standard output.

    Returns:
        0 if the agent saw every request that was sent, else 1.

    Raises:
        SettingsError: if a variable or `apmkit.toml` holds what a setting cannot be.
    """
    console = console or _console()
    with tempfile.TemporaryDirectory(prefix="apmkit-demo-") as directory:
        path = Path(directory, "shop.db")
        slowest = SlowestTrace()
        # What the settings ask for is used as well: otlp, as soon as an endpoint is known.
        names = dict.fromkeys(("prometheus", *Settings.load().exporters))
        app, agent = shop.build(path, exporters=[*names, slowest])
        with _served(app) as port:
            console.print(f"The shop listens on http://127.0.0.1:{port}.")
            answers = _drive(console, port, requests)
            agent.flush()
            reading, accounts = snapshot.take(agent.metrics, 0), agent.stats()["exporters"]
            same = report.print_routes(console, reading, answers)
            report.print_calls(console, reading)
            report.print_trace(console, slowest.spans)
            report.print_cost(console, cost.measure(Path(directory, "cost.db")))
            report.print_accounts(console, accounts)
            _print_where(console, port, keep=keep)
            if keep:
                _wait_for_interrupt()
    return 0 if same else 1


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED_WIDTH
    return console


@contextmanager
def _served(app: FastAPI) -> Iterator[int]:
    """Serve `app` with uvicorn on a free port of this machine, which is yielded."""
    # asyncio sends small answers at once only where the socket says that it is TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    # A declined payment is part of the show: its traceback belongs in the trace, not on the screen.
    config = uvicorn.Config(app, log_config=None, log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="shop", daemon=True
    )
    thread.start()
    for _ in range(int(_START_TIMEOUT / _LOOK_AGAIN)):
        if server.started or not thread.is_alive():
            break
        thread.join(_LOOK_AGAIN)
    if not server.started:
        raise RuntimeError(f"uvicorn did not start within {_START_TIMEOUT:.0f} s")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _drive(console: Console, port: int, requests: int) -> list[Answer]:
    columns = (
        TextColumn(f"{CONNECTIONS} customers"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    answers = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=requests)
        for answer in drive(port, requests):
            answers.append(answer)
            progress.advance(task)
    console.print()
    return answers


def _print_where(console: Console, port: int, *, keep: bool) -> None:
    url = f"http://127.0.0.1:{port}/metrics"
    if keep:
        console.print(f"The shop stays up until Ctrl-C. Metrics, for Prometheus and curl: {url}")
    else:
        console.print(f"Metrics were at {url}; with --keep the shop stays up to look at them.")


def _wait_for_interrupt() -> None:
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
