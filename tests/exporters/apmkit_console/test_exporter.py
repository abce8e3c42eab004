"""The exporter that prints traces."""

from __future__ import annotations

import io

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from apmkit.relay.export import Delivered, ExporterContext, Refused, Snapshot
from apmkit_console import ConsoleExporter, create

ROOT = Span(trace_id=b"t" * 16, span_id=b"r" * 8, name="GET /grüße")
CHILD = Span(trace_id=b"t" * 16, span_id=b"c" * 8, parent_span_id=b"r" * 8, name="SELECT")
REQUEST = ExportTraceServiceRequest(
    resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[ROOT, CHILD])])]
).SerializeToString()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_trace_is_printed_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    made = create(ExporterContext({}, None, lambda *_: Snapshot(0, 0, []), pytest.fail))

    assert made.signals == {"traces"}
    assert made.export("traces", REQUEST, 1) == Delivered()
    made.close()

    printed = capsys.readouterr().out
    assert "GET /grüße" in printed
    assert "└─ SELECT" in printed
    assert "\x1b" not in printed


def test_a_terminal_gets_colours() -> None:
    stream = Terminal()

    ConsoleExporter(stream).export("traces", REQUEST, 1)

    assert "\x1b[1mSELECT\x1b[0m" in stream.getvalue()


def test_a_stream_that_knows_ascii_alone_gets_question_marks() -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")

    assert ConsoleExporter(stream).export("traces", REQUEST, 1) == Delivered()

    assert b"GET /gr??e" in written.getvalue()
    assert b"?? SELECT" in written.getvalue()


def test_what_is_no_trace_request_is_refused() -> None:
    stream = io.StringIO()

    outcome = ConsoleExporter(stream).export("traces", b"\x0a\xff", 1)

    assert isinstance(outcome, Refused)
    assert "malformed protobuf" in outcome.reason
    assert stream.getvalue() == ""
