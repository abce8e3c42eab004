"""apmkit says of a request what OpenTelemetry's middleware says, but for declared differences."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.util.http import get_excluded_urls

from tests.instrument.driving import Recorder, drive
from tests.instrument.equivalence_cases import CASES, Case, fresh_scope, incoming
from tests.instrument.equivalence_differences import DIFFERENCES

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.instrument.asgi_types import Application, Receive, Scope, Send

Seen = dict[str, Any]
"""What was recorded of a request: "span url.path", "duration http.route" and so on, to values."""

_HISTOGRAMS = {
    "http.server.request.duration": "duration",
    "http.server.request.body.size": "request size",
    "http.server.response.body.size": "response size",
}


@pytest.fixture(autouse=True)
def _stable_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    monkeypatch.setattr(_OpenTelemetrySemanticConventionStability, "_initialized", False)


def run(app: Application, case: Case) -> Seen:
    """Run a case; return what was raised into the server that the case did not raise itself."""
    try:
        asyncio.run(drive(app, fresh_scope(case), incoming(case)))
    except LookupError:  # the cases' own
        return {}
    except Exception as error:  # noqa: BLE001 - whatever a middleware adds is a finding
        return {"raised": type(error).__name__}
    return {}


def with_reading(
    app: Application, read_active: Callable[[], list[dict[str, Any]]], seen: Seen
) -> Application:
    """Read the active requests while the application runs."""

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        for labels in read_active():
            seen.update({f"active {key}": value for key, value in labels.items()})
        await app(scope, receive, send)

    return reading


def seen_by_opentelemetry(case: Case) -> Seen:
    spans, reader, seen = InMemorySpanExporter(), InMemoryMetricReader(), Seen()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([reader])

    def points() -> list[tuple[str, Any]]:
        data = reader.get_metrics_data()
        return [
            (metric.name, point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def read_active() -> list[dict[str, Any]]:
        return [
            dict(point.attributes)
            for name, point in points()
            if name == "http.server.active_requests"
        ]

    app = OpenTelemetryMiddleware(
        with_reading(case.app, read_active, seen),
        excluded_urls=get_excluded_urls("ASGI"),
        tracer_provider=provider,
        meter_provider=meters,
        exclude_spans=["send", "receive"],
    )
    seen.update(run(app, case))
    for span in spans.get_finished_spans():
        assert span.kind is SpanKind.SERVER
        seen.update({"span name": span.name, "span status": span.status.status_code.name.lower()})
        seen["span events"] = [event.name for event in span.events]
        for key, value in (span.attributes or {}).items():
            seen[f"span {key}"] = list(value) if isinstance(value, tuple) else value
    for name, point in points():
        if isinstance(point, HistogramDataPoint):
            _add_histogram(
                seen, _HISTOGRAMS[name], dict(point.attributes or {}), point.count, point.sum
            )
    return seen


def seen_by_apmkit(case: Case) -> Seen:
    recorder, seen = Recorder(), Seen()
    app = with_reading(case.app, lambda: list(recorder.labels("http.server.active_requests")), seen)
    seen.update(run(recorder.around(app), case))
    for span in recorder.requests():
        seen.update({"span name": span.name, "span status": span.status})
        seen["span events"] = [event.name for event in span.events]
        seen.update({f"span {key}": value for key, value in span.attributes.items()})
    for name, short in _HISTOGRAMS.items():
        for point in recorder.points(name):
            _add_histogram(seen, short, dict(point.attributes), sum(point.counts), point.sum)
    return seen


def _add_histogram(seen: Seen, name: str, labels: dict[str, Any], count: int, total: float) -> None:
    assert f"{name} count" not in seen, "one request makes one series"
    seen.update({f"{name} {key}": value for key, value in labels.items()})
    seen[f"{name} count"] = count
    if name != "duration":
        seen[f"{name} sum"] = total


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_is_described_alike(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in case.environment:
        monkeypatch.setenv(name, value)
    theirs, ours = seen_by_opentelemetry(case), seen_by_apmkit(case)
    differing = {key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)}
    explained = {}
    for name in case.differs:
        explained[name] = {
            key for key in differing if DIFFERENCES[name].explains(key, theirs, ours)
        }
    undeclared = differing - set[str]().union(*explained.values())
    assert {key: (theirs.get(key), ours.get(key)) for key in undeclared} == {}
    assert [name for name, keys in explained.items() if not keys] == [], (
        "declared, but it no longer occurs"
    )


def test_there_are_at_least_forty_cases_with_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_every_declared_difference_is_shown_by_a_case() -> None:
    assert {name for case in CASES for name in case.differs} == set(DIFFERENCES)


def test_every_difference_is_argued_in_the_documentation(pytestconfig: pytest.Config) -> None:
    page = (pytestconfig.rootpath / "docs" / "differences.md").read_text(encoding="utf-8")
    assert [name for name in DIFFERENCES if f"### {name[0].upper()}{name[1:]}\n" not in page] == []
