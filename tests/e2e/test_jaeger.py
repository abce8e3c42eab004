"""One request of the quickstart, as a real Jaeger shows it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.e2e.conftest import Jaeger

Span = dict[str, Any]

_NAME = "GET /products/{product_id}"
_TOO_LARGE = 1 << 63
"""A product that SQLite cannot be asked for: the quickstart fails with a real error."""


@pytest.fixture(params=["http/protobuf", "grpc"])
def shop(request: pytest.FixtureRequest, jaeger: Jaeger, tmp_path: Path) -> Iterator[str]:
    """The URL of the quickstart, which exports to Jaeger over each protocol in turn."""
    endpoints = {"http/protobuf": jaeger.otlp_http, "grpc": jaeger.otlp_grpc}
    env = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": request.param,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[request.param],
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with servers.uvicorn("examples.quickstart.app:app", tmp_path / "app.log", env) as server:
        yield server.url


class Caller:
    """The service that calls: the test chooses its trace and its span."""

    def __init__(self) -> None:
        self.trace_id = secrets.token_hex(16)
        self.span_id = secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}


def trace_of(caller: Caller, spans: int, jaeger: Jaeger, http: httpx.Client) -> dict[str, Any]:
    """Return the trace as Jaeger's query API shows it, as soon as it has that many spans."""

    def whole() -> dict[str, Any] | None:
        answer = http.get(f"{jaeger.query}/api/traces/{caller.trace_id}").json()
        for trace in answer["data"] or ():
            if len(trace["spans"]) >= spans:
                return dict(trace)
        return None

    return servers.eventually(whole, f"trace {caller.trace_id} with {spans} spans in Jaeger")


def by_name(trace: dict[str, Any]) -> dict[str, Span]:
    spans = {span["operationName"]: span for span in trace["spans"]}
    assert len(spans) == len(trace["spans"])
    return spans


def tags(span: Span) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def parent_of(span: Span) -> str:
    (reference,) = span["references"]
    assert reference["refType"] == "CHILD_OF"
    return str(reference["spanID"])


def test_a_request_is_shown_whole(shop: str, jaeger: Jaeger, http: httpx.Client) -> None:
    caller = Caller()
    assert http.get(f"{shop}/products/1", headers=caller.headers).json() == {"name": "lamp"}

    spans = by_name(trace_of(caller, 4, jaeger, http))

    assert sorted(spans) == [_NAME, "SELECT product", "get products", "set products"]
    root = spans.pop(_NAME)
    assert parent_of(root) == caller.span_id
    end = root["startTime"] + root["duration"]
    for span in spans.values():
        assert parent_of(span) == root["spanID"]
        # Jaeger cuts nanoseconds to microseconds, start and duration apart.
        assert root["startTime"] <= span["startTime"]
        assert span["startTime"] + span["duration"] <= end + 1


def test_a_request_has_the_attributes_of_the_semantic_conventions(
    shop: str, jaeger: Jaeger, http: httpx.Client
) -> None:
    caller = Caller()
    http.get(f"{shop}/products/2?page=2", headers=caller.headers)

    trace = trace_of(caller, 4, jaeger, http)

    spans = {name: tags(span) for name, span in by_name(trace).items()}
    server = spans[_NAME]
    assert server["span.kind"] == "server"
    assert server["http.request.method"] == "GET"
    assert server["http.route"] == "/products/{product_id}"
    assert server["http.response.status_code"] == 200
    assert server["url.path"] == "/products/2"
    assert server["url.query"] == "page=2"
    assert server["url.scheme"] == "http"
    assert server["network.protocol.version"] == "1.1"
    assert server["client.address"] == "127.0.0.1"
    assert server["server.address"] == "127.0.0.1"
    assert server["server.port"] == int(shop.rpartition(":")[2])
    assert server["user_agent.original"].startswith("python-httpx/")
    assert not server.keys() & {"error", "error.type"}
    query = spans["SELECT product"]
    assert query["span.kind"] == "client"
    assert query["db.system.name"] == "sqlite"
    assert query["db.operation.name"] == "SELECT"
    assert query["db.collection.name"] == "product"
    assert query["db.query.summary"] == "SELECT product"
    assert query["db.query.text"] == "SELECT name FROM product WHERE id = ?"
    lookup = spans["get products"]
    assert lookup["cache.name"] == "products"
    assert lookup["cache.operation"] == "get"
    assert lookup["cache.hit"] is False
    assert "cache.hit" not in spans["set products"]
    (process,) = trace["processes"].values()
    assert process["serviceName"] == "shop"
    resource = {tag["key"]: tag["value"] for tag in process["tags"]}
    assert resource["deployment.environment.name"] == "test"
    assert resource["telemetry.sdk.name"] == "apmkit"
    assert resource["telemetry.sdk.language"] == "python"


def test_the_next_request_finds_the_product_in_the_cache(
    shop: str, jaeger: Jaeger, http: httpx.Client
) -> None:
    http.get(f"{shop}/products/1")
    caller = Caller()
    http.get(f"{shop}/products/1", headers=caller.headers)

    spans = by_name(trace_of(caller, 2, jaeger, http))

    assert sorted(spans) == [_NAME, "get products"]
    assert tags(spans["get products"])["cache.hit"] is True


def test_a_failed_request_has_the_error_and_the_exception(
    shop: str, jaeger: Jaeger, http: httpx.Client
) -> None:
    caller = Caller()
    answer = http.get(f"{shop}/products/{_TOO_LARGE}", headers=caller.headers)
    assert answer.status_code == 500

    spans = by_name(trace_of(caller, 3, jaeger, http))

    assert sorted(spans) == [_NAME, "SELECT product", "get products"]
    root, query = spans[_NAME], spans["SELECT product"]
    assert parent_of(root) == caller.span_id
    assert parent_of(query) == root["spanID"]
    attributes = tags(root)
    assert attributes["error"] is True
    assert attributes["otel.status_code"] == "ERROR"
    assert attributes["http.response.status_code"] == 500
    assert attributes["error.type"] == "500"
    assert tags(query)["error"] is True
    assert tags(query)["error.type"] == "OverflowError"
    assert "error" not in tags(spans["get products"])
    (event,) = [{field["key"]: field["value"] for field in log["fields"]} for log in root["logs"]]
    assert event["event"] == "exception"
    assert event["exception.type"] == "OverflowError"
    assert "too large" in event["exception.message"]
    assert "in product" in event["exception.stacktrace"]
