"""An exporter in memory, and an agent that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apmkit import Agent
from apmkit.relay.export import Delivered, Outcome, decode_traces
from tests.instrument.driving import EVERY_TRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apmkit.relay.export import DecodedSpan, Signal


class Collecting:
    """An exporter that keeps what it is given, or does what it is told."""

    def __init__(
        self, outcomes: Iterable[Outcome | Exception | Callable[[], Outcome]] = ()
    ) -> None:
        self.name = "collecting"
        self.signals: frozenset[Signal] = frozenset({"traces"})
        self.spans: list[DecodedSpan] = []
        self._outcomes = iter(outcomes)

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:  # noqa: ARG002 - the protocol's
        outcome = next(self._outcomes, Delivered())
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Delivered):
            self.spans += decode_traces(request)
        return outcome

    def close(self) -> None:
        """Nothing to close."""


def recording(
    *outcomes: Outcome | Exception | Callable[[], Outcome],
    **settings: Any,  # noqa: ANN401 - any application, any value
) -> tuple[Agent, Collecting]:
    """Return an agent that keeps every trace, and the exporter it has."""
    exporter = Collecting(outcomes)
    settings.setdefault("trace_budget", EVERY_TRACE)
    return Agent(exporters=[exporter], **settings), exporter


def account(agent: Agent) -> dict[str, Any]:
    found: dict[str, Any] = agent.stats()["exporters"]["collecting"]
    return found
