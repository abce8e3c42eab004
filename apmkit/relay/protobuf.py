"""Writing protobuf fields and OTLP values by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import pack
from typing import Any

_MAX_TEXT = 16_384
_MAX_ITEMS = 1_024
_MAX_DEPTH = 8


@lru_cache(maxsize=4_096)
def varint(number: int) -> bytes:
    """Encode an unsigned number. Most are lengths, and lengths come back: hence the cache."""
    out = bytearray()
    while number > 127:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(tag: bytes, body: bytes) -> bytes:
    """Encode a length-delimited field."""
    return tag + varint(len(body)) + body


def text_field(tag: bytes, text: Any) -> bytes:  # noqa: ANN401 - applications pass anything
    """Encode a string field, at most 16,384 characters; lone surrogates become `?`."""
    if not isinstance(text, str):
        text = _text(text)
    body: bytes = text[:_MAX_TEXT].encode("utf-8", "replace")
    return tag + varint(len(body)) + body


def key_value(tag: bytes, key: str, value: object) -> bytes:
    """Encode `KeyValue{key = 1, value = 2}` as a field with this tag."""
    body = text_field(b"\x0a", key) + field(b"\x12", any_value(value))
    return tag + varint(len(body)) + body


def any_value(value: Any, depth: int = 0) -> bytes:  # noqa: ANN401, PLR0911 - one return a kind
    r"""Encode an `AnyValue`; what OTLP has no kind for becomes its text.

    >>> any_value("a")
    b'\n\x01a'
    """
    if isinstance(value, str):
        return text_field(b"\x0a", value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
        return text_field(b"\x0a", _text(value))
    if isinstance(value, float):
        return b"\x21" + pack("<d", value)
    if isinstance(value, (bytes, bytearray)):
        return field(b"\x3a", bytes(value[:_MAX_TEXT]))
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            pairs = list(value.items())[:_MAX_ITEMS]
            items = [
                field(b"\x0a", text_field(b"\x0a", k) + field(b"\x12", any_value(v, depth + 1)))
                for k, v in pairs
            ]
            return field(b"\x32", b"".join(items))
        if isinstance(value, Sequence):
            elements = [field(b"\x0a", any_value(item, depth + 1)) for item in value[:_MAX_ITEMS]]
            return field(b"\x2a", b"".join(elements))
    return text_field(b"\x0a", _text(value))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an attribute of the application, with any __str__
        return f"<{type(value).__name__}>"
