"""Traces on the wire, against the messages of opentelemetry-proto."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from apmkit.record import clock
from apmkit.record.call import Call, record_call
from apmkit.record.faults import Faults
from apmkit.record.metrics import Metrics
from apmkit.record.sampling import BudgetSampler
from apmkit.record.shared import Shared
from apmkit.record.tracer import SCOPE, Tracer, TracerProvider
from apmkit.relay import wire
from apmkit.relay.redact import REDACTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

    from apmkit.record.span import Span
    from apmkit.record.trace import Trace

SECOND = 1_000_000_000


class Encoded:
    """A sink that encodes what it is handed, as the relay does."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:
        self.payloads.append(wire.encode(trace, root, open_until))

    def resource_spans(self, resource: Mapping[str, Any] | None = None) -> ResourceSpans:
        request = wire.request(wire.resource_prefix(resource or {}), self.payloads)
        (found,) = ExportTraceServiceRequest.FromString(request).resource_spans
        return found

    def spans(self) -> list[Message]:
        return [span for scope in self.resource_spans().scope_spans for span in scope.spans]

    def span(self) -> Message:
        (span,) = self.spans()
        return span


class Bench:
    """A tracer provider whose every trace is encoded."""

    def __init__(self) -> None:
        self.encoded = Encoded()
        self.metrics = Metrics()
        sampler = BudgetSampler(float("inf"))
        self.provider = TracerProvider(sampler, self.encoded, Faults(self.metrics))

    def root(self, name: str = "root", parent: SpanContext | None = None) -> Span:
        return self.provider.start_root(name, SpanKind.SERVER, clock.now(), parent)

    def call(self, name: str = "SELECT", attributes: Mapping[str, Any] | None = None) -> Call:
        histogram = self.metrics.histogram("db", "s", boundaries=(0.001, 0.01))
        return Call(self.provider, histogram, name, attributes or {}, {})

    def tracer(self, name: str = "library", version: str | None = "1.0") -> Tracer:
        return self.provider.get_tracer(name, version)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def plain(value: AnyValue) -> Any:  # noqa: ANN401 - any value of OTLP
    which = value.WhichOneof("value")
    if which == "array_value":
        return [plain(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, which) if which else None


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    listed = list(pairs)
    found = {pair.key: plain(pair.value) for pair in listed}
    assert len(found) == len(listed), "a key is on the wire twice"
    return found


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.map(lambda text: f"k.{text}")
values: st.SearchStrategy[Any] = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=10),
    st.lists(texts, max_size=3),
    st.lists(st.integers(-9, 9), max_size=3),
    st.lists(st.floats(allow_nan=False), max_size=3),
    st.lists(st.booleans(), max_size=3),
)
# Secrets are for test_redact.py: these keys never sound like one.
attributes = st.dictionaries(st.sampled_from([f"key {n}" for n in range(6)]), values, max_size=5)
contexts = st.builds(
    lambda trace_id, span_id: SpanContext(trace_id, span_id, is_remote=True),
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
)
statuses = st.sampled_from(list(StatusCode))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    name=texts,
    kind=st.sampled_from(list(SpanKind)),
    own=attributes,
    events=st.lists(st.tuples(texts, attributes), max_size=3),
    links=st.lists(st.tuples(contexts, attributes), max_size=3),
    status=statuses,
    scope=st.tuples(texts, texts),
)
def test_a_span_arrives_whole(
    name: str,
    kind: SpanKind,
    own: dict[str, Any],
    events: list[tuple[str, dict[str, Any]]],
    links: list[tuple[SpanContext, dict[str, Any]]],
    status: StatusCode,
    scope: tuple[str, str],
) -> None:
    bench = Bench()
    before = clock.wall_offset() + clock.now()
    span = bench.tracer(*scope).start_span(name, Context(), kind, own)
    for event, details in events:
        span.add_event(event, details)
    for context, details in links:
        span.add_link(context, details)
    span.set_status(status, "because")
    span.end()
    (scope_spans,) = bench.encoded.resource_spans().scope_spans
    (found,) = scope_spans.spans
    assert (scope_spans.scope.name, scope_spans.scope.version) == scope
    assert found.trace_id == span.trace.trace_id.to_bytes(16, "big")
    assert found.span_id == span.span_id.to_bytes(8, "big")
    assert found.parent_span_id == b""
    assert found.name == name
    assert Message.SpanKind.Name(found.kind) == f"SPAN_KIND_{kind.name}"
    assert attributes_of(found.attributes) == own
    assert [(e.name, attributes_of(e.attributes)) for e in found.events] == events
    assert all(e.time_unix_nano >= before - SECOND for e in found.events)
    expected = [(c.trace_id.to_bytes(16, "big"), c.span_id.to_bytes(8, "big"), a) for c, a in links]
    assert [(k.trace_id, k.span_id, attributes_of(k.attributes)) for k in found.links] == expected
    assert StatusMessage.StatusCode.Name(found.status.code) == f"STATUS_CODE_{status.name}"
    assert found.status.message == ("because" if status is StatusCode.ERROR else "")
    assert before - SECOND < found.start_time_unix_nano <= found.end_time_unix_nano


