"""ASGI applications: one SERVER span a request, its metrics, and the agent's own paths."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.compatibility import guarantee_single_callable
from opentelemetry.context.context import Context
from opentelemetry.trace import SpanKind

from apmkit.instrument.exchange import Exchange
from apmkit.instrument.websocket import SocketExchange
from apmkit.record.context import SPAN_KEY, get_context, set_context

if TYPE_CHECKING:
    from apmkit.instrument.asgi_types import Application, Message, Receive, Scope, Send
    from apmkit.instrument.server import ServerInstrumentation

_MAX_LAYERS = 32


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
            try:
                if not self.server.running:
                    self.server.start()
            except Exception as error:  # noqa: BLE001 - the page is there without the threads
                self.server.faults.internal("asgi.begin", error)
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
