"""The metrics of HTTP servers: series bound once for each route, method and status."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from apmkit.record.metrics import HTTP_DURATION_BOUNDARIES, SIZE_BOUNDARIES
from apmkit.record.shared import Shared

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from apmkit.record.metrics import HistogramSeries, Metrics
    from apmkit.record.tracer import TracerProvider

_OBSERVATIONS_FOR_P99 = 200
_NEVER_SLOW = 1 << 62

# route, method, status, scheme, version, error type
Key = tuple["str | None", str, int, str, str, "str | None"]


class RequestSeries(Shared):
    """Requests that look alike: what their spans share, their series, when one counts as slow.

    `slow_after` is in nanoseconds: the upper boundary of the bucket that holds the 99th
    percentile, so that at most one request in a hundred lies above it.
    """

    __slots__ = ("_seen", "duration", "response_size", "slow_after")

    def __init__(
        self,
        key: Key,
        labels: dict[str, AttributeValue],
        duration: HistogramSeries,
        response_size: HistogramSeries,
    ) -> None:
        route, method = key[:2]
        method = "HTTP" if method == "_OTHER" else method
        super().__init__(method if route is None else f"{method} {route}", SpanKind.SERVER, labels)
        self.duration = duration
        self.response_size = response_size
        self.slow_after = _NEVER_SLOW
        self._seen = 0

    def observe(self, seconds: float, size: int) -> None:
        """Count one request: its duration, and its response body in bytes."""
        series = self.duration
        series.counts[bisect_left(series.boundaries, seconds)] += 1
        series.sum += seconds
        series = self.response_size
        series.counts[bisect_left(series.boundaries, size)] += 1
        series.sum += size
        self._seen += 1
        if not self._seen % _OBSERVATIONS_FOR_P99:
            boundary = self.duration.quantile_boundary(0.99)
            self.slow_after = _NEVER_SLOW if boundary is None else int(boundary * 1e9)


class HttpMetrics:
    """The instruments of HTTP and WebSocket servers, as the semantic conventions name them."""

    def __init__(self, provider: TracerProvider, metrics: Metrics) -> None:
        self._provider = provider
        self.by_key: dict[Key, RequestSeries] = {}
        self._duration = metrics.histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests.",
            HTTP_DURATION_BOUNDARIES,
        )
        self._response_size = metrics.histogram(
            "http.server.response.body.size",
            "By",
            "Size of HTTP server response bodies.",
            SIZE_BOUNDARIES,
        )
        self._request_size = metrics.histogram(
            "http.server.request.body.size",
            "By",
            "Size of HTTP server request bodies.",
            SIZE_BOUNDARIES,
        )
        self.first_byte = metrics.histogram(
            "apmkit.http.server.time_to_first_byte",
            "s",
            "Time until a streamed response starts.",
            HTTP_DURATION_BOUNDARIES,
        )
        self.stream = metrics.histogram(
            "apmkit.http.server.stream.duration",
            "s",
            "Lifetime of event streams and WebSocket connections.",
            HTTP_DURATION_BOUNDARIES,
        )
        self.messages = metrics.counter(
            "apmkit.websocket.messages", "{message}", "WebSocket messages, by direction."
        )
        self._active = metrics.gauge(
            "http.server.active_requests", "{request}", "Number of HTTP server requests in flight."
        )
        metrics.observe_with(self._count_active)

    def new_series(self, key: Key) -> RequestSeries:
        """Bind the series of requests of this kind, to be found in `by_key` from now on."""
        labels = self.labels(key)
        duration, size = self._duration.bind(labels), self._response_size.bind(labels)
        series = RequestSeries(key, labels, duration, size)
        # Once the metric overflows every new key gives the same series: keep none of them.
        if not self._duration.overflowing:
            self.by_key[key] = series
        return series

    def observe_request_size(self, key: Key, size: int) -> None:
        """Count a request that says how long its body is, in bytes."""
        self._request_size.observe(size, self.labels(key))

    def labels(self, key: Key) -> dict[str, AttributeValue]:
        """Return the labels of the metrics for requests of this kind."""
        route, method, status, scheme, version, error = key
        labels: dict[str, Any] = {"http.request.method": method, "url.scheme": scheme}
        if version:
            labels["network.protocol.version"] = version
        if route is not None:
            labels["http.route"] = route
        if status:
            labels["http.response.status_code"] = int(status)  # frameworks pass `HTTPStatus` on
        if error is not None:
            labels["error.type"] = error
        return labels

    def _count_active(self) -> None:
        # Open roots are known anyway, so requests in flight cost nothing until somebody asks.
        counts = dict.fromkeys(self._active.all_series(), 0)
        for span in list(self._provider.open):
            exchange: Any = span.describer
            if exchange is not None:
                labels = {"http.request.method": exchange.method, "url.scheme": exchange.scheme}
                series = self._active.bind(labels)
                counts[series] = counts.get(series, 0) + 1
        for series, number in counts.items():
            series.set(number)
