"""OTLP over HTTP and gRPC: to Jaeger, the OpenTelemetry Collector and every other OTLP backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from apmkit_otlp.exporter import OtlpExporter

if TYPE_CHECKING:
    from apmkit.relay.export import ExporterContext

__all__ = ["OtlpExporter", "create"]


def create(context: ExporterContext) -> OtlpExporter:
    """Return the exporter that the standard `OTEL_EXPORTER_OTLP_*` variables describe.

    The environment is read here and never again; nothing is connected yet.

    Args:
        context: its `endpoint`, a base URL such as `http://localhost:4318`, beats
            `OTEL_EXPORTER_OTLP_ENDPOINT`; a variable for one signal alone beats both.

    Raises:
        ValueError: if a variable or the endpoint is malformed.
        RuntimeError: if the protocol is gRPC and `apmkit[grpc]` is not installed.
    """
    return OtlpExporter(context.endpoint, os.environ, context.warn)
