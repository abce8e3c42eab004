"""OTLP over gRPC, against a real gRPC server on this machine."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from apmkit.relay.export import Delivered, Refused, Retry
from apmkit_otlp.exporter import OtlpExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRACES = ExportTraceServiceRequest(resource_spans=[ResourceSpans(schema_url="s" * 5_000)])


class Traces(TraceServiceServicer):
    """Answers as the test says and keeps what it was sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.metadata: dict[str, str | bytes] = {}
        self.answer: Callable[[grpc.ServicerContext], ExportTraceServiceResponse] = lambda _: (
            ExportTraceServiceResponse()
        )

    def Export(  # noqa: N802 - the name that gRPC calls
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        return self.answer(context)


class Metrics(MetricsServiceServicer):
    """Rejects five points of every request."""

    def Export(  # noqa: N802 - the name that gRPC calls
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        del request, context
        partial = ExportMetricsPartialSuccess(rejected_data_points=5, error_message="stale")
        return ExportMetricsServiceResponse(partial_success=partial)


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def endpoint(traces: Traces) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(traces, server)  # type: ignore[no-untyped-call]
    add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@contextlib.contextmanager
def exporter(endpoint: str, **environ: str) -> Iterator[OtlpExporter]:
    variables = {f"OTEL_EXPORTER_OTLP_{key}": value for key, value in environ.items()}
    variables["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
    with contextlib.closing(OtlpExporter(endpoint, variables, pytest.fail)) as made:
        yield made


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_request_arrives_as_it_was_given(endpoint: str, traces: Traces, compression: str) -> None:
    with exporter(endpoint, HEADERS="Api-Key=k%20y", COMPRESSION=compression) as made:
        assert made.export("traces", TRACES.SerializeToString(), 10) == Delivered()

    assert traces.requests == [TRACES]
    assert traces.metadata["api-key"] == "k y"


def test_rejected_spans_and_points_are_counted(endpoint: str, traces: Traces) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    traces.answer = lambda _: ExportTraceServiceResponse(partial_success=partial)

    with exporter(endpoint) as made:
        assert made.export("traces", b"", 10) == Delivered(2, "too old")
        assert made.export("metrics", b"", 10) == Delivered(5, "stale")


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:], ids=str)
def test_status_codes_mean_what_the_specification_says(
    endpoint: str, traces: Traces, code: grpc.StatusCode
) -> None:
    retryable = {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
    traces.answer = lambda context: context.abort(code, "no\nthank you")

    with exporter(endpoint) as made:
        outcome = made.export("traces", b"", 10)

    reason = f"gRPC {code.name}: no thank you"
    assert outcome == (Retry(reason) if code in retryable else Refused(reason))


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
def test_a_busy_backend_is_tried_again_when_it_says(
    endpoint: str, traces: Traces, code: grpc.StatusCode
) -> None:
    info, detail = RetryInfo(), Any()
    info.retry_delay.seconds = 17
    detail.Pack(info)
    status = Status(code=code.value[0], details=[detail]).SerializeToString()

    def busy(context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(code, "busy")

    traces.answer = busy
    with exporter(endpoint) as made:
        assert made.export("traces", b"", 10) == Retry(f"gRPC {code.name}: busy", 17.0)


def test_a_server_that_never_answers_holds_an_export_no_longer_than_its_timeout(
    endpoint: str, traces: Traces
) -> None:
    released = threading.Event()

    def wait(_: grpc.ServicerContext) -> ExportTraceServiceResponse:
        released.wait(30)
        return ExportTraceServiceResponse()

    traces.answer = wait
    with exporter(endpoint) as made:
        started = time.monotonic()
        outcome = made.export("traces", b"", 0.3)
        elapsed = time.monotonic() - started
    released.set()

    assert isinstance(outcome, Retry)
    assert outcome.reason.startswith("gRPC DEADLINE_EXCEEDED")
    assert elapsed < 3


def test_a_response_over_64_kib_is_not_read(endpoint: str, traces: Traces) -> None:
    partial = ExportTracePartialSuccess(error_message="x" * 70_000)
    traces.answer = lambda _: ExportTraceServiceResponse(partial_success=partial)

    with exporter(endpoint) as made:
        outcome = made.export("traces", b"", 10)

    assert isinstance(outcome, Refused)
    assert "larger than max" in outcome.reason


def test_no_server_means_try_again() -> None:
    with exporter("http://127.0.0.1:1") as made:
        assert isinstance(made.export("traces", b"", 5), Retry)


def test_without_the_package_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)

    with pytest.raises(RuntimeError, match=r"pip install 'apmkit\[grpc\]'"), exporter("http://c:1"):
        pass


def test_http_needs_no_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)

    OtlpExporter("http://c:1", {}, pytest.fail).close()
