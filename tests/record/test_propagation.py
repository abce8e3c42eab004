"""Trace context and baggage from headers: what is good is read, what is hostile is counted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from apmkit.record import propagation
from apmkit.record.propagation import (
    MAX_BAGGAGE,
    MAX_OTHER_HEADER,
    MAX_TRACESTATE,
    extract_configured,
    extract_w3c,
    parse_traceparent,
    uses_w3c_only,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PARENT = (b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode())

hexadecimal = st.text("0123456789abcdef", min_size=1)
keys = st.from_regex(r"[a-z][a-z0-9_*/-]{0,20}(@[a-z][a-z0-9_*/-]{0,5})?", fullmatch=True)
values = st.from_regex(r"[ -+\--<>-~]{0,10}[!-+\--<>-~]", fullmatch=True)
hostile = st.one_of(
    st.binary(max_size=200),
    st.text(st.sampled_from("abz019_-*/@=,; \t\x00%é"), max_size=200).map(
        lambda t: t.encode("latin-1")
    ),
)


@pytest.fixture
def _silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert caplog.records == []


def read(*headers: tuple[bytes, bytes]) -> tuple[SpanContext | None, Context | None, list[str]]:
    malformed: list[str] = []
    parent, context = extract_w3c(headers, malformed.append)
    return parent, context, malformed


def standard(traceparent: str, tracestate: str = "") -> SpanContext:
    carrier = {"traceparent": traceparent, **({"tracestate": tracestate} if tracestate else {})}
    context = TraceContextTextMapPropagator().extract(carrier, Context())
    return trace.get_current_span(context).get_span_context()


def test_a_request_without_headers_has_no_parent() -> None:
    assert read((b"host", b"example.org")) == (None, None, [])


def test_a_traceparent_is_read() -> None:
    parent, context, malformed = read(PARENT)
    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert parent.is_remote
    assert parent.trace_flags.sampled
    assert (context, malformed) == (None, [])


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 255),
    st.dictionaries(keys, values, max_size=8),
)
def test_valid_headers_are_read_as_opentelemetry_reads_them(
    trace_id: int, span_id: int, flags: int, state: dict[str, str]
) -> None:
    traceparent = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    tracestate = ",".join(f"{key}={value}" for key, value in state.items())
    parent, _, malformed = read(
        (b"traceparent", traceparent.encode()), (b"tracestate", tracestate.encode())
    )
    expected = standard(traceparent, tracestate)
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (expected.trace_id, expected.span_id)
    assert parent.trace_flags.sampled == expected.trace_flags.sampled
    assert parent.is_remote
    if len(tracestate) <= MAX_TRACESTATE:
        assert parent.trace_state.to_header() == expected.trace_state.to_header()
        assert malformed == []
    else:
        assert (parent.trace_state.to_header(), malformed) == ("", ["tracestate"])


def variants() -> Iterator[bytes]:
    good = PARENT[1]
    for index in range(len(good)):
        yield good[:index] + good[index + 1 :]
        for wrong in (b"-", b"g", b"A", b"\xff", b"0"):
            yield good[:index] + wrong + good[index + 1 :]
    yield good.upper()
    yield b"ff" + good[2:]
    yield good + b"-00"
    yield b"01" + good[2:] + b"-what-comes-later"
    yield b"01" + good[2:] + b"."
    yield b"00-" + b"0" * 32 + good[35:]
    yield good[:36] + b"0" * 16 + good[52:]


@pytest.mark.parametrize("header", list(variants()), ids=repr)
def test_a_changed_traceparent_is_read_or_refused_as_opentelemetry_does(header: bytes) -> None:
    parent, _, malformed = read((b"traceparent", header))
    expected = standard(header.decode("latin-1"))
    assert (parent is not None) is expected.is_valid
    assert malformed == ([] if parent is not None else ["traceparent"])
    if parent is not None:
        assert (parent.trace_id, parent.span_id) == (expected.trace_id, expected.span_id)


def test_two_traceparents_are_none() -> None:
    parent, _, malformed = read(PARENT, PARENT)
    assert (parent, malformed) == (None, ["traceparent"])


@given(st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"baggage"]), hostile)))
@example([PARENT, (b"tracestate", b"=")])
@example([PARENT, (b"tracestate", b"a=1,a=2")])
@example([(b"baggage", b"=,;,a=b;=,\xff")])
@pytest.mark.usefixtures("_silence")
def test_hostile_headers_neither_raise_nor_log(headers: list[tuple[bytes, bytes]]) -> None:
    read(*headers)
    extract_configured(headers, lambda _: None)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_traceparent_or_none(value: bytes) -> None:
    parent = parse_traceparent(value, [], lambda _: None)
    assert parent is None or parent.is_valid


@pytest.mark.usefixtures("_silence")
@pytest.mark.parametrize(
    "states",
    [
        [b"a=1,a=2"],
        [b"a=1", b"a=2"],
        [b"A=1"],
        [b"a"],
        [b"a="],
        [b"=1"],
        [b"a=1,b"],
        [b"a=1=2"],
        [b"a=\xff"],
        [b"a=\x01"],
        [b"1a=1"],
        [b"a=" + b"x" * 257],
        [",".join(f"k{n}=1" for n in range(33)).encode()],
        [b"a=" + b"x" * 200] * 3,
    ],
)
def test_a_bad_tracestate_is_dropped_and_counted_and_the_parent_stays(states: list[bytes]) -> None:
    parent, _, malformed = read(PARENT, *((b"tracestate", state) for state in states))
    assert parent is not None
    assert parent.trace_state == TraceState()
    assert malformed == ["tracestate"]


def test_members_of_several_tracestate_headers_are_joined_in_order() -> None:
    parent, _, malformed = read(PARENT, (b"tracestate", b"b=2 , ,"), (b"tracestate", b"\ta=1"))
    assert parent is not None
    assert parent.trace_state.to_header() == "b=2,a=1"
    assert malformed == []


def test_the_tracestate_limit_holds_over_all_headers() -> None:
    fits = b"a=" + b"x" * 254, b"b=" + b"x" * 253
    parent, _, malformed = read(PARENT, *((b"tracestate", state) for state in fits))
    assert parent is not None
    assert len(parent.trace_state) == 2
    assert malformed == []


def bags(*values: bytes) -> tuple[dict[str, object], list[str]]:
    _, context, malformed = read(*((b"baggage", value) for value in values))
    return dict(baggage.get_all(context) if context is not None else {}), malformed


@pytest.mark.usefixtures("_silence")
def test_baggage_is_read() -> None:
    found, malformed = bags(b"user=ann, tenant = a%20b;ttl=3", b"plan=pro")
    assert found["user"] == "ann"
    assert found["plan"] == "pro"
    assert str(found["tenant"]).startswith("a b")
    assert malformed == []


@pytest.mark.usefixtures("_silence")
@pytest.mark.parametrize(
    "bad", [b"b", b"=1", b"b=\xc3\xa9", b"b=a b", b'b="', b"b@=1", b"b=1;;", b"b=" + b"x" * 4_096]
)
def test_a_bad_member_of_baggage_does_not_spoil_the_others(bad: bytes) -> None:
    assert bags(b"a=1," + bad + b",c=3") == ({"a": "1", "c": "3"}, ["baggage"])


@pytest.mark.usefixtures("_silence")
def test_baggage_beyond_its_limit_is_not_even_looked_at() -> None:
    assert bags(b"a=1", b"b=" + b"x" * MAX_BAGGAGE) == ({}, ["baggage"])
    assert bags(b"a=" + b"x" * 3_000, b"b=" + b"x" * 3_000, b"c=" + b"x" * 3_000) == (
        {},
        ["baggage"],
    )


@pytest.mark.usefixtures("_silence")
def test_baggage_of_too_many_members_is_cut() -> None:
    found, malformed = bags(",".join(f"k{n}=1" for n in range(200)).encode())
    assert (len(found), malformed) == (180, ["baggage"])


def test_nothing_is_quadratic_in_a_hostile_header() -> None:
    calls: list[str] = []
    for value in (b"a=" + b" " * 8_000 + b"b", b";" * 8_000, b"=" * 8_000, b"," * 8_000):
        bags(value)
        read(PARENT, (b"tracestate", value))
        calls.append("read")
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("named", "only"),
    [
        (None, True),
        ("tracecontext,baggage", True),
        (" baggage , tracecontext ", True),
        ("b3", False),
        ("tracecontext", False),
        ("tracecontext,baggage,b3", False),
    ],
)
def test_the_short_path_is_for_w3c_alone(
    named: str | None,
    only: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OTEL_PROPAGATORS", raising=False)
    if named is not None:
        monkeypatch.setenv("OTEL_PROPAGATORS", named)
    assert uses_w3c_only() is only


@pytest.mark.usefixtures("_silence")
@pytest.mark.parametrize("extract", [extract_w3c, extract_configured])
def test_both_paths_read_the_same(
    extract: Callable[..., tuple[SpanContext | None, Context | None]],
) -> None:
    headers = [PARENT, (b"tracestate", b"a=1"), (b"baggage", b"user=ann")]
    parent, context = extract(headers, lambda _: None)
    assert parent is not None
    assert f"{parent.trace_id:032x}" == TRACE_ID
    assert parent.trace_state.to_header() == "a=1"
    assert baggage.get_all(context) == {"user": "ann"}


@pytest.mark.usefixtures("_silence")
def test_the_configured_path_holds_the_same_limits() -> None:
    malformed: list[str] = []
    headers = [PARENT, (b"tracestate", b"A=1"), (b"baggage", b"bad,user=ann")]
    parent, context = extract_configured(headers, malformed.append)
    assert parent is not None
    assert not parent.trace_state
    assert baggage.get_all(context) == {"user": "ann"}
    assert malformed == ["tracestate", "baggage"]


def test_a_propagator_that_raises_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Context:
        raise RuntimeError("hostile")

    monkeypatch.setattr(propagate, "extract", broken)
    malformed: list[str] = []
    assert extract_configured([PARENT], malformed.append) == (None, None)
    assert malformed == ["propagation"]


def test_another_propagator_is_shown_no_header_beyond_the_limit() -> None:
    long = (b"b3", b"x" * (MAX_OTHER_HEADER + 1))
    getter = propagation._getter
    assert getter.get([long], "b3") is None
    assert getter.get([(b"b3", b"x")], "B3") == ["x"]
    assert getter.keys([long]) == ["b3"]
