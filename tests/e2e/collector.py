"""An OTLP/HTTP collector in a process of its own that tells which spans it has got.

`python -m tests.e2e.collector PORT` answers; with `silent` behind the port it reads every request
and never answers one.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(BaseHTTPRequestHandler):
    """Takes exports at /v1/…, shows the spans at /spans, the number of exports at /exports."""

    protocol_version = "HTTP/1.1"
    # One write a response: headers and body apart would wait for the client's delayed ACK.
    wbufsize = -1

    silent: ClassVar[bool] = False
    exports: ClassVar[list[str]] = []
    spans: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.exports.append(self.path)
        if self.silent:
            threading.Event().wait()
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.spans.extend(spans_in(body))
        self._answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:
        shown = self.spans if self.path == "/spans" else self.exports
        self._answer(json.dumps(shown).encode(), "application/json")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
        """Stay silent."""

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def spans_in(body: bytes) -> list[dict[str, str]]:
    """Return name, trace and service of each span; raises DecodeError when it is not OTLP."""
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        names = {a.key: a.value.string_value for a in resource.resource.attributes}
        found += [
            {
                "name": span.name,
                "trace_id": span.trace_id.hex(),
                "service": names["service.name"],
                "outcome": next(
                    (a.value.string_value for a in span.attributes if a.key.endswith("outcome")), ""
                ),
                "links": str(len(span.links)),
            }
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    return found


def main() -> None:
    """Serve until the process is ended."""
    Collector.silent = "silent" in sys.argv
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