def test_times_are_unix_times_and_exact_in_their_distance(bench: Bench) -> None:
    root = bench.provider.start_root("root", SpanKind.SERVER, clock.now() - 5 * SECOND)
    root.end()
    found = bench.encoded.span()
    assert found.end_time_unix_nano - found.start_time_unix_nano == root.end_time - root.start
    offset = clock.wall_offset()
    assert abs(found.end_time_unix_nano - root.end_time - offset) < SECOND


def test_parents_arrive(bench: Bench) -> None:
    root = bench.root()
    one = bench.provider.start_span("one", root, SpanKind.INTERNAL, clock.now(), SCOPE)
    two = bench.provider.start_span("two", one, SpanKind.INTERNAL, clock.now(), SCOPE)
    for span in (two, one, root):
        span.end()
    found = {span.name: span for span in bench.encoded.spans()}
    assert found["root"].parent_span_id == b""
    assert found["one"].parent_span_id == found["root"].span_id
    assert found["two"].parent_span_id == found["one"].span_id
    assert len({span.trace_id for span in found.values()}) == 1


def test_a_remote_parent_and_its_tracestate_arrive(bench: Bench) -> None:
    state = TraceState.from_header(["ot=th:8,vendor=x"])
    parent = SpanContext(
        0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=state
    )
    bench.root(parent=parent).end()
    found = bench.encoded.span()
    assert found.trace_id == (0xABC).to_bytes(16, "big")
    assert found.parent_span_id == (0xDEF).to_bytes(8, "big")
    assert found.trace_state == "ot=th:8,vendor=x"


def test_a_call_arrives_as_a_span_under_its_caller(bench: Bench) -> None:
    call = bench.call("SELECT users", {"db.system.name": "sqlite", "rows": 3})
    with bench.tracer().start_as_current_span("root", Context()) as root:
        end = clock.now()
        record_call(call, end - 5_000_000, end)
        record_call(call, end - 7_000_000, end)
    first, second, _ = bench.encoded.spans()
    for found, duration in ((first, 5_000_000), (second, 7_000_000)):
        assert found.name == "SELECT users"
        assert found.kind == Message.SPAN_KIND_CLIENT
        assert found.trace_id == root.trace.trace_id.to_bytes(16, "big")
        assert found.parent_span_id == root.span_id.to_bytes(8, "big")
        assert attributes_of(found.attributes) == {"db.system.name": "sqlite", "rows": 3}
        assert found.end_time_unix_nano - found.start_time_unix_nano == duration
    assert len({first.span_id, second.span_id, b"\x00" * 8}) == 3


def test_a_failed_call_arrives_with_its_error(bench: Bench) -> None:
    call = bench.call()
    with bench.tracer().start_as_current_span("root", Context()):
        record_call(call, 0, 5_000_000, ValueError("broken"), {"own": 1})
    found = bench.encoded.spans()[0]
    assert attributes_of(found.attributes) == {"own": 1, "error.type": "ValueError"}
    assert found.status.code == StatusMessage.STATUS_CODE_ERROR
    assert found.status.message == "ValueError: broken"


def test_a_call_outside_every_trace_arrives_without_parent(bench: Bench) -> None:
    bench.provider.late_call((bench.call(), None, 0, 1_000, None, None, bench.call().series, 0))
    found = bench.encoded.span()
    assert found.parent_span_id == b""
    assert found.name == "SELECT"
    assert found.trace_id != b"\x00" * 16


