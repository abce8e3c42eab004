"""The real servers that the e2e tests share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx


class Jaeger(NamedTuple):
    """Where a running Jaeger answers."""

    query: str
    otlp_http: str
    otlp_grpc: str


_JAEGER_CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics:
      level: none
extensions:
  jaeger_storage:
    backends:
      memory:
        memory:
          max_traces: 10000
  jaeger_query:
    storage:
      traces: memory
    http:
      endpoint: 127.0.0.1:{query}
    grpc:
      endpoint: 127.0.0.1:{query_grpc}
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{http}
      grpc:
        endpoint: 127.0.0.1:{grpc}
exporters:
  jaeger_storage_exporter:
    trace_storage: memory
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(servers.ROOT / "tests" / "e2e"):
            item.add_marker("e2e")


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with servers.client() as client:
        yield client


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    program = servers.require("jaeger")
    folder = tmp_path_factory.mktemp("jaeger")
    ports = {name: servers.free_port() for name in ("query", "query_grpc", "http", "grpc")}
    config = folder / "jaeger.yaml"
    config.write_text(_JAEGER_CONFIG.format(**ports))
    url = f"http://127.0.0.1:{ports['query']}"
    command = [program, "--config", str(config)]
    with servers.running(command, url, "/api/services", folder / "log"):
        yield Jaeger(url, f"http://127.0.0.1:{ports['http']}", f"http://127.0.0.1:{ports['grpc']}")


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[servers.Server]:
    """An OTLP collector that answers."""
    port = servers.free_port()
    command = [sys.executable, "-m", "tests.e2e.collector", str(port)]
    url = f"http://127.0.0.1:{port}"
    with servers.running(command, url, "/exports", tmp_path / "collector.log") as server:
        yield server
