"""What an exporter is. A third party adds one by an entry point in the group "apmkit.exporter"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from apmkit.relay.decode import (
    DecodedEvent,
    DecodedLink,
    DecodedSpan,
    Value,
    decode_traces,
    read_fields,
)
from apmkit.relay.snapshot import Exemplar, MetricData, Point, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

__all__ = [
    "DecodedEvent",
    "DecodedLink",
    "DecodedSpan",
    "Delivered",
    "Endpoint",
    "Exemplar",
    "Exporter",
    "ExporterContext",
    "MetricData",
    "Outcome",
    "Point",
    "Refused",
    "Retry",
    "Signal",
    "Snapshot",
    "Value",
    "decode_traces",
    "read_fields",
]

Signal = Literal["traces", "metrics"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The backend has the request; of its spans or points it `rejected` some for good."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The backend cannot take the request now; try again, not before `after` seconds if given."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The backend will never take this request (a client error, say): do not try again."""

    reason: str


Outcome = Delivered | Retry | Refused


class Exporter(Protocol):
    """Sends encoded OTLP requests to a backend.

    `signals` names what it takes. `export` is called from one thread at a time, off the request
    path, and may block for up to `timeout` seconds; whatever it raises counts as `Retry`.
    """

    name: str
    signals: frozenset[Signal]

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
        """Send `request`, an encoded OTLP Export…ServiceRequest.

        Args:
            signal: what the request holds.
            request: uncompressed protobuf bytes.
            timeout: seconds after which to give up.

        Returns:
            What became of it.
        """
        ...

    def close(self) -> None:
        """Release connections. An agent that is started again exports again."""
        ...


class Endpoint(Protocol):
    """An exporter that is asked instead: it answers HTTP requests from what the agent has now."""

    name: str

    async def asgi(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one HTTP request."""
        ...

    def close(self) -> None:
        """Release what the endpoint holds."""
        ...


@dataclass(frozen=True, slots=True)
class ExporterContext:
    """What the entry point `create(context)` of an exporter is given.

    Attributes:
        resource: the OpenTelemetry resource attributes (`service.name`, …).
        endpoint: the `otlp_endpoint` setting, or None where the exporter's own variables decide.
        collect: returns a fresh reading of all metrics; the argument, if given, is called every
            few series so that a thread can give way to the event loop.
        warn: logs a sentence for people, at most once a minute.
    """

    resource: Mapping[str, Any]
    endpoint: str | None
    collect: Callable[..., Snapshot]
    warn: Callable[[str], None]
