"""The reader of OTLP trace requests, against the messages of opentelemetry-proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from apmkit.relay.decode import KINDS, STATUSES, DecodedSpan, decode_traces, read_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apmkit.relay.decode import Value

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
uint64 = st.integers(0, 2**64 - 1)
plain_values = st.one_of(
    text,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.none(),
)
values: st.SearchStrategy[Value] = st.recursive(
    plain_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(text, inner, max_size=3),
    ),
    max_leaves=6,
)
attributes = st.dictionaries(text, values, max_size=4)
events = st.tuples(text, uint64, attributes)
identifiers = st.binary(min_size=8, max_size=16)


FIELDS: dict[type, str] = {
    str: "string_value",
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
    bytes: "bytes_value",
}


def any_value(value: Value) -> AnyValue:
    """Return `value` as the message of opentelemetry-proto."""
    message = AnyValue()
    if isinstance(value, list):
        message.array_value.CopyFrom(ArrayValue(values=[any_value(item) for item in value]))
    elif isinstance(value, dict):
        message.kvlist_value.CopyFrom(KeyValueList(values=pairs(value)))
    elif value is not None:
        setattr(message, FIELDS[type(value)], value)
    return message


def pairs(found: dict[str, Value]) -> list[KeyValue]:
    """Return attributes as the messages of opentelemetry-proto."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in found.items()]


def request(
    spans: Sequence[Span], resource: dict[str, Value] | None = None, scope: str = ""
) -> bytes:
    """Return the encoded request that holds `spans`."""
    scoped = ScopeSpans(scope=InstrumentationScope(name=scope, version="1"), spans=spans)
    whole = ResourceSpans(
        resource=Resource(attributes=pairs(resource or {})), scope_spans=[scoped], schema_url="s"
    )
    return ExportTraceServiceRequest(resource_spans=[whole]).SerializeToString()


@given(
    ids=st.tuples(identifiers, identifiers, st.binary(max_size=8)),
    texts=st.tuples(text, text, text, text),
    numbers=st.tuples(uint64, uint64, st.integers(0, 5), st.integers(0, 2)),
    own=attributes,
    resource=attributes,
    event_list=st.lists(events, max_size=2),
    links=st.lists(st.tuples(identifiers, identifiers, text, attributes), max_size=2),
)
def test_every_span_that_opentelemetry_encodes_is_read_back(
    *,
    ids: tuple[bytes, bytes, bytes],
    texts: tuple[str, str, str, str],
    numbers: tuple[int, int, int, int],
    own: dict[str, Value],
    resource: dict[str, Value],
    event_list: list[tuple[str, int, dict[str, Value]]],
    links: list[tuple[bytes, bytes, str, dict[str, Value]]],
) -> None:
    span = Span(
        trace_id=ids[0],
        span_id=ids[1],
        parent_span_id=ids[2],
        name=texts[0],
        trace_state=texts[1],
        start_time_unix_nano=numbers[0],
        end_time_unix_nano=numbers[1],
        kind=numbers[2],  # type: ignore[arg-type]
        status=Status(code=numbers[3], message=texts[2]),  # type: ignore[arg-type]
        attributes=pairs(own),
        events=[
            Span.Event(
                name=name,
                time_unix_nano=moment,
                attributes=pairs(found),
                dropped_attributes_count=3,
            )
            for name, moment, found in event_list
        ],
        links=[
            Span.Link(trace_id=trace, span_id=one, trace_state=state, attributes=pairs(found))
            for trace, one, state, found in links
        ],
        flags=257,
        dropped_events_count=7,
    )

    (read,) = decode_traces(request([span], resource, texts[3]))

    assert (read.trace_id, read.span_id, read.parent_span_id) == tuple(i.hex() for i in ids)
    assert (read.name, read.trace_state, read.status_message, read.scope_name) == texts
    assert (read.start_unix_nano, read.end_unix_nano) == numbers[:2]
    assert (read.kind, read.status) == (KINDS[numbers[2]], STATUSES[numbers[3]])
    assert read.attributes == own
    assert read.resource == resource
    assert [(e.name, e.time_unix_nano, e.attributes) for e in read.events] == event_list
    assert [
        (bytes.fromhex(k.trace_id), bytes.fromhex(k.span_id), k.trace_state, k.attributes)
        for k in read.links
    ] == links


