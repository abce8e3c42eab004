"""OTLP protobuf for metrics: a snapshot becomes one ExportMetricsServiceRequest.

Field numbers are those of opentelemetry-proto, `metrics.proto`.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any

from apmkit.relay.protobuf import field, key_value, text_field
from apmkit.relay.wire import resource_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from apmkit.relay.snapshot import Exemplar, MetricData, Point, Snapshot

_SCOPE_NAME = "apmkit"
_CUMULATIVE = b"\x10\x02"
_MONOTONIC = b"\x18\x01"
_SERIES_A_TURN = 64

# Of a number's data point; of a histogram's; of an exemplar.
_NUMBER_ATTRIBUTE, _NUMBER_EXEMPLAR = b"\x3a", b"\x2a"
_HISTOGRAM_ATTRIBUTE, _HISTOGRAM_EXEMPLAR = b"\x4a", b"\x42"
_START_TIME, _TIME, _EXEMPLAR_TIME = b"\x11", b"\x19", b"\x11"


def encode_metrics(
    snapshot: Snapshot,
    resource_attributes: Mapping[str, Any],
    pause: Callable[[], None] | None = None,
) -> bytes:
    """Encode a reading of all metrics; every sum is cumulative since the reading's start.

    Args:
        snapshot: the reading.
        resource_attributes: of the service (`service.name`, …).
        pause: called every few series, so that other threads get their turn.

    Returns:
        An ExportMetricsServiceRequest with one resource and one scope.
    """
    scope = field(b"\x0a", text_field(b"\x0a", _SCOPE_NAME))
    metrics = [_metric(metric, snapshot, pause) for metric in snapshot.metrics]
    scope_metrics = field(b"\x12", scope + b"".join(metrics))
    return field(b"\x0a", resource_prefix(resource_attributes) + scope_metrics)


def _metric(metric: MetricData, snapshot: Snapshot, pause: Callable[[], None] | None) -> bytes:
    start = _START_TIME + _fixed64(snapshot.start_unix_nano)
    times = start + _TIME + _fixed64(snapshot.time_unix_nano)
    points = []
    for number, point in enumerate(metric.points, start=1):
        if pause is not None and not number % _SERIES_A_TURN:
            pause()
        encoded = _histogram if metric.kind == "histogram" else _number
        points.append(field(b"\x0a", times + encoded(point, metric)))
    data = b"".join(points)
    if metric.kind == "histogram":
        kind = field(b"\x4a", data + _CUMULATIVE)
    elif metric.kind == "counter":
        kind = field(b"\x3a", data + _CUMULATIVE + _MONOTONIC)
    else:
        kind = field(b"\x2a", data)
    texts = text_field(b"\x0a", metric.name)
    texts += text_field(b"\x12", metric.description) + text_field(b"\x1a", metric.unit)
    return field(b"\x12", texts + kind)


def _number(point: Point, metric: MetricData) -> bytes:  # noqa: ARG001 - called as _histogram is
    parts = [key_value(_NUMBER_ATTRIBUTE, key, value) for key, value in point.attributes]
    parts.append(_as_double_or_int(b"\x21", b"\x31", point.value))
    parts += _exemplars(point, _NUMBER_EXEMPLAR)
    return b"".join(parts)


def _histogram(point: Point, metric: MetricData) -> bytes:
    parts = [key_value(_HISTOGRAM_ATTRIBUTE, key, value) for key, value in point.attributes]
    parts.append(b"\x21" + _fixed64(sum(point.counts)))
    parts.append(b"\x29" + pack("<d", point.sum))
    parts.append(field(b"\x32", pack(f"<{len(point.counts)}Q", *point.counts)))
    parts.append(field(b"\x3a", pack(f"<{len(metric.boundaries)}d", *metric.boundaries)))
    parts += _exemplars(point, _HISTOGRAM_EXEMPLAR)
    return b"".join(parts)


def _exemplars(point: Point, tag: bytes) -> Iterator[bytes]:
    for exemplar in point.exemplars.values():
        yield field(tag, _exemplar(exemplar))


def _exemplar(exemplar: Exemplar) -> bytes:
    return (
        _EXEMPLAR_TIME
        + _fixed64(exemplar.time_unix_nano)
        + _as_double_or_int(b"\x19", b"\x31", exemplar.value)
        + field(b"\x22", bytes.fromhex(exemplar.span_id))
        + field(b"\x2a", bytes.fromhex(exemplar.trace_id))
    )


def _as_double_or_int(double: bytes, integer: bytes, value: float) -> bytes:
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return integer + _fixed64(value & 0xFFFF_FFFF_FFFF_FFFF)
    return double + pack("<d", value)


def _fixed64(number: int) -> bytes:
    return number.to_bytes(8, "little")
