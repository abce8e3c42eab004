"""What the answers of OTLP backends mean."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, formatdate

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from apmkit.relay.export import Delivered
from apmkit_otlp.answer import (
    LONGEST_WAIT,
    read_delivered,
    read_retry_after,
    read_retry_delay,
    read_status_message,
)


def test_an_empty_response_is_full_success() -> None:
    assert read_delivered(b"") == Delivered()


def test_rejected_spans_and_points_are_counted_with_their_reason() -> None:
    spans = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    )
    points = ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(rejected_data_points=70_000)
    )

    assert read_delivered(spans.SerializeToString()) == Delivered(3, "too old")
    assert read_delivered(points.SerializeToString()) == Delivered(70_000)


def test_a_warning_without_rejections_is_kept() -> None:
    response = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(error_message="deprecated")
    )

    assert read_delivered(response.SerializeToString()) == Delivered(0, "deprecated")


def test_a_negative_or_malformed_count_rejects_nothing() -> None:
    negative = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=-1)
    )

    assert read_delivered(negative.SerializeToString()) == Delivered()
    assert read_delivered(b"\x0a\xff") == Delivered()
    assert read_delivered(b"{}") == Delivered()


def test_messages_of_backends_are_one_printable_line() -> None:
    body = Status(code=3, message="bad\r\n\x1b[31mspan" + "x" * 1_000).SerializeToString()

    message = read_status_message(body, "application/x-protobuf")

    assert message.startswith("bad [31mspanxxx")
    assert len(message) == 200
    assert (
        read_status_message(b"<h1>\xff</h1>", "text/html") == "<h1>\N{REPLACEMENT CHARACTER}</h1>"
    )
    assert read_status_message(b"\x0a\xff", "application/x-protobuf") == ""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9999999999999999999999", LONGEST_WAIT),
        ("-3", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Mon, 99 Foo 2020 99:99:99 GMT", None),
        (formatdate(0, usegmt=True), 0.0),
        (
            format_datetime(datetime.now(timezone.utc) + timedelta(days=9), usegmt=True),
            LONGEST_WAIT,
        ),
    ],
)
def test_retry_after_is_a_bounded_number_of_seconds(
    header: str | None, seconds: float | None
) -> None:
    assert read_retry_after(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    header = formatdate(time.time() + 100, usegmt=True)

    seconds = read_retry_after(header)

    assert seconds is not None
    assert 90 < seconds <= 100


def test_retry_info_is_found_among_the_details_of_a_status() -> None:
    info = RetryInfo()
    info.retry_delay.seconds = 2
    info.retry_delay.nanos = 500_000_000
    first, second = Any(), Any()
    first.Pack(Status(code=1))
    second.Pack(info)
    status = Status(code=8, message="busy", details=[first, second])

    assert read_retry_delay(status.SerializeToString()) == 2.5
    assert read_retry_delay(Status(code=8, details=[first]).SerializeToString()) is None
    assert read_retry_delay(b"\x1a\xff") is None
