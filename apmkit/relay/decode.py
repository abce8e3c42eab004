"""Read OTLP: a small protobuf reader, and trace requests as plain data to show or store."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Union

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

# A string in quotes, because `|` with a forward reference fails at run time.
Value = Union[str, bool, int, float, bytes, "list[Value]", "dict[str, Value]", None]

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")

# Attribute values nest; protobuf's own parsers stop at 100 messages, two for each of our levels.
_MAX_DEPTH = 48
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UINT64 = 0xFFFF_FFFF_FFFF_FFFF
_MAX_VARINT_SHIFT = 63


class Field(NamedTuple):
    """One field of a protobuf message: `number` holds numeric values, `chunk` all others."""

    tag: int
    number: int
    chunk: bytes


class DecodedEvent(msgspec.Struct, frozen=True):
    """Something that happened during a span, at a Unix time in nanoseconds."""

    name: str
    time_unix_nano: int
    attributes: dict[str, Value]


class DecodedLink(msgspec.Struct, frozen=True):
    """A span of some trace that a span refers to (identifiers in hex)."""

    trace_id: str
    span_id: str
    trace_state: str
    attributes: dict[str, Value]


class DecodedSpan(msgspec.Struct, frozen=True):
    """A span as OTLP carries it: identifiers in hex, times in Unix nanoseconds.

    `parent_span_id` is empty for a root; `kind` is one of `KINDS`, `status` one of `STATUSES`.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    trace_state: str
    name: str
    kind: str
    start_unix_nano: int
    end_unix_nano: int
    attributes: dict[str, Value]
    events: list[DecodedEvent]
    links: list[DecodedLink]
    status: str
    status_message: str
    scope_name: str
    resource: dict[str, Value]


def decode_traces(request: bytes) -> list[DecodedSpan]:
    """Return the spans of an encoded OTLP ExportTraceServiceRequest, in its order.

    Fields that are not known are skipped, as protobuf asks.

    Args:
        request: uncompressed protobuf bytes.

    Returns:
        Every span with the attributes of its resource and the name of its scope.

    Raises:
        ValueError: if the bytes are not such a request.
    """
    spans: list[DecodedSpan] = []
    for tag, _, chunk in read_fields(request):
        if tag == 1 << 3 | _BYTES:
            spans.extend(_resource_spans(chunk))
    return spans


def read_fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of an encoded protobuf message.

    A field's `tag` is its number times 8 plus its wire type (0 varint, 1 eight bytes, 2 length and
    bytes, 5 four bytes). Varints are unsigned.

    Raises:
        ValueError: if a field is cut off, of an unknown wire type, or has an overlong number.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        wire_type = tag & 7
        if not 0 < tag >> 3 < 1 << 29:
            _fail(f"field number {tag >> 3} is out of range", position)
        if wire_type == _VARINT:
            number, position = _varint(message, position)
            yield Field(tag, number, b"")
            continue
        if wire_type == _BYTES:
            length, position = _varint(message, position)
        elif wire_type in {_FIXED64, _FIXED32}:
            length = 8 if wire_type == _FIXED64 else 4
        else:
            _fail(f"wire type {wire_type} is not known", position)
        if length > end - position:
            _fail(f"a field of {length} bytes runs over the end", position)
        chunk = message[position : position + length]
        position += length
        if wire_type == _BYTES:
            yield Field(tag, 0, chunk)
        else:
            yield Field(tag, int.from_bytes(chunk, "little"), b"")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if position >= len(message):
            _fail("a number is cut off", position)
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return number & _UINT64, position
        shift += 7
        if shift > _MAX_VARINT_SHIFT:
            _fail("a number is longer than ten bytes", position)


def _fail(what: str, position: int) -> NoReturn:
    raise ValueError(f"malformed protobuf at byte {position}: {what}")


def _text(chunk: bytes) -> str:
    try:
        return chunk.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"malformed protobuf: text is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None


def _resource_spans(message: bytes) -> Iterator[DecodedSpan]:
    resource: dict[str, Value] = {}
    scopes: list[bytes] = []
    for tag, _, chunk in read_fields(message):
        if tag == 1 << 3 | _BYTES:
            resource = _dict(chunk)
        elif tag == 2 << 3 | _BYTES:
            scopes.append(chunk)
    for scope in scopes:
        yield from _scope_spans(scope, resource)


def _scope_spans(message: bytes, resource: dict[str, Value]) -> Iterator[DecodedSpan]:
    scope_name = ""
    spans: list[bytes] = []
    for tag, _, chunk in read_fields(message):
        if tag == 1 << 3 | _BYTES:
            for inner, _, name in read_fields(chunk):
                if inner == 1 << 3 | _BYTES:
                    scope_name = _text(name)
        elif tag == 2 << 3 | _BYTES:
            spans.append(chunk)
    for span in spans:
        yield _span(span, scope_name, resource)


