"""A small OTLP/HTTP collector in its own process, so that every export ends at a real server."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

counts = {"exports": 0, "spans": 0, "points": 0}
_counting = threading.Lock()


class Collector(BaseHTTPRequestHandler):
    """Parses what arrives, counts it, and answers as OTLP prescribes."""

    protocol_version = "HTTP/1.1"
    # One write a response: headers and body apart would wait for the client's delayed ACK.
    wbufsize = -1

    def do_POST(self) -> None:
        """Accept an export of traces or metrics."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self._count("spans", spans_in(body))
            self._answer(ExportTraceServiceResponse().SerializeToString())
        elif self.path == "/v1/metrics":
            self._count("points", points_in(body))
            self._answer(ExportMetricsServiceResponse().SerializeToString())
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        """Answer /count with what has arrived so far, as JSON."""
        self._answer(json.dumps(counts).encode(), "application/json")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
        """Stay silent: one line a request would be noise in the benchmark's output."""

    def _count(self, kind: str, number: int) -> None:
        with _counting:
            counts["exports"] += 1
            counts[kind] += number

    def _answer(self, body: bytes, content_type: str = "application/x-protobuf") -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def spans_in(body: bytes) -> int:
    """Count the spans of an export; raises DecodeError when it is not OTLP."""
    export = ExportTraceServiceRequest.FromString(body)
    return sum(
        len(scope.spans) for resource in export.resource_spans for scope in resource.scope_spans
    )


def points_in(body: bytes) -> int:
    """Count the data points of an export; raises DecodeError when it is not OTLP."""
    export = ExportMetricsServiceRequest.FromString(body)
    return sum(
        len(getattr(metric, metric.WhichOneof("data") or "gauge").data_points)
        for resource in export.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def main() -> None:
    """Serve on a free port, print it, and end when standard input does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