def test_spans_keep_their_order_over_scopes_and_resources() -> None:
    first = request([Span(name="a"), Span(name="b")], {"service.name": "one"}, "x")
    second = request([Span(name="c")], {"service.name": "two"}, "y")

    spans = decode_traces(first + second)

    assert [(s.name, s.scope_name, s.resource["service.name"]) for s in spans] == [
        ("a", "x", "one"),
        ("b", "x", "one"),
        ("c", "y", "two"),
    ]


def test_a_resource_written_after_its_spans_is_theirs() -> None:
    spans = ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(name="a")])]).SerializeToString()
    resource = ResourceSpans(
        resource=Resource(attributes=pairs({"service.name": "late"}))
    ).SerializeToString()
    whole = spans + resource

    (span,) = decode_traces(b"\x0a" + bytes([len(whole)]) + whole)

    assert span.resource == {"service.name": "late"}


def test_unknown_fields_kinds_and_statuses_are_skipped() -> None:
    span = Span(name="a", kind=5, status=Status(code=2)).SerializeToString()  # type: ignore[arg-type]
    unknown = b"\xa2\x06\x03abc" + b"\xa8\x06\x96\x01" + b"\xad\x06abcd" + b"\xa9\x06abcdefgh"
    message = span + unknown + b"\x30\x63" + b"\x7a\x02\x18\x09"
    scoped = b"\x12" + bytes([len(message)]) + message
    resource = b"\x12" + bytes([len(scoped)]) + scoped

    (read,) = decode_traces(b"\x0a" + bytes([len(resource)]) + resource)

    assert (read.name, read.kind, read.status) == ("a", "unspecified", "unset")


@pytest.mark.parametrize(
    ("malformed", "complaint"),
    [
        (b"\x0a", "cut off"),
        (b"\x0a\x05abc", "5 bytes runs over the end"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "runs over the end"),
        (b"\x0a" + b"\xff" * 11, "longer than ten bytes"),
        (b"\x09abc", "8 bytes runs over the end"),
        (b"\x0d\x00", "4 bytes runs over the end"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e\x00", "wire type 6"),
        (b"\x02\x00", "field number 0"),
        (b"\xfa\xff\xff\xff\xff\x01\x00", "field number"),
    ],
)
def test_malformed_bytes_are_refused_with_a_reason(malformed: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(read_fields(malformed))
    with pytest.raises(ValueError, match=complaint):
        decode_traces(malformed)


def test_text_that_is_not_utf8_is_refused() -> None:
    good = request([Span(name="abcd")])

    with pytest.raises(ValueError, match="not UTF-8"):
        decode_traces(good.replace(b"abcd", b"ab\xff\xfe"))


def test_deeply_nested_values_are_refused_and_do_not_exhaust_the_stack() -> None:
    nested = b""
    for _ in range(5_000):
        array = _field(1, nested)
        nested = _field(5, array)
    span = _field(9, _field(1, b"key") + _field(2, nested))

    with pytest.raises(ValueError, match="nest deeper"):
        decode_traces(_field(1, _field(2, _field(2, span))))


@given(st.binary(max_size=200))
def test_any_bytes_are_spans_or_a_value_error(noise: bytes) -> None:
    try:
        spans = decode_traces(noise)
    except ValueError:
        return
    assert all(isinstance(span, DecodedSpan) for span in spans)


@given(st.data())
def test_a_request_cut_anywhere_is_spans_or_a_value_error(data: st.DataObject) -> None:
    whole = request([Span(name="a" * 200, attributes=pairs({"k": [1, 2.5, "x"]}))])
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]

    with pytest.raises(ValueError, match="malformed protobuf"):
        decode_traces(cut)


def _field(number: int, chunk: bytes) -> bytes:
    length = len(chunk)
    encoded = bytearray([number << 3 | 2])
    while length > 127:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + chunk