def _span(message: bytes, scope_name: str, resource: dict[str, Value]) -> DecodedSpan:
    texts = {1: b"", 2: b"", 3: b"", 4: b"", 5: b"", 15: b""}
    numbers = {6: 0, 7: 0, 8: 0}
    attributes: dict[str, Value] = {}
    events: list[DecodedEvent] = []
    links: list[DecodedLink] = []
    for tag, number, chunk in read_fields(message):
        field = tag >> 3
        if tag == 9 << 3 | _BYTES:
            _add_pair(attributes, chunk)
        elif tag == 11 << 3 | _BYTES:
            events.append(_event(chunk))
        elif tag == 13 << 3 | _BYTES:
            links.append(_link(chunk))
        elif field in texts and tag & 7 == _BYTES:
            texts[field] = chunk
        elif tag in {6 << 3 | _VARINT, 7 << 3 | _FIXED64, 8 << 3 | _FIXED64}:
            numbers[field] = number
    status, status_message = _status(texts[15])
    return DecodedSpan(
        trace_id=texts[1].hex(),
        span_id=texts[2].hex(),
        parent_span_id=texts[4].hex(),
        trace_state=_text(texts[3]),
        name=_text(texts[5]),
        kind=_name(KINDS, numbers[6]),
        start_unix_nano=numbers[7],
        end_unix_nano=numbers[8],
        attributes=attributes,
        events=events,
        links=links,
        status=status,
        status_message=status_message,
        scope_name=scope_name,
        resource=resource,
    )


def _event(message: bytes) -> DecodedEvent:
    time_unix_nano, name = 0, ""
    attributes: dict[str, Value] = {}
    for tag, number, chunk in read_fields(message):
        if tag == 1 << 3 | _FIXED64:
            time_unix_nano = number
        elif tag == 2 << 3 | _BYTES:
            name = _text(chunk)
        elif tag == 3 << 3 | _BYTES:
            _add_pair(attributes, chunk)
    return DecodedEvent(name, time_unix_nano, attributes)


def _link(message: bytes) -> DecodedLink:
    texts = {1: b"", 2: b"", 3: b""}
    attributes: dict[str, Value] = {}
    for tag, _, chunk in read_fields(message):
        if tag == 4 << 3 | _BYTES:
            _add_pair(attributes, chunk)
        elif tag >> 3 in texts and tag & 7 == _BYTES:
            texts[tag >> 3] = chunk
    return DecodedLink(texts[1].hex(), texts[2].hex(), _text(texts[3]), attributes)


def _status(message: bytes) -> tuple[str, str]:
    code, text = 0, ""
    for tag, number, chunk in read_fields(message):
        if tag == 2 << 3 | _BYTES:
            text = _text(chunk)
        elif tag == 3 << 3 | _VARINT:
            code = number
    return _name(STATUSES, code), text


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else names[0]


def _add_pair(attributes: dict[str, Value], message: bytes, depth: int = 0) -> None:
    key = ""
    value: Value = None
    for tag, _, chunk in read_fields(message):
        if tag == 1 << 3 | _BYTES:
            key = _text(chunk)
        elif tag == 2 << 3 | _BYTES:
            value = _value(chunk, depth)
    attributes[key] = value


def _value(message: bytes, depth: int) -> Value:
    if depth > _MAX_DEPTH:
        _fail(f"attribute values nest deeper than {_MAX_DEPTH}", 0)
    value: Value = None
    for tag, number, chunk in read_fields(message):
        if tag == 1 << 3 | _BYTES:
            value = _text(chunk)
        elif tag == 2 << 3 | _VARINT:
            value = bool(number)
        elif tag == 3 << 3 | _VARINT:
            value = number - (1 << 64) if number >> 63 else number
        elif tag == 4 << 3 | _FIXED64:
            (value,) = struct.unpack("<d", number.to_bytes(8, "little"))
        elif tag == 5 << 3 | _BYTES:
            value = _list(chunk, depth + 1)
        elif tag == 6 << 3 | _BYTES:
            value = _dict(chunk, depth + 1)
        elif tag == 7 << 3 | _BYTES:
            value = chunk
    return value


def _list(message: bytes, depth: int) -> list[Value]:
    return [_value(f.chunk, depth) for f in read_fields(message) if f.tag == 1 << 3 | _BYTES]


def _dict(message: bytes, depth: int = 0) -> dict[str, Value]:
    pairs: dict[str, Value] = {}
    for tag, _, pair in read_fields(message):
        if tag == 1 << 3 | _BYTES:
            _add_pair(pairs, pair, depth)
    return pairs
