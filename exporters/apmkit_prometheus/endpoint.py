"""The endpoint that Prometheus scrapes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from apmkit_prometheus.collector import SnapshotCollector
from apmkit_prometheus.negotiation import accepts_gzip, wants_openmetrics
from apmkit_prometheus.pages import Format, Pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from apmkit.relay.export import ExporterContext

    Message = MutableMapping[str, Any]
    Headers = list[tuple[bytes, bytes]]


class PrometheusEndpoint:
    """Answers GET and HEAD with the agent's metrics.

    Attributes:
        collector: the same metrics for a `prometheus_client` registry of the application's own.
    """

    name = "prometheus"

    def __init__(self, context: ExporterContext) -> None:
        """Read nothing yet."""
        self.collector = SnapshotCollector(context)
        self._pages = Pages(context)
        self._warn = context.warn

    async def asgi(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],  # noqa: ARG002 - a request's body says nothing
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one HTTP request in the format that its Accept header asks for."""
        if scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405, [(b"allow", b"GET, HEAD")], [b"use GET\n"])
            return
        wanted = Format(
            openmetrics=wants_openmetrics(_header(scope, b"accept")),
            gzip=accepts_gzip(_header(scope, b"accept-encoding")),
        )
        try:
            # A scraper that goes away must not take the page from those that share it.
            page = await asyncio.shield(asyncio.wrap_future(self._pages.get(wanted)))
        except Exception as error:  # noqa: BLE001 - a scrape must not raise into the server
            self._warn(f"metrics cannot be shown to Prometheus: {error!r}")
            await _answer(send, 500, [], [b"metrics cannot be shown; the log says why\n"])
            return
        content_type = CONTENT_TYPE_LATEST if wanted.openmetrics else CONTENT_TYPE_PLAIN_0_0_4
        headers = [(b"content-type", content_type.encode()), (b"vary", b"accept, accept-encoding")]
        if wanted.gzip:
            headers.append((b"content-encoding", b"gzip"))
        await _answer(send, 200, headers, page, head=scope["method"] == "HEAD")

    def close(self) -> None:
        """Do nothing: the endpoint holds no connection and no thread."""


def _header(scope: Message, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


async def _answer(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    headers: Headers,
    pieces: list[bytes],
    *,
    head: bool = False,
) -> None:
    length = (b"content-length", str(sum(map(len, pieces))).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    for piece in () if head else pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
