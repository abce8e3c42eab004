"""The exporter: each signal goes to the destination that its variables name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from apmkit_otlp.grpc import GrpcSender
from apmkit_otlp.http import HttpSender
from apmkit_otlp.settings import read_destination, takes_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apmkit.relay.export import Outcome, Signal

SIGNALS: tuple[Literal["traces"], Literal["metrics"]] = ("traces", "metrics")


class OtlpExporter:
    """Sends traces and metrics to OTLP backends."""

    name = "otlp"

    def __init__(
        self, endpoint: str | None, environ: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        """Read the variables of both signals; see `apmkit_otlp.create`."""
        self._senders: dict[Signal, HttpSender | GrpcSender] = {}
        self._timeouts: dict[Signal, float] = {}
        for signal in SIGNALS:
            if not takes_signal(signal, environ):
                continue
            destination = read_destination(signal, endpoint, environ, warn)
            self._timeouts[signal] = destination.timeout
            self._senders[signal] = (
                GrpcSender(signal, destination)
                if destination.protocol == "grpc"
                else HttpSender(destination)
            )
        self.signals: frozenset[Signal] = frozenset(self._senders)

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
        """Send `request` within `timeout` seconds, or what the variable allows if that is less."""
        return self._senders[signal].send(request, min(timeout, self._timeouts[signal]))

    def close(self) -> None:
        """Close the connections."""
        for sender in self._senders.values():
            sender.close()
