"""What a backend's answer means: OTLP's response messages and the headers that ask for patience."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from apmkit.relay.export import Delivered, read_fields

LONGEST_WAIT = 300.0
"""Seconds: a backend that asks for more patience than this is asked again all the same."""

MAX_RESPONSE_BYTES = 65_536
_MAX_MESSAGE = 200
_VARINT, _BYTES = 0, 2


def read_delivered(response: bytes) -> Delivered:
    """Return what an Export…ServiceResponse says: how much of the request was rejected, and why.

    The messages of traces and metrics have the same numbers. A response that cannot be read
    counts as full success, because its status already said so.
    """
    rejected, text = 0, ""
    try:
        for tag, _, partial in read_fields(response):
            if tag != 1 << 3 | _BYTES:
                continue
            for inner, number, chunk in read_fields(partial):
                if inner == 1 << 3 | _VARINT:
                    rejected = number if number < 1 << 63 else 0
                elif inner == 2 << 3 | _BYTES:
                    text = readable(chunk)
    except ValueError:
        return Delivered()
    return Delivered(rejected, text)


def read_status_message(body: bytes, content_type: str) -> str:
    """Return the message of an error response: a google.rpc.Status or plain text."""
    if "protobuf" not in content_type:
        return readable(body)
    try:
        return next((readable(f.chunk) for f in read_fields(body) if f.tag == 2 << 3 | _BYTES), "")
    except ValueError:
        return ""


def read_retry_delay(details: bytes) -> float | None:
    """Return the seconds that a RetryInfo in a google.rpc.Status asks to wait, None without one."""
    try:
        for tag, _, detail in read_fields(details):
            if tag == 3 << 3 | _BYTES:
                parts = {f.tag: f.chunk for f in read_fields(detail)}
                if parts.get(1 << 3 | _BYTES, b"").endswith(b"/google.rpc.RetryInfo"):
                    return _duration(parts.get(2 << 3 | _BYTES, b""))
    except ValueError:
        pass
    return None


def _duration(retry_info: bytes) -> float:
    delay = next((f.chunk for f in read_fields(retry_info) if f.tag == 1 << 3 | _BYTES), b"")
    parts = {f.tag: f.number for f in read_fields(delay)}
    return _bounded(parts.get(1 << 3 | _VARINT, 0) + parts.get(2 << 3 | _VARINT, 0) / 1e9)


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds to wait that a Retry-After header asks for: a number or a date."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return _bounded(float(text[:10]))
    try:
        return _bounded(parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT)


def readable(text: bytes) -> str:
    """Return the start of `text` on one line, fit for a log."""
    decoded = text[: 4 * _MAX_MESSAGE].decode("utf-8", "replace")
    line = " ".join(decoded.split())
    return "".join(c for c in line if c.isprintable())[:_MAX_MESSAGE]
