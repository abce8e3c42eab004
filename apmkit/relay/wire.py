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
from apmkit.record.identifiers import random_bits
from apmkit.record.span import Span, qualified_name, safe_text
from apmkit.record.tracer import SCOPE
from apmkit.relay import redact
from apmkit.relay.protobuf import field, key_value, text_field, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apmkit.record.shared import Shared
    from apmkit.record.trace import Entry, Trace

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


class TraceEncoder:
    """Encodes the entries of one trace, one by one, so that a large trace can be done in slices."""

    __slots__ = ("_foreign", "_number", "_offset", "_own", "_trace_id", "wall_offset")

    def __init__(self, trace: Trace) -> None:
        self._number = trace.trace_id
        self._trace_id = trace.trace_id.to_bytes(16, "big")
        self.wall_offset = self._offset = clock.wall_offset()
        self._own: list[bytes] = []
        self._foreign: dict[tuple[str, str], list[bytes]] | None = None

    def add(self, entry: Entry) -> None:
        """Encode a span or a recorded call."""
        if isinstance(entry, Span):
            self.add_span(entry, entry.end_time)
        else:
            self._add_leaf(entry)

    def _add_leaf(self, entry: tuple[Any, ...]) -> None:
        call, parent, start, end, error, attributes = entry
        span_id = random_bits(64) or 1
        offset = self._offset
        prefix, suffix = call.encoded or _encode_shared(call)
        series = call.series if error is None else call.failed(error)
        value = (end - start) * 1e-9
        series.attach_exemplar((value, end + offset, self._number, span_id))
        header = self._header(
            span_id, parent.span_id if parent is not None else 0, start + offset, end + offset
        )
        if error is None and attributes is None and len(header) == _HEADER_SIZE:
            self._own += (prefix, header, suffix)
            return
        body = header + suffix
        if attributes:
            body += encode_attributes(attributes, _ATTRIBUTE)
        if error is not None:
            body += _error(error)
        self._own.append(field(b"\x12", body))

    def add_span(self, span: Span, end: int) -> None:
        """Encode a span that ended at `end` (or is described up to it)."""
        offset = self._offset
        trace = span.trace
        parent_id = 0
        if span.parent is not None or trace.parent is not None:
            parent_id = span.parent_span_id
        body = self._header(span.span_id, parent_id, span.start + offset, end + offset)
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
            body += b"".join(self._rare(span))
        if span.parent is None and (trace.overflow or trace.parent is not None):
            body += self._of_root(trace)
        if span.scope is SCOPE:
            self._own += (b"\x12", varint(len(body)), body)
        else:
            if self._foreign is None:
                self._foreign = {}
            self._foreign.setdefault(span.scope, []).append(field(b"\x12", body))

    def _rare(self, span: Span) -> Iterable[bytes]:
        for event in span.events or ():
            attributes = encode_attributes(event.attributes, b"\x1a")
            time = (event.time + self._offset).to_bytes(8, "little")
            yield field(_EVENT, b"\x09" + time + text_field(b"\x12", event.name) + attributes)
        for context, attributes in span.links or ():
            ids = b"\x0a\x10" + context.trace_id.to_bytes(16, "big")
            ids += b"\x12\x08" + context.span_id.to_bytes(8, "big")
            yield field(_LINK, ids + encode_attributes(attributes or {}, b"\x22"))
        if span.status is StatusCode.ERROR:
            text = text_field(b"\x12", redact.text(span.description)) if span.description else b""
            yield field(b"\x7a", text + b"\x18\x02")
        elif span.status is StatusCode.OK:
            yield b"\x7a\x02\x18\x01"

    def _of_root(self, trace: Trace) -> bytes:
        body = b""
        if trace.parent is not None and trace.parent.trace_state:
            body += text_field(b"\x1a", trace.parent.trace_state.to_header())
        if trace.overflow:
            body += key_value(_ATTRIBUTE, "apmkit.dropped_spans", trace.overflow)
        return body

    def _header(self, span_id: int, parent_id: int, start: int, end: int) -> bytes:
        span = span_id.to_bytes(8, "big")
        if parent_id:
            parent = parent_id.to_bytes(8, "big")
            return _HEADER.pack(
                b"\x0a\x10", self._trace_id, b"\x12\x08", span, b"\x22\x08", parent, b"\x39", start, b"\x41", end
            )
        return _ROOT_HEADER.pack(b"\x0a\x10", self._trace_id, b"\x12\x08", span, b"\x39", start, b"\x41", end)

    def finish(self) -> bytes:
        """Return `scope_spans` fields, grouped by instrumentation scope as OTLP asks for."""
        own = b"".join(self._own)
        payload = b"\x12" + varint(len(own) + len(_OWN_SCOPE)) + _OWN_SCOPE + own if own else b""
        if self._foreign is not None:
            for scope, spans in self._foreign.items():
                payload += field(b"\x12", _scope(scope) + b"".join(spans))
        return payload


def _scope(scope: tuple[str, str]) -> bytes:
    name, version = scope
    return field(b"\x0a", text_field(b"\x0a", name) + (text_field(b"\x12", version) if version else b""))


_OWN_SCOPE = _scope(SCOPE)


def _encode_shared(shared: Shared) -> tuple[bytes, bytes]:
    """Return what goes before and after the header of a leaf; the latter serves every span."""
    suffix = b""
    if shared.name:
        suffix = text_field(b"\x2a", shared.name) + b"\x30" + varint(_KIND[shared.kind])
    suffix += encode_attributes(shared.attributes, _ATTRIBUTE)
    shared.encoded = b"\x12" + varint(_HEADER_SIZE + len(suffix)), suffix
    return shared.encoded


def _error(error: BaseException) -> bytes:
    text = redact.text(f"{type(error).__name__}: {safe_text(error)}")
    status = field(b"\x7a", text_field(b"\x12", text) + b"\x18\x02")
    return key_value(_ATTRIBUTE, "error.type", qualified_name(type(error))) + status


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
            parts.append(key_value(tag, key, redact.REDACTED if redact.secret_name(str(key)) else value))
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
    if key.startswith("exception.") or key == "url.full":
        return redact.text(value)
    if key in {"db.query.text", "db.statement"}:
        return redact.sql(value)
    return value


def resource_prefix(attributes: Mapping[str, Any]) -> bytes:
    """Encode `ResourceSpans.resource`, which goes before the records."""
    return field(b"\x0a", encode_attributes(attributes, b"\x0a"))


def request(prefix: bytes, payloads: Iterable[bytes]) -> bytes:
    """Return an ExportTraceServiceRequest with these records under one resource."""
    return field(b"\x0a", prefix + b"".join(payloads))
