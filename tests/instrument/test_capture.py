"""Captured headers: which, under which name, and with what replaced."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS as SANITIZE,
)
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST as REQUEST,
)
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE as RESPONSE,
)
from starlette.responses import PlainTextResponse

from apmkit.instrument.capture import HeaderCapture, decoded
from tests.instrument.driving import Recorder, drive, http_scope

HEADERS = [
    (b"x-shop", b"north"),
    (b"x-shop", b"south"),
    (b"X-Upper", b"1"),
    (b"x-name", b"caf\xe9"),
]


def captured() -> dict[str, object]:
    recorder = Recorder()
    app = recorder.around(PlainTextResponse("ok", headers={"x-answer": "42"}))
    asyncio.run(drive(app, http_scope(headers=HEADERS)))
    return {key: value for key, value in recorder.request().attributes.items() if ".header." in key}


def test_no_header_is_captured_by_itself() -> None:
    assert not HeaderCapture().active
    assert captured() == {}


def test_repeated_headers_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUEST, "x-shop")
    assert captured() == {"http.request.header.x_shop": ["north", "south"]}


def test_names_are_patterns_and_case_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUEST, "X-U.*,x-name")
    assert captured() == {
        "http.request.header.x_upper": ["1"],
        "http.request.header.x_name": ["café"],
    }


def test_response_headers_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESPONSE, "x-answer")
    assert captured() == {"http.response.header.x_answer": ["42"]}


def test_sanitized_fields_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUEST, "x-.*")
    monkeypatch.setenv(SANITIZE, "x-shop")
    assert captured()["http.request.header.x_shop"] == ["[REDACTED]", "[REDACTED]"]


def test_what_the_application_set_itself_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUEST, "x-shop")
    recorder = Recorder()
    span = recorder.provider.get_tracer("test").start_span("span")
    span.set_attribute("http.request.header.x_shop", "mine")
    HeaderCapture().request(span, HEADERS)
    assert span.attributes == {"http.request.header.x_shop": "mine"}


@pytest.mark.parametrize(
    ("value", "text"), [(b"caf\xc3\xa9", "café"), (b"caf\xe9", "café"), (b"", "")]
)
def test_header_text_is_utf_8_or_latin_1(value: bytes, text: str) -> None:
    assert decoded(value) == text
