"""OTLP over gRPC, which needs `apmkit[grpc]`: one unary call on bytes that are encoded already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apmkit.relay.export import Outcome, Refused, Retry
from apmkit_otlp.answer import (
    MAX_RESPONSE_BYTES,
    read_delivered,
    read_retry_delay,
    readable,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import grpc

    from apmkit.relay.export import Signal
    from apmkit_otlp.settings import Destination

METHODS: dict[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}

RETRYABLE_CODES = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    # The relay waits between attempts; gRPC must be ready when it comes back.
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.primary_user_agent", "apmkit"),
)


class GrpcSender:
    """Sends the requests of one signal to one address."""

    def __init__(self, signal: Signal, destination: Destination) -> None:
        """Import gRPC, connect nothing yet: a channel does not survive a fork.

        Raises:
            RuntimeError: if gRPC is not installed.
        """
        self._grpc = _load()
        self._method = METHODS[signal]
        self._destination = destination
        self._channel: grpc.Channel | None = None

    def send(self, request: bytes, timeout: float) -> Outcome:
        """Call Export with `request`; give up after `timeout` seconds."""
        if self._channel is None:
            self._channel = self._open()
        # Without serializers the call takes and gives bytes.
        export: Callable[..., bytes] = self._channel.unary_unary(self._method)
        try:
            response = export(
                request, timeout=timeout, metadata=tuple(self._destination.headers.items())
            )
        except self._grpc.RpcError as error:
            # What gRPC raises is the call as well.
            return _outcome(error)
        return read_delivered(response)

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _open(self) -> grpc.Channel:
        destination = self._destination
        host = f"[{destination.host}]" if ":" in destination.host else destination.host
        address = f"{host}:{destination.port}"
        kinds = self._grpc.Compression
        compression = kinds.Gzip if destination.gzip else kinds.NoCompression
        channel: grpc.Channel
        if destination.secure:
            credentials = self._grpc.ssl_channel_credentials(*destination.tls.contents())
            channel = self._grpc.secure_channel(address, credentials, _OPTIONS, compression)
        else:
            channel = self._grpc.insecure_channel(address, _OPTIONS, compression)
        return channel


def _load() -> ModuleType:
    try:
        import grpc
    except ImportError:
        raise RuntimeError(
            "OTLP over gRPC needs a package that is missing: pip install 'apmkit[grpc]'"
        ) from None
    return grpc


def _outcome(error: grpc.Call) -> Outcome:
    code: str = error.code().name
    text = readable((error.details() or "").encode())
    reason = f"gRPC {code}" + (f": {text}" if text else "")
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    after = read_retry_delay(details) if isinstance(details, bytes) else None
    # OTLP: a backend that is merely busy says so with a RetryInfo.
    if code in RETRYABLE_CODES or (code == "RESOURCE_EXHAUSTED" and after is not None):
        return Retry(reason, after)
    return Refused(reason)
