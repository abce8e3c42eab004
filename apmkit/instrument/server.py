"""What all wrapped applications of an agent share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.util.http import get_excluded_urls

from apmkit.instrument.capture import HeaderCapture
from apmkit.instrument.http_metrics import HttpMetrics
from apmkit.record.propagation import extract_configured, extract_w3c, uses_w3c_only

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context.context import Context
    from opentelemetry.trace import SpanContext

    from apmkit.instrument.asgi_types import Application, Scope
    from apmkit.record.metrics import Metrics
    from apmkit.record.shared import Shared
    from apmkit.record.tracer import TracerProvider


class ServerInstrumentation:
    """What all wrapped applications of an agent share.

    Args:
        provider: starts and takes the spans.
        metrics: holds the HTTP metrics.
        endpoints: the agent's own paths and who answers them.
        trust_upstream: continue the traces of callers; otherwise start new ones that link to them.
        start: called when the application starts, and by the first request.
        stop: called when the application has stopped; may take its time.

    Attributes:
        running: whether the agent's threads run; set by whoever starts and stops them.
    """

    def __init__(
        self,
        provider: TracerProvider,
        metrics: Metrics,
        endpoints: Mapping[str, Application],
        *,
        trust_upstream: bool,
        start: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self.provider = provider
        self.faults = provider.faults
        self.metrics = HttpMetrics(provider, metrics)
        self.capture = HeaderCapture()
        self.peers: dict[Any, Shared] = {}
        self.endpoints = dict(endpoints)
        self.trust_upstream = trust_upstream
        self.start = start
        self.stop = stop
        self.running = False
        self._excluded = get_excluded_urls("ASGI")
        self.excludes = bool(self._excluded._excluded_urls)  # noqa: SLF001 - asked once, not a request
        self.reads_all_headers = not uses_w3c_only()
        self._extract = extract_configured if self.reads_all_headers else extract_w3c

    def excluded(self, scope: Scope) -> bool:
        """Tell whether `OTEL_PYTHON_EXCLUDED_URLS` (or `…_ASGI_…`) names this request's URL."""
        headers = scope["headers"] = list(scope["headers"])  # may be readable only once
        host = next((v.decode("latin-1") for k, v in headers if k == b"host"), "")
        url = f"{scope.get('scheme', 'http')}://{host}{scope.get('path', '')}"
        return self._excluded.url_disabled(url)

    def remote(self, headers: Any) -> tuple[SpanContext | None, SpanContext | None, Context | None]:  # noqa: ANN401
        """Return the parent to continue, the caller to link to, and the baggage to carry."""
        parent, context = self._extract(headers, self.faults.malformed)
        if parent is not None and not self.trust_upstream:
            return None, parent, None
        return parent, None, context
