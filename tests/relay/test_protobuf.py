"""Fields and values as protobuf has them."""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from apmkit.relay.protobuf import any_value, field, key_value, text_field, varint


def parse(value: object) -> AnyValue:
    return AnyValue.FromString(any_value(value))


def plain(value: AnyValue) -> Any:  # noqa: ANN401 - any value of OTLP
    which = value.WhichOneof("value")
    if which == "array_value":
        return [plain(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, which) if which else None


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.one_of(
        texts,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.binary(max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_written_as_protobuf_writes_it(number: int) -> None:
    assert varint(number) == _VarintBytes(number)


@given(values)
def test_every_kind_of_value_arrives(value: object) -> None:
    found = plain(parse(value))
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_arrives() -> None:
    assert math.isnan(plain(parse(math.nan)))


class Colour(IntEnum):
    RED = 1


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, "a"), [1, "a"]),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (bytearray(b"a"), b"a"),
        (Colour.RED, 1),
        ({1: "a"}, {"1": "a"}),
        (2**63, str(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        pytest.param(10**5_000, "<int>", id="an integer that Python refuses to print"),
        (None, "None"),
        (1 + 2j, "(1+2j)"),
        (Mute(), "<Mute>"),
        ({Mute(): 1}, {"<Mute>": 1}),
        ([Mute()], ["<Mute>"]),
    ],
)
def test_what_otlp_has_no_kind_for_becomes_its_nearest(value: object, expected: object) -> None:
    assert plain(parse(value)) == expected


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\udfff\ud800"])
def test_lone_surrogates_become_question_marks(text: str) -> None:
    expected = text.encode("utf-8", "replace").decode()
    assert plain(parse(text)) == expected
    pair = KeyValue.FromString(key_value(b"", text, text)[1:])
    assert pair.key == expected


def test_texts_bytes_and_lists_are_bounded() -> None:
    assert len(plain(parse("x" * 1_000_000))) == 16_384
    assert len(plain(parse(b"x" * 1_000_000))) == 16_384
    assert len(plain(parse([0] * 1_000_000))) == 1_024
    assert len(plain(parse({str(n): n for n in range(5_000)}))) == 1_024


def test_values_that_hold_themselves_are_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    found = plain(parse(endless))
    depth = 0
    while isinstance(found, list):
        (found,) = found
        depth += 1
    assert (depth, found) == (8, "[[...]]")


def test_a_name_that_is_no_text_is_written_as_one() -> None:
    assert text_field(b"\x0a", 7) == b"\x0a\x017"
    assert text_field(b"\x0a", Mute()) == b"\x0a\x06<Mute>"


@given(st.binary(max_size=300))
def test_a_field_tells_its_length(body: bytes) -> None:
    assert field(b"\x0a", body) == b"\x0a" + _VarintBytes(len(body)) + body
