"""OTLP protobuf for traces, written for speed.

A trace becomes a run of `ResourceSpans.scope_spans` fields, so that requests are made by putting
records one behind the other after the resource. Field numbers are those of opentelemetry-proto,
`trace.proto`. A recorded call contributes what its `Call` shares, encoded once, and 66 bytes of
its own.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, StatusCode

from apmkit.record import clock
from apmkit.record.errors import qualified_name, safe_text
from apmkit.record.identifiers import random_bits
from apmkit.record.span import Span
from apmkit.record.tracer import SCOPE
from apmkit.relay import redact
from apmkit.relay.protobuf import field, key_value, text_field, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from apmkit.record.shared import Shared
    from apmkit.record.trace import Leaf, Trace

_KIND = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}

# trace_id = 1, span_id = 2, parent_span_id = 4, start = 7 and end = 8 (fixed64); tags included.
_HEADER = Struct("<2s16s2s8s2s8scQcQ")
_ROOT_HEADER = Struct("<2s16s2s8scQcQ")
_HEADER_SIZE = _HEADER.size
_ATTRIBUTE = b"\x4a"
_EVENT = b"\x5a"
_LINK = b"\x6a"
_UNSET = StatusCode.UNSET
_SLICE = 500_000
"""Nanoseconds of work off the request path before other threads get their turn."""


def encode(
    trace: Trace,
    root: Span | None,
    end: int = 0,
    pause: Callable[[], None] | None = None,
) -> bytes:
    """Encode the entries of a trace, and its root if it has one.

    Args:
        trace: the finished spans and calls.
        root: the local root; None for what ended after it, or outside every trace.
        end: up to when a root that is still open is described, monotonic nanoseconds.
        pause: called every half millisecond, to let other threads run.

    Returns:
        `scope_spans` fields, grouped by instrumentation scope as OTLP asks for.
    """
    offset = clock.wall_offset()
    number = trace.trace_id
    trace_id = number.to_bytes(16, "big")
    if not trace and root is not None and root.scope is SCOPE:
        body = _span(root, trace_id, offset, root.end_time or end)
        length = varint(len(body))
        inner = len(_OWN_SCOPE) + 1 + len(length) + len(body)
        return b"\x12" + varint(inner) + _OWN_SCOPE + b"\x12" + length + body
    own: list[bytes] = []
    foreign: dict[tuple[str, str], list[bytes]] = {}
    parent: Span | None = None
    parent_id = b""
    turn = clock.now() + _SLICE if pause is not None else 0
    for entry in trace:
        if isinstance(entry, Span):
            _put(own, foreign, entry, _span(entry, trace_id, offset, entry.end_time))
        else:
            call, caller, start, finish, error, attributes, series, bucket = entry
            span_id = random_bits(64) or 1
            series.exemplars[bucket] = ((finish - start) * 1e-9, finish + offset, number, span_id)
            prefix, suffix = call.encoded or _encode_shared(call)
            if caller is not parent and caller is not None:
                parent, parent_id = caller, caller.span_id.to_bytes(8, "big")
            if caller is None or error is not None or attributes is not None:
                body = _rare_leaf(entry, trace_id, span_id, offset) + suffix
                own += (b"\x12", varint(len(body)), body)
            else:
                own_id = span_id.to_bytes(8, "big")
                header = _HEADER.pack(
                    b"\x0a\x10", trace_id, b"\x12\x08", own_id, b"\x22\x08", parent_id,
                    b"\x39", start + offset, b"\x41", finish + offset,
                )  # fmt: skip
                own += (prefix, header, suffix)
        if pause is not None and clock.now() > turn:
            pause()
            turn = clock.now() + _SLICE
    if root is not None:
        _put(own, foreign, root, _span(root, trace_id, offset, root.end_time or end))
    return _grouped(own, foreign)


def _put(
    own: list[bytes], foreign: dict[tuple[str, str], list[bytes]], span: Span, body: bytes
) -> None:
    if span.scope is SCOPE:
        own += (b"\x12", varint(len(body)), body)
    else:
        foreign.setdefault(span.scope, []).append(field(b"\x12", body))


def _grouped(own: list[bytes], foreign: dict[tuple[str, str], list[bytes]]) -> bytes:
    payload = b""
    if own:
        spans = b"".join(own)
        payload = b"\x12" + varint(len(_OWN_SCOPE) + len(spans)) + _OWN_SCOPE + spans
    for scope, bodies in foreign.items():
        payload += field(b"\x12", _scope(scope) + b"".join(bodies))
    return payload


def _span(span: Span, trace_id: bytes, offset: int, end: int) -> bytes:
    """Encode a span that ended at `end`, or is described up to it."""
    trace = span.trace
    span_id = span.span_id.to_bytes(8, "big")
    start = span.start + offset
    if span.parent is None and trace.parent is None:
        body = _ROOT_HEADER.pack(
            b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x39", start, b"\x41", end + offset
        )
    else:
        parent_id = span.parent_span_id.to_bytes(8, "big")
        body = _HEADER.pack(
            b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x22\x08", parent_id,
            b"\x39", start, b"\x41", end + offset,
        )  # fmt: skip
    if span.shared:
        for shared in span.shared:
            body += (shared.encoded or _encode_shared(shared))[1]
    else:
        body += text_field(b"\x2a", span.name) + b"\x30" + varint(_KIND[span.kind])
    if span.attributes:
        body += encode_attributes(span.attributes, _ATTRIBUTE)
    if not span.end_time:
        body += key_value(_ATTRIBUTE, "apmkit.span.open", True)  # noqa: FBT003 - a value
    if span.events or span.links or span.status is not _UNSET:
        body += b"".join(_rare_parts(span, offset))
    if span.parent is None and (trace.overflow or trace.parent is not None or trace.threshold):
        body += _of_root(span)
    return body


def _rare_parts(span: Span, offset: int) -> Iterable[bytes]:
    for event in span.events or ():
        time = (event.time + offset).to_bytes(8, "little")
        body = b"\x09" + time + text_field(b"\x12", event.name)
        yield field(_EVENT, body + encode_attributes(event.attributes, b"\x1a"))
    for context, attributes in span.links or ():
        ids = b"\x0a\x10" + context.trace_id.to_bytes(16, "big")
        ids += b"\x12\x08" + context.span_id.to_bytes(8, "big")
        yield field(_LINK, ids + encode_attributes(attributes or {}, b"\x22"))
    if span.status is StatusCode.ERROR:
        text = text_field(b"\x12", redact.text(span.description)) if span.description else b""
        yield field(b"\x7a", text + b"\x18\x02")
    elif span.status is StatusCode.OK:
        yield b"\x7a\x02\x18\x01"


def _of_root(span: Span) -> bytes:
    body = b""
    state = span.get_span_context().trace_state
    if state:
        body += text_field(b"\x1a", state.to_header())
    if span.trace.overflow:
        body += key_value(_ATTRIBUTE, "apmkit.dropped_spans", span.trace.overflow)
    return body


def _rare_leaf(entry: Leaf, trace_id: bytes, span_id: int, offset: int) -> bytes:
    """Encode what a call has of its own, if it has no parent, an error or attributes."""
    _, caller, start, end, error, attributes, _, _ = entry
    body = b"\x0a\x10" + trace_id + b"\x12\x08" + span_id.to_bytes(8, "big")
    if caller is not None:
        body += b"\x22\x08" + caller.span_id.to_bytes(8, "big")
    body += (
        b"\x39"
        + (start + offset).to_bytes(8, "little")
        + b"\x41"
        + (end + offset).to_bytes(8, "little")
    )
    if attributes:
        body += encode_attributes(attributes, _ATTRIBUTE)
    if error is not None:
        text = redact.text(f"{type(error).__name__}: {safe_text(error)}")
        body += key_value(_ATTRIBUTE, "error.type", qualified_name(type(error)))
        body += field(b"\x7a", text_field(b"\x12", text) + b"\x18\x02")
    return body


def _scope(scope: tuple[str, str]) -> bytes:
    name, version = scope
    return field(
        b"\x0a", text_field(b"\x0a", name) + (text_field(b"\x12", version) if version else b"")
    )


_OWN_SCOPE = _scope(SCOPE)


def _encode_shared(shared: Shared) -> tuple[bytes, bytes]:
    """Return what goes before and after the header of a leaf; the latter serves every span."""
    suffix = b""
    if shared.name:
        suffix = text_field(b"\x2a", shared.name) + b"\x30" + varint(_KIND[shared.kind])
    suffix += encode_attributes(shared.attributes, _ATTRIBUTE)
    shared.encoded = b"\x12" + varint(_HEADER_SIZE + len(suffix)), suffix
    return shared.encoded


# The same pairs come back in every span. 1, 1.0 and True are one dict key: text and numbers have
# a dict each, and no other kind is kept.
_texts: dict[tuple[bytes, str, str], bytes] = {}
_numbers: dict[tuple[bytes, str, int], bytes] = {}
_float_prefixes: dict[tuple[bytes, str], bytes] = {}
_MAX_FRAGMENTS = 4_096
_MAX_FRAGMENT_TEXT = 256
_DOUBLE = Struct("<d")


def encode_attributes(attributes: Mapping[str, Any], tag: bytes) -> bytes:
    """Encode attributes as repeated `KeyValue` fields with this tag, secrets replaced."""
    parts = []
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            parts.append(_texts.get((tag, key, value)) or _text(tag, key, value))
        elif kind is int:
            parts.append(_numbers.get((tag, key, value)) or _number(tag, key, value))
        elif kind is float:
            prefix = _float_prefixes.get((tag, key)) or _float_prefix(tag, key)
            parts.append(prefix + _DOUBLE.pack(value))
        elif value is not None:
            parts.append(key_value(tag, key, _redacted_value(str(key), value)))
    return b"".join(parts)


def _text(tag: bytes, key: str, value: str) -> bytes:
    fragment = key_value(tag, key, _redacted(key, value))
    if len(value) <= _MAX_FRAGMENT_TEXT:
        _remember(_texts, (tag, key, value), fragment)
    return fragment


def _number(tag: bytes, key: str, value: int) -> bytes:
    fragment = key_value(tag, key, redact.REDACTED if redact.secret_name(key) else value)
    _remember(_numbers, (tag, key, value), fragment)
    return fragment


def _float_prefix(tag: bytes, key: str) -> bytes:
    name = text_field(b"\x0a", key)
    prefix = tag + varint(len(name) + 11) + name + b"\x12\x09\x21"
    _remember(_float_prefixes, (tag, key), prefix)
    return prefix


def _remember(fragments: dict[Any, bytes], key: object, fragment: bytes) -> None:
    if len(fragments) >= _MAX_FRAGMENTS:
        fragments.clear()
    fragments[key] = fragment


def _redacted(key: str, value: str) -> str:
    if redact.secret_name(key):
        return redact.REDACTED
    if key == "url.query":
        return redact.query_string(value)
    if key.startswith("exception.") or key in {"url.full", "http.url", "http.target"}:
        return redact.text(value)
    if key in {"db.query.text", "db.statement"}:
        return redact.sql(value)
    return value


def _redacted_value(key: str, value: object) -> object:
    if redact.secret_name(key):
        return redact.REDACTED
    # Captured headers are lists; a cookie hides in Referer, a token in baggage.
    if key.startswith(("http.request.header.", "http.response.header.")):
        return (
            [redact.text(str(item)) for item in value]
            if isinstance(value, (list, tuple))
            else value
        )
    return value


def resource_prefix(attributes: Mapping[str, Any]) -> bytes:
    """Encode `ResourceSpans.resource`, which goes before the records."""
    return field(b"\x0a", encode_attributes(attributes, b"\x0a"))


def request(prefix: bytes, payloads: Iterable[bytes]) -> bytes:
    """Return an ExportTraceServiceRequest with these records under one resource."""
    return field(b"\x0a", prefix + b"".join(payloads))
