"""One HTTP request and its response, from the scope to the last body chunk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.http import detect_synthetic_user_agent, sanitize_method

from apmkit.instrument.capture import decoded
from apmkit.instrument.routes import route_template
from apmkit.record import clock
from apmkit.record.errors import qualified_name
from apmkit.record.propagation import TRACE_HEADERS
from apmkit.record.shared import Shared
from apmkit.record.tracer import SCOPE

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from opentelemetry.context import Context

    from apmkit.instrument.asgi_types import Message, Scope, Send
    from apmkit.instrument.capture import Headers
    from apmkit.instrument.http_metrics import Key, RequestSeries
    from apmkit.instrument.server import ServerInstrumentation
    from apmkit.record.span import Span

_SERVER = SpanKind.SERVER
_REPEATABLE = (list, tuple)
_SERVER_ERROR = 500
_BACKGROUND = 10_000_000
"""Nanoseconds of work after the response that make it a background task."""

_FILE_BODIES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
"""Messages of ASGI extensions by which the server sends a file as the body."""

_MAX_PEERS = 1_024

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)


class Exchange:
    """Records one request: starts its span, watches the response go by, ends it.

    The span is described from the scope only if its trace is kept.
    """

    # Most of these never change: as defaults of the class they cost a request nothing.
    background: Span | None = None
    baggage: Context | None = None
    body_size = 0
    duration = 0
    ended = 0
    error: BaseException | None = None
    event_stream = False
    first_byte = 0
    key: Key | None = None
    outcome: str | None = None
    request_size: bytes | None = None
    response_headers: Headers = ()
    sent = 0
    series: RequestSeries | None = None
    server_error = False
    status = 0
    streamed = False
    trailers = False

    def __init__(self, server: ServerInstrumentation, scope: Scope, send: Send) -> None:
        start = clock.now()
        self.server = server
        self.scope = scope
        self.inner = send
        method = scope.get("method", "GET")
        self.method: str = method if method in _METHODS else sanitize_method(str(method).strip())
        self.scheme: str = scope.get("scheme", "http")
        self.path: str = scope.get("path", "")
        parent = link = None
        traced = False
        headers = scope["headers"]
        if type(headers) not in _REPEATABLE:
            headers = scope["headers"] = list(headers)
        for name, value in headers:
            if name == b"content-length":
                self.request_size = value
            elif name in TRACE_HEADERS:
                traced = True
        if traced or server.reads_all_headers:
            parent, link, self.baggage = server.remote(headers)
        self.span = server.provider.start_root(self.method, _SERVER, start, parent, SCOPE, self)
        if link is not None:
            self.span.add_link(link)

    def send(self, message: Message) -> Awaitable[None]:
        """Look at a message of the response and pass it on unchanged."""
        try:
            kind = message["type"]
            if kind == "http.response.body":
                self.body_size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    if not self.trailers:
                        return self._send_last(message)
                elif not self.streamed:
                    self._streams()
            elif kind == "http.response.start":
                self.status = message["status"]
                self.trailers = message.get("trailers", False)
                headers = message.get("headers", ())
                if type(headers) not in _REPEATABLE:
                    headers = message["headers"] = list(headers)
                self.response_headers = headers
                if self.status >= _SERVER_ERROR:
                    self.server_error = True
            elif self._is_last(kind, message):
                return self._send_last(message)
        except Exception as error:  # noqa: BLE001 - the server says what is wrong with a message
            self.server.faults.internal("asgi.send", error)
        return self.inner(message)

    def _is_last(self, kind: str, message: Message) -> bool:
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        if kind not in _FILE_BODIES or message.get("more_body", False):
            return False
        self.body_size = self._announced_size()
        return not self.trailers

    def _streams(self) -> None:
        self.streamed = True
        self.first_byte = clock.now()
        for name, value in self.response_headers:
            if name.lower() == b"content-type":
                self.event_stream = value.startswith(b"text/event-stream")

    def _announced_size(self) -> int:
        # The server reads the file itself; only the header tells how long it is.
        for name, value in self.response_headers:
            if name.lower() == b"content-length" and value.isdigit():
                return int(value)
        return 0

    async def _send_last(self, message: Message) -> None:
        await self.inner(message)
        now = clock.now()
        if self.server_error:
            # The exception that this answers may still be on its way out of the application.
            self.sent = now
        else:
            self.end(now)

    def raised(self, error: BaseException) -> None:
        """Note what the application raised, after its response or instead of it."""
        if self.ended:
            if isinstance(error, Exception):
                self.follow().fail(error)
            return
        if isinstance(error, asyncio.CancelledError):
            if not self.sent:
                self.outcome = "cancelled"
        else:
            self.error = error

    def returned(self) -> None:
        """Finish when the application is done: the background work, or an incomplete response."""
        try:
            now = clock.now()
            if not self.ended:
                if self.error is None and self.outcome is None and not self.sent:
                    self.outcome = "disconnected" if self.status else "no response"
                self.end(self.sent or now)
                self.error = None  # its traceback refers to this request
            elif self.background is not None or now - self.ended > _BACKGROUND:
                self.follow().end()
            # The span and the exchange refer to each other; nothing here is to wait for the
            # garbage collector.
            self.span.trace.follower = None
            self.span.describer = None
        except Exception as error:  # noqa: BLE001 - the response is out; nothing may follow
            self.server.faults.internal("asgi.returned", error)

    def end(self, now: int) -> None:
        """End the span and count the request."""
        if self.ended:
            return
        self.ended = now
        span = self.span
        try:
            span.end_time = now
            server = self.server
            status = self.status
            failed = self.error is not None or status >= _SERVER_ERROR
            error_type = None
            if failed:
                error_type = (
                    str(int(status))
                    if status >= _SERVER_ERROR
                    else qualified_name(type(self.error))
                )
            self.key = key = (
                route_template(self.scope),
                self.method,
                status,
                self.scheme,
                self.scope.get("http_version", ""),
                error_type,
            )
            metrics = server.metrics
            self.series = series = metrics.by_key.get(key) or metrics.new_series(key)
            # An event stream lasts until somebody leaves; how long a request takes is, for it,
            # the time until it starts.
            self.duration = duration = (self.first_byte if self.event_stream else now) - span.start
            series.observe(duration * 1e-9, self.body_size)
            if self.request_size is not None or self.streamed:
                self._observe_rare(key, now)
            if not span.trace.ended:  # an application may have ended its request's span itself
                server.provider.end_root(span, error=failed, slow=duration > series.slow_after)
            span.trace.follower = self
        except Exception as error:  # noqa: BLE001 - the response is out; nothing may follow
            self.server.provider.open.pop(span, None)
            self.server.faults.internal("asgi.end", error)

    def _observe_rare(self, key: Key, now: int) -> None:
        metrics = self.server.metrics
        if self.request_size is not None:
            try:
                metrics.observe_request_size(key, int(self.request_size))
            except ValueError:
                self.server.faults.malformed("content-length")
        if self.streamed:
            labels = metrics.labels(key)
            metrics.first_byte.observe((self.first_byte - self.span.start) * 1e-9, labels)
            if self.event_stream:
                metrics.stream.observe((now - self.span.start) * 1e-9, labels)

    def follow(self) -> Span:
        """Return the span of what goes on after the response: a trace of its own, linked."""
        if self.background is None:
            provider = self.server.provider
            name = f"{self._name()} background"
            span = provider.start_root(name, SpanKind.INTERNAL, self.ended)
            span.trace.kept = self.span.trace.kept
            span.add_link(self.span.get_span_context())
            self.background = span
        return self.background

    def _name(self) -> str:
        if self.series is not None:
            return self.series.name
        method = "HTTP" if self.method == "_OTHER" else self.method
        route = route_template(self.scope)
        return method if route is None else f"{method} {route}"

    def describe(self, span: Span) -> None:
        """Name the span and give it the attributes of the semantic conventions."""
        series = self.series
        if series is not None and self.ended:
            time = self.ended + clock.wall_offset()
            value = self.duration * 1e-9
            series.duration.attach_exemplar((value, time, span.trace.trace_id, span.span_id))
        own = span.attributes
        # A name or an attribute that the application has set itself wins.
        if series is None or span.name != self.method or (own and series.attributes.keys() & own):
            if span.name == self.method:
                span.name = self._name()
            span.attributes = {
                **self._shared_attributes(),
                **self._attributes(),
                **self._peer().attributes,
            }
        else:
            span.shared = series, self._peer()
            span.attributes = self._attributes()
        if own:
            span.attributes.update(own)
        capture = self.server.capture
        if capture.active:
            capture.request(span, self.scope["headers"])
            capture.response(span, self.response_headers)
        if self.error is not None or self.status >= _SERVER_ERROR:
            ended, span.end_time = span.end_time, 0
            if self.error is not None:
                span.fail(self.error)
                if span.events:  # it may have been raised after the last chunk
                    last = span.events[-1]
                    span.events[-1] = last._replace(time=min(last.time, ended))
            else:
                span.set_status(StatusCode.ERROR)
            span.end_time = ended

    def _shared_attributes(self) -> dict[str, Any]:
        if self.series is not None:
            return self.series.attributes
        # Still open: what is known so far.
        version = self.scope.get("http_version", "")
        key = (route_template(self.scope), self.method, self.status, self.scheme, version, None)
        return self.server.metrics.labels(key)

    def _attributes(self) -> dict[str, Any]:
        scope = self.scope
        found: dict[str, Any] = {"url.path": self.path} if self.path else {}
        if scope.get("method", self.method) != self.method:
            found["http.request.method_original"] = scope["method"]
        if scope.get("query_string"):
            found["url.query"] = decoded(scope["query_string"])
        if self.status:
            found["http.response.body.size"] = self.body_size
        if self.streamed:  # for any other response it is the duration
            found["apmkit.http.time_to_first_byte"] = (self.first_byte - self.span.start) * 1e-9
        if self.outcome is not None:
            found["apmkit.http.outcome"] = self.outcome
        return found

    def _peer(self) -> Shared:
        """Return what all requests of a client on one connection have in common."""
        scope = self.scope
        server, client, agent = scope.get("server"), scope.get("client"), b""
        for name, value in scope["headers"]:
            if name == b"user-agent":
                agent = value
                break
        peers = self.server.peers
        try:
            return peers[server, client, agent]
        except (KeyError, TypeError):  # a server may give lists, which are no keys
            peer = Shared("", SpanKind.SERVER, _peer_attributes(server, client, agent))
        if len(peers) >= _MAX_PEERS:
            peers.clear()
        peers[server and tuple(server), client and tuple(client), agent] = peer
        return peer


def _peer_attributes(server: Any, client: Any, agent: bytes) -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = {}
    if server:
        found["server.address"] = server[0]
        if server[1] is not None:
            found["server.port"] = server[1]
    if client:
        found["client.address"], found["client.port"] = client[0], client[1]
    if agent:
        found["user_agent.original"] = decoded(agent)
        synthetic = detect_synthetic_user_agent(found["user_agent.original"])
        if synthetic:
            found["user_agent.synthetic.type"] = synthetic
    return found
