"""ASGI applications: one SERVER span a request, its metrics, and the agent's own paths."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.compatibility import guarantee_single_callable
from opentelemetry.context.context import Context
from opentelemetry.trace import SpanKind
from opentelemetry.util.http import get_excluded_urls

from apmkit.instrument.capture import HeaderCapture
from apmkit.instrument.exchange import Exchange
from apmkit.instrument.http_metrics import HttpMetrics
from apmkit.instrument.websocket import SocketExchange
from apmkit.record.context import SPAN_KEY, get_context, set_context
from apmkit.record.propagation import extract_configured, extract_w3c, uses_w3c_only

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from opentelemetry.trace import SpanContext

    from apmkit.record.metrics import Metrics
    from apmkit.record.shared import Shared
    from apmkit.record.tracer import TracerProvider

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]


_MAX_LAYERS = 32


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


class Instrumented:
    """An ASGI application with the agent around it.

    Args:
        app: an ASGI 3 or ASGI 2 application.
        server: what the agent's applications share.
    """

    def __init__(self, app: Application, server: ServerInstrumentation) -> None:
        self.app: Application = guarantee_single_callable(app)  # type: ignore[no-untyped-call]
        self.server = server
        self._recorded_elsewhere = recorded_elsewhere(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application once, recorded."""
        server = self.server
        if scope["type"] != "http" or scope["path"] in server.endpoints:
            await self._other(scope, receive, send)
            return
        before = get_context()
        exchange = self._begin(Exchange, scope, send, before)
        if exchange is None:
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, exchange.send)
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            set_context(before)
            exchange.returned()

    def _begin(
        self, kind: type[Exchange], scope: Scope, send: Send, before: Context
    ) -> Exchange | None:
        """Start the span of a request; None if it is not to be recorded."""
        server = self.server
        try:
            if not server.running:
                server.start()
            if server.excludes and server.excluded(scope):
                return None
            if self._recorded_elsewhere or (before and _in_server_span(before, scope)):
                return None
            exchange = kind(server, scope, send)
            around = exchange.baggage or before
            current = {SPAN_KEY: exchange.span}
            set_context(Context({**around, **current} if around else current))
        except Exception as error:  # noqa: BLE001 - the request goes on without a span
            server.faults.internal("asgi.begin", error)
            return None
        scope["apmkit.recorded"] = True
        # What FastAPI looks for before it makes a span of its own, wherever it is mounted.
        scope["fastapi.telemetry"] = None
        return exchange

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if not self.server.running:
                self.server.start()
            await self.server.endpoints.get(scope["path"], self.app)(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        before = get_context()
        exchange = self._begin(SocketExchange, scope, send, before)
        if not isinstance(exchange, SocketExchange):
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, exchange.receiving(receive), exchange.send)
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            set_context(before)
            exchange.returned()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = self.server

        async def watched(message: Message) -> None:
            try:
                if message["type"] == "lifespan.startup.complete":
                    server.start()
                elif message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                    # The last moment before the server ends the process, atexit or not.
                    await asyncio.to_thread(server.stop)
            except Exception as error:  # noqa: BLE001 - the application starts and stops all the same
                server.faults.internal("asgi.lifespan", error)
            await send(message)

        await self.app(scope, receive, watched)


def _in_server_span(context: Context, scope: Scope) -> bool:
    """Tell whether the request's span is there already, made by another middleware around us."""
    current: Any = context.get(SPAN_KEY)
    if "apmkit.recorded" in scope:
        return True
    return getattr(current, "kind", None) is SpanKind.SERVER and bool(current.is_recording())


def recorded_elsewhere(app: Any) -> bool:  # noqa: ANN401 - any ASGI application
    """Tell whether OpenTelemetry's own middleware is in `app`: its spans arrive by the provider."""
    for _ in range(_MAX_LAYERS):
        classes = [
            type(app),
            *(getattr(layer, "cls", None) for layer in getattr(app, "user_middleware", ())),
        ]
        if getattr(app, "_is_instrumented_by_opentelemetry", False) or any(
            getattr(kind, "__module__", "") == "opentelemetry.instrumentation.asgi"
            for kind in classes
        ):
            return True
        app = getattr(app, "app", None)
        if app is None:
            return False
    return False