def test_a_kept_call_is_the_exemplar_of_its_bucket(bench: Bench) -> None:
    call = bench.call()
    with bench.tracer().start_as_current_span("root", Context()):
        end = clock.now()
        record_call(call, end - 5_000_000, end)
    found = bench.encoded.spans()[0]
    ((bucket, (value, at, trace_id, span_id)),) = call.series.exemplars.items()
    assert bucket == 1
    assert value == pytest.approx(0.005)
    assert at == found.end_time_unix_nano
    assert trace_id.to_bytes(16, "big") == found.trace_id
    assert span_id.to_bytes(8, "big") == found.span_id


def test_a_dropped_call_is_nobodys_exemplar() -> None:
    metrics = Metrics()
    provider = TracerProvider(BudgetSampler(0), Encoded(), Faults(metrics))
    call = Call(provider, metrics.histogram("db"), "SELECT", {}, {})
    with provider.get_tracer("library").start_as_current_span("root", Context()):
        record_call(call, 0, 5_000_000)
    assert call.series.exemplars == {}


def test_spans_are_grouped_by_scope(bench: Bench) -> None:
    root = bench.root()
    for scope in ("b", "a", "b"):
        span = bench.provider.start_span(
            f"of {scope}", root, SpanKind.INTERNAL, clock.now(), (scope, "")
        )
        span.end()
    root.end()
    groups = bench.encoded.resource_spans().scope_spans
    found = [(group.scope.name, [span.name for span in group.spans]) for group in groups]
    assert found == [("apmkit", ["root"]), ("b", ["of b", "of b"]), ("a", ["of a"])]


def test_shared_parts_and_own_attributes_join(bench: Bench) -> None:
    root = bench.root("ignored")
    first = Shared("GET /orders", SpanKind.SERVER, {"http.route": "/orders"})
    root.shared = (first, Shared("", SpanKind.SERVER, {"url.scheme": "http"}))
    root.set_attribute("own", 1)
    root.end()
    found = bench.encoded.span()
    assert (found.name, found.kind) == ("GET /orders", Message.SPAN_KIND_SERVER)
    assert attributes_of(found.attributes) == {
        "http.route": "/orders",
        "url.scheme": "http",
        "own": 1,
    }


def test_an_open_root_is_marked(bench: Bench) -> None:
    root = bench.root()
    now = root.start + 61 * SECOND
    bench.provider.store_long_open(now)
    found = bench.encoded.span()
    assert attributes_of(found.attributes) == {"apmkit.span.open": True}
    assert found.end_time_unix_nano - found.start_time_unix_nano == 61 * SECOND
    root.end()
    first, second = bench.encoded.spans()
    assert first.span_id == second.span_id
    assert attributes_of(second.attributes) == {}


def test_a_root_tells_how_many_spans_its_trace_had_no_room_for(bench: Bench) -> None:
    root = bench.root()
    for _ in range(1_100):
        bench.provider.start_span("child", root, SpanKind.INTERNAL, clock.now(), SCOPE).end()
    root.end()
    *children, found = bench.encoded.spans()
    assert len(children) == 999
    assert attributes_of(found.attributes) == {"apmkit.dropped_spans": 101}


def test_a_large_trace_gives_way_as_it_is_encoded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bench.root()
    for _ in range(100):
        bench.provider.start_span("child", root, SpanKind.INTERNAL, clock.now(), SCOPE).end()
    ticks = iter(range(10**6))
    root.end_time = clock.now()
    monkeypatch.setattr(clock, "now", lambda: next(ticks) * 100_000)
    turns: list[None] = []
    payload = wire.encode(root.trace, root, 0, lambda: turns.append(None))
    assert len(turns) >= 10
    bench.encoded.payloads.append(payload)
    assert len(bench.encoded.spans()) == 101


def test_several_traces_are_one_request_under_one_resource(bench: Bench) -> None:
    bench.root("one").end()
    bench.root("two").end()
    found = bench.encoded.resource_spans({"service.name": "shop", "process.pid": 7})
    assert attributes_of(found.resource.attributes) == {"service.name": "shop", "process.pid": 7}
    assert [span.name for scope in found.scope_spans for span in scope.spans] == ["one", "two"]


