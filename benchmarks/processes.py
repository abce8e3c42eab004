"""The benchmark's child processes: how they are started, and what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parent.parent


class ChildError(Exception):
    """A child process failed; the message is the last line it wrote to standard error."""


def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of the benchmark to its end and return the JSON it prints.

    Raises:
        ChildError: It ended with an error.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=_ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildError(_last_line(done.stderr))
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a serving module; yields the JSON line it starts with, and ends it in its own order.

    Raises:
        ChildError: It ended before it served.
    """
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=_ROOT,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None  # a pipe was asked for
        first = process.stdout.readline()
        if not first:
            raise ChildError(_last_line(process.communicate()[1]))
        try:
            yield json.loads(first)
        finally:
            process.communicate()  # closes its standard input, which asks it to end


class Collector:
    """The running collector, as the rows and the report see it."""

    def __init__(self, endpoint: str) -> None:
        """Remember where it listens, such as http://127.0.0.1:4318."""
        self.endpoint = endpoint

    def spans(self) -> int:
        """Ask how many spans have arrived since it was started."""
        with urlopen(f"{self.endpoint}/count", timeout=10) as answer:  # noqa: S310 - loopback
            return int(json.load(answer)["spans"])


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run the collector."""
    with serving("collector") as said:
        yield Collector(f"http://127.0.0.1:{said['port']}")


def _environment() -> dict[str, str]:
    """Leave out what would change an agent's settings, or make every import compile anew."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "APMKIT_")) and name != "PYTHONDONTWRITEBYTECODE"
    }


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
