"""Prometheus: metrics in its text format and in OpenMetrics, for a server that scrapes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apmkit_prometheus.collector import SnapshotCollector
from apmkit_prometheus.endpoint import PrometheusEndpoint

if TYPE_CHECKING:
    from apmkit.relay.export import ExporterContext

__all__ = ["PrometheusEndpoint", "SnapshotCollector", "create"]


def create(context: ExporterContext) -> PrometheusEndpoint:
    """Return the endpoint that answers scrapes; it reads no environment variable."""
    return PrometheusEndpoint(context)
