"""WebSocket connections: the handshake is the span, messages are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apmkit.instrument.exchange import Exchange
from apmkit.record import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from apmkit.instrument.asgi_types import Message, Receive, Scope, Send
    from apmkit.instrument.server import ServerInstrumentation

_SWITCHING_PROTOCOLS = 101
_FORBIDDEN = 403
_RECEIVED = {"network.io.direction": "receive"}
_SENT = {"network.io.direction": "transmit"}


class SocketExchange(Exchange):
    """Records the handshake of a connection as a request; counts its messages and its lifetime."""

    def __init__(self, server: ServerInstrumentation, scope: Scope, send: Send) -> None:
        super().__init__(server, scope, send)
        self._received = server.metrics.messages.bind(_RECEIVED)
        self._sent = server.metrics.messages.bind(_SENT)

    def receiving(self, receive: Receive) -> Receive:
        """Return `receive`, with messages counted."""
        received = self._received

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                received.value += 1
            return message

        return counted

    def send(self, message: Message) -> Awaitable[None]:
        """Look at a message to the client and pass it on unchanged."""
        try:
            kind = message["type"]
            if kind == "websocket.send":
                self._sent.value += 1
            elif kind == "websocket.accept":
                return self._finish_handshake(message, _SWITCHING_PROTOCOLS)
            elif kind == "websocket.close" and not self.ended:
                return self._finish_handshake(message, _FORBIDDEN)
            elif kind == "websocket.http.response.start":
                self.status = int(message["status"])
                self.response_headers = list(message.get("headers", ()))
            elif kind == "websocket.http.response.body" and not message.get("more_body", False):
                return self._finish_handshake(message, self.status)
        except Exception as error:  # noqa: BLE001 - the server says what is wrong with a message
            self.server.faults.internal("asgi.send", error)
        return self.inner(message)

    async def _finish_handshake(self, message: Message, status: int) -> None:
        await self.inner(message)
        self.status = status
        self.end(clock.now())
        # Spans made while the connection is open belong to the handshake's trace.
        self.span.trace.follower = None

    def returned(self) -> None:
        """Finish when the connection is over."""
        try:
            now = clock.now()
            if self.status == _SWITCHING_PROTOCOLS and self.key is not None:
                seconds = (now - self.span.start) * 1e-9
                self.server.metrics.stream.observe(seconds, self.server.metrics.labels(self.key))
            if not self.ended:
                self.outcome = self.outcome or (None if self.error else "no response")
                self.end(now)
                self.error = None  # its traceback refers to this connection
            elif self.background is not None:
                self.background.end()
            self.span.describer = None
        except Exception as error:  # noqa: BLE001 - nothing may follow a closed connection
            self.server.faults.internal("asgi.returned", error)
