"""OTLP over HTTP/1.1 with protobuf bodies: one connection, kept alive, never redirected."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from apmkit.relay.export import Delivered, Outcome, Refused, Retry
from apmkit_otlp.answer import (
    MAX_RESPONSE_BYTES,
    read_delivered,
    read_retry_after,
    read_status_message,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import HTTPResponse

    from apmkit_otlp.settings import Destination

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})


class HttpSender:
    """Sends the requests of one signal to one address, one at a time."""

    def __init__(self, destination: Destination) -> None:
        """Connect nothing yet: the process may fork before the first request."""
        self._destination = destination
        self._headers = {
            **destination.headers,
            "content-type": "application/x-protobuf",
            "user-agent": "apmkit",
        }
        if destination.gzip:
            self._headers["content-encoding"] = "gzip"
        host, port = destination.host, destination.port
        # A pool would add redirects and retries, which are the relay's to decide.
        self._connection = (
            HTTPSConnection(host, port, ssl_context=destination.tls.context())
            if destination.secure
            else HTTPConnection(host, port)
        )

    def send(self, request: bytes, timeout: float) -> Outcome:
        """Post `request` and read the answer, both within `timeout` seconds."""
        body = gzip.compress(request) if self._destination.gzip else request
        deadline = time.monotonic() + timeout
        try:
            self._connect(timeout)
            with _shut_at(deadline, self._connection):
                return self._exchange(body, deadline)
        except (OSError, HTTPError, http.client.HTTPException) as error:
            self._connection.close()
            address = f"{self._destination.host}:{self._destination.port}"
            if time.monotonic() >= deadline:
                return Retry(f"{address} gave no whole answer within {timeout:g} s")
            return Retry(f"{address} failed: {error}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _connect(self, timeout: float) -> None:
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None and not connection.is_connected:
            connection.close()
        if connection.sock is None:
            connection.connect()

    def _exchange(self, body: bytes, deadline: float) -> Outcome:
        connection = self._connection
        # A server may refuse a request before it has read all of it; its answer is there then.
        with contextlib.suppress(BrokenPipeError):
            connection.request(
                "POST",
                self._destination.path,
                body=body,
                headers=self._headers,
                preload_content=False,
                decode_content=False,
            )
        response = connection.getresponse()
        answer = b""
        # Reading on to the end is what finds a body that is cut off.
        while chunk := response.read(MAX_RESPONSE_BYTES + 1 - len(answer)):
            answer += chunk
        if time.monotonic() >= deadline:
            raise TimeoutError
        if len(answer) > MAX_RESPONSE_BYTES:
            connection.close()
        return _outcome(response, answer)


def _outcome(response: HTTPResponse, answer: bytes) -> Outcome:
    if 200 <= response.status < 300:  # noqa: PLR2004 - success, as HTTP defines it
        return read_delivered(answer) if len(answer) <= MAX_RESPONSE_BYTES else Delivered()
    text = read_status_message(answer, response.headers.get("content-type", ""))
    reason = f"HTTP {response.status}" + (f": {text}" if text else "")
    if response.status in RETRYABLE_STATUSES:
        return Retry(reason, read_retry_after(response.headers.get("retry-after")))
    return Refused(reason)


@contextlib.contextmanager
def _shut_at(deadline: float, connection: HTTPConnection) -> Iterator[None]:
    """End a blocked read at `deadline`: a socket's own time-out starts anew with every byte."""
    timer = threading.Timer(max(deadline - time.monotonic(), 0), _shut, (connection.sock,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # SSLSocket.shutdown would change the object under the thread that reads from it.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
