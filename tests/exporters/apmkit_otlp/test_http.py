"""OTLP over HTTP, against real servers on this machine."""

from __future__ import annotations

import contextlib
import gzip
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from apmkit.relay.export import Delivered, Outcome, Refused, Retry
from apmkit_otlp.exporter import OtlpExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

REQUEST = b"\x0a\x02abc" * 1_000


class Backend(ThreadingHTTPServer):
    """A backend that answers what the test says and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.requests: list[tuple[str, Mapping[str, str], bytes]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def handle_error(self, *_: object) -> None:
        """Stay quiet: some tests hang up in the middle of an answer."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[Backend]:
    with serving(Backend()) as server:
        yield server


@contextlib.contextmanager
def serving(server: Backend) -> Iterator[Backend]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def exporter(endpoint: str, **environ: str) -> Iterator[OtlpExporter]:
    variables = {f"OTEL_EXPORTER_OTLP_{key}": value for key, value in environ.items()}
    with contextlib.closing(OtlpExporter(endpoint, variables, pytest.fail)) as made:
        yield made


@contextlib.contextmanager
def raw_server(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[str]:
    """Serve one connection with `answer`, which gets the socket after the request arrived."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                with contextlib.suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def export(url: str, timeout: float = 10.0) -> Outcome:
    with exporter(url) as made:
        return made.export("traces", REQUEST, timeout)


def test_a_request_arrives_as_it_was_given(backend: Backend) -> None:
    with exporter(backend.url, HEADERS="api-key=k%20y") as made:
        assert made.export("traces", REQUEST, 10) == Delivered()
        assert made.export("metrics", b"points", 10) == Delivered()

    (traces, headers, body), (metrics, _, points) = backend.requests
    assert (traces, metrics) == ("/v1/traces", "/v1/metrics")
    assert (body, points) == (REQUEST, b"points")
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["api-key"] == "k y"
    assert "content-encoding" not in headers


def test_one_connection_carries_all_requests_of_a_signal(backend: Backend) -> None:
    with exporter(backend.url) as made:
        for _ in range(5):
            assert made.export("traces", REQUEST, 10) == Delivered()

    assert backend.connections == 1


def test_a_connection_that_the_backend_closed_is_opened_again(backend: Backend) -> None:
    backend.headers = {"connection": "close"}
    with exporter(backend.url) as made:
        for _ in range(3):
            assert made.export("traces", REQUEST, 10) == Delivered()

    assert backend.connections == 3


def test_a_backend_that_restarts_is_found_again() -> None:
    def once(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with raw_server(once) as url:
        made = OtlpExporter(url, {}, pytest.fail)
        assert made.export("traces", b"first", 10) == Delivered()
    assert isinstance(made.export("traces", b"second", 10), Retry)
    with raw_server(once, int(url.rpartition(":")[2])):
        assert made.export("traces", b"second", 10) == Delivered()
    made.close()


def test_gzip_is_used_when_asked_for(backend: Backend) -> None:
    with exporter(backend.url, COMPRESSION="gzip") as made:
        assert made.export("traces", REQUEST, 10) == Delivered()

    ((_, headers, body),) = backend.requests
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == REQUEST


def test_what_the_backend_rejected_is_counted(backend: Backend) -> None:
    backend.body = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    ).SerializeToString()

    assert export(backend.url) == Delivered(2, "too old")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_backend_is_tried_again_when_it_says(backend: Backend, status: int) -> None:
    backend.status, backend.headers = status, {"retry-after": "17"}

    outcome = export(backend.url)

    assert outcome == Retry(f"HTTP {status}", after=17.0)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 413, 500, 501])
def test_any_other_status_is_final_and_no_redirect_is_followed(
    backend: Backend, status: int
) -> None:
    backend.status, backend.body = status, b"no\nthank you"
    backend.headers = {"location": f"{backend.url}/elsewhere", "retry-after": "1"}

    assert export(backend.url) == Refused(f"HTTP {status}: no thank you")
    assert len(backend.requests) == 1


def test_no_server_means_try_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    outcome = export(f"http://127.0.0.1:{port}")

    assert isinstance(outcome, Retry)
    assert outcome.reason.startswith(f"127.0.0.1:{port} failed")


def test_a_server_that_never_answers_holds_an_export_no_longer_than_its_timeout() -> None:
    released = threading.Event()
    with raw_server(lambda _: assert_set(released)) as url:
        started = time.monotonic()
        outcome = export(url, timeout=0.3)
        elapsed = time.monotonic() - started
        released.set()

    assert isinstance(outcome, Retry)
    assert "no whole answer within 0.3 s" in outcome.reason
    assert 0.3 <= elapsed < 2


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["body", "headers", "body without a length"],
)
def test_a_server_that_drips_holds_an_export_no_longer_than_its_timeout(start: bytes) -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(start)
        while not ended.wait(0.05):
            connection.sendall(b"x")

    with raw_server(drip) as url:
        started = time.monotonic()
        outcome = export(url, timeout=0.4)
        elapsed = time.monotonic() - started
        ended.set()

    assert isinstance(outcome, Retry)
    assert "no whole answer within 0.4 s" in outcome.reason
    assert elapsed < 2


def test_a_server_that_reads_nothing_holds_an_export_no_longer_than_its_timeout() -> None:
    released = threading.Event()
    with raw_server(lambda _: assert_set(released)) as url, exporter(url) as made:
        outcome = made.export("traces", bytes(64_000_000), 0.4)
        released.set()

    assert isinstance(outcome, Retry)


def test_an_endless_response_is_read_to_64_kib() -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(bytes(65_536))

    with raw_server(flood) as url, exporter(url) as made:
        outcome = made.export("traces", b"spans", 10)
        closed = made._senders["traces"]._connection.sock is None  # type: ignore[union-attr]

    assert outcome == Delivered()
    assert closed
    # What went out beyond the 64 KiB filled the buffers of the two sockets.
    assert sent < 32_000_000


def test_a_large_error_page_is_cut_to_a_line(backend: Backend) -> None:
    backend.status, backend.body = 400, b"x" * 10_000_000

    outcome = export(backend.url)

    assert outcome == Refused("HTTP 400: " + "x" * 200)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"\xff" * 99,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n",
    ],
    ids=["nothing", "another protocol", "cut off", "noise", "bad chunk", "too many headers"],
)
def test_an_answer_that_is_no_http_is_tried_again(nonsense: bytes) -> None:
    with raw_server(lambda connection: connection.sendall(nonsense)) as url:
        assert isinstance(export(url), Retry)


def test_a_refusal_before_the_body_was_read_is_seen() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1_000_000):
            pass

    with raw_server(refuse) as url, exporter(url) as made:
        assert made.export("traces", bytes(8_000_000), 10) == Refused("HTTP 413")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `server.pem` and `client.pem`, each a key and its own certificate."""
    if shutil.which("openssl") is None:
        reason = "no openssl on PATH, which makes the certificates"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client"):
        pem, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        subprocess.run(
            shlex.split(
                "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost "
                "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
                f"-keyout {shlex.quote(str(key))} -out {shlex.quote(str(pem))}"
            ),
            check=True,
            capture_output=True,
        )
        pem.write_text(pem.read_text() + key.read_text())
    return folder


@contextlib.contextmanager
def tls_backend(certificates: Path) -> Iterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem")
    context.load_verify_locations(certificates / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = Backend()
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    with serving(server):
        yield server.url.replace("http:", "https:")


def test_tls_checks_the_server_and_shows_the_clients_certificate(certificates: Path) -> None:
    client = str(certificates / "client.pem")
    with tls_backend(certificates) as url:
        with exporter(
            url, CERTIFICATE=str(certificates / "server.pem"), CLIENT_CERTIFICATE=client
        ) as made:
            assert made.export("traces", REQUEST, 10) == Delivered()
            assert made.export("traces", REQUEST, 10) == Delivered()
        with exporter(url, CLIENT_CERTIFICATE=client) as made:
            outcome = made.export("traces", REQUEST, 10)

    assert isinstance(outcome, Retry)
    assert "certificate verify failed" in outcome.reason


def test_a_variables_timeout_bounds_an_export_too() -> None:
    released = threading.Event()
    with raw_server(lambda _: assert_set(released)) as url, exporter(url, TIMEOUT="200") as made:
        outcome = made.export("traces", REQUEST, 60)
        released.set()

    assert isinstance(outcome, Retry)
    assert "within 0.2 s" in outcome.reason


def assert_set(event: threading.Event) -> None:
    assert event.wait(30)
