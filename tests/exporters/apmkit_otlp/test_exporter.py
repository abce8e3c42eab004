"""The OTLP exporter as the agent creates it."""

from __future__ import annotations

import pytest

from apmkit.relay.export import ExporterContext, Snapshot
from apmkit_otlp import create


def context(endpoint: str | None) -> ExporterContext:
    return ExporterContext({}, endpoint, lambda *_: Snapshot(0, 0, []), pytest.fail)


def test_both_signals_are_taken() -> None:
    made = create(context(None))

    assert made.signals == {"traces", "metrics"}
    made.close()


def test_the_environment_is_read_when_the_exporter_is_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_METRICS_PROTOCOL is 'http/json'"):
        create(context(None))

    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    made = create(context("http://collector:4318"))

    assert made.signals == {"traces"}
    made.close()