@pytest.mark.parametrize("bad", ["\ud800", "a\udfffb", "\udcff\udcfe"])
def test_lone_surrogates_spoil_nothing(bad: str, bench: Bench) -> None:
    tracer = bench.tracer(bad, bad)
    span = tracer.start_span(bad, Context(), attributes={bad: bad})
    span.add_event(bad, {bad: [bad]})
    span.set_status(StatusCode.ERROR, bad)
    span.end()
    expected = bad.encode("utf-8", "replace").decode()
    found = bench.encoded.span()
    assert found.name == expected
    assert attributes_of(found.attributes) == {expected: expected}
    assert found.status.message == expected


def test_equal_values_of_different_types_keep_their_types(bench: Bench) -> None:
    for value in (1, 1.0, True, "1", 0, 0.0, False, -0.0):
        span = bench.tracer().start_span("span", Context(), attributes={"n": value})
        span.end()
    found = [attributes_of(span.attributes)["n"] for span in bench.encoded.spans()]
    assert [(type(n), str(n)) for n in found] == [
        (int, "1"),
        (float, "1.0"),
        (bool, "True"),
        (str, "1"),
        (int, "0"),
        (float, "0.0"),
        (bool, "False"),
        (float, "-0.0"),
    ]


def test_none_is_left_out(bench: Bench) -> None:
    attributes: dict[str, Any] = {"a": None, "b": 1}
    bench.tracer().start_span("span", Context(), attributes=attributes).end()
    assert attributes_of(bench.encoded.span().attributes) == {"b": 1}


def test_more_different_values_than_are_remembered_all_arrive() -> None:
    attributes = {f"key {n}": f"value {n}" for n in range(10_000)}
    encoded = wire.encode_attributes(attributes, b"\x4a")
    assert attributes_of(Message.FromString(encoded).attributes) == attributes
    assert len(wire._texts) <= 4_096
    assert wire.encode_attributes(attributes, b"\x4a") == encoded


def test_long_texts_are_cut_and_not_remembered() -> None:
    encoded = wire.encode_attributes({"long": "x" * 1_000_000}, b"\x4a")
    assert attributes_of(Message.FromString(encoded).attributes) == {"long": "x" * 16_384}
    assert max(sys.getsizeof(key[2]) for key in wire._texts) < 2_000


def redacted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    encoded = wire.encode_attributes(attributes, b"\x4a")
    assert b"hunter2" not in encoded
    return attributes_of(Message.FromString(encoded).attributes)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("user.password", "hunter2", REDACTED),
        ("http.request.header.authorization", ["Bearer hunter2"], REDACTED),
        ("http.request.header.cookie", ("a=hunter2",), REDACTED),
        ("url.query", "a=1&token=hunter2", f"a=1&token={REDACTED}"),
        ("url.full", "https://ann:hunter2@h/?a=1", f"https://{REDACTED}@h/?a=1"),
        ("db.query.text", "SELECT 'hunter2'", "SELECT ?"),
        ("exception.message", "password=hunter2", f"password={REDACTED}"),
        ("http.request.header.baggage", ["user=1,token=hunter2"], [f"user=1,token={REDACTED}"]),
        ("http.request.header.referer", ["http://h/?sig=hunter2"], [f"http://h/?sig={REDACTED}"]),
    ],
)
def test_secrets_do_not_reach_the_wire(key: str, value: object, expected: object) -> None:
    assert redacted({key: value}) == {key: expected}


def test_a_secret_number_does_not_reach_the_wire() -> None:
    assert redacted({"api_key": 123456}) == {"api_key": REDACTED}


def test_secrets_of_exceptions_do_not_reach_the_wire(bench: Bench) -> None:
    @bench.tracer().start_as_current_span("root", Context())
    def sign_in() -> None:
        record_call(bench.call(), 0, 1, ValueError("token: hunter2"))
        raise ValueError("password=hunter2")

    with pytest.raises(ValueError, match="hunter2"):
        sign_in()
    leaf, root = bench.encoded.spans()
    assert leaf.status.message == f"ValueError: token: {REDACTED}"
    assert root.status.message == f"ValueError: password={REDACTED}"
    # The stack trace shows the line that raised, with the literal in it.
    assert b"hunter2" not in b"".join(bench.encoded.payloads)
