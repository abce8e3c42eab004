"""What all tests share: no test sees another one's agents, tracer provider or variables."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.util._once import Once

from apmkit import Agent
from apmkit.record.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apmkit.record.metrics import Metrics


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("APMKIT_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_tracer_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test set the global tracer provider, which OpenTelemetry allows once a process."""
    monkeypatch.setattr(trace_api, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace_api, "_TRACER_PROVIDER_SET_ONCE", Once())


@pytest.fixture(autouse=True)
def _agents_stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop agents that a test leaves running."""
    made: list[weakref.ref[Agent]] = []
    plain = Agent.__init__

    def noted(self: Agent, **arguments: Any) -> None:  # noqa: ANN401 - passes through
        plain(self, **arguments)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Agent, "__init__", noted)
    yield
    for reference in made:
        agent = reference()
        if agent is not None:
            agent.stop(0.5)


@pytest.fixture(autouse=True)
def _internal_errors_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test in which the agent fails.

    A test that injects an error and expects it hidden sets `reraise` of that `Faults` to False.
    """
    plain = Faults.__init__

    def reraising(self: Faults, metrics: Metrics) -> None:
        plain(self, metrics)
        self.reraise = True

    monkeypatch.setattr(Faults, "__init__", reraising)
