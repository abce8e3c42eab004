"""Span trees as text."""

from __future__ import annotations

from typing import Any

import pytest

from apmkit.relay.export import DecodedEvent, DecodedSpan
from apmkit_console import render


def span(
    name: str, span_id: str = "", parent: str = "", start: int = 0, **more: object
) -> DecodedSpan:
    fields: dict[str, Any] = {
        "trace_id": "ab" * 16,
        "span_id": span_id or name,
        "parent_span_id": parent,
        "trace_state": "",
        "name": name,
        "kind": "internal",
        "start_unix_nano": start,
        "end_unix_nano": start + 1_500_000,
        "attributes": {},
        "events": [],
        "links": [],
        "status": "unset",
        "status_message": "",
        "scope_name": "apmkit",
        "resource": {"service.name": "shop"},
    }
    return DecodedSpan(**{**fields, **more})


def names(text: str) -> list[str]:
    """Return the lines without durations and what follows."""
    return [line.partition("  ")[0].rstrip() for line in text.splitlines()[1:]]


def test_a_request_is_a_tree_by_parent_and_start() -> None:
    spans = [
        span("late", parent="root", start=30),
        span("deep", parent="early", start=20),
        span("root", kind="server"),
        span("early", parent="root", start=10),
        span("last", parent="late", start=40),
    ]

    assert [line[:9] for line in render(spans).splitlines()[1:]] == [
        "root     ",
        "├─ early ",
        "│  └─ dee",
        "└─ late  ",
        "   └─ las",
    ]


def test_a_line_says_what_a_reader_asks_first() -> None:
    text = render(
        [
            span(
                "GET /orders/{id}",
                kind="server",
                status="error",
                status_message="boom",
                attributes={"http.route": "/orders/{id}", "http.response.status_code": 500},
                events=[DecodedEvent("exception", 2_000, {"exception.type": "ValueError"})],
            )
        ]
    )

    assert text.splitlines() == [
        f"trace {'ab' * 16}  shop  1 span",
        (
            f"{'GET /orders/{id}':<48}    1.50 ms  server  ERROR boom"
            "  http.route=/orders/{id}  http.response.status_code=500"
        ),
        "  * exception at 2 µs  exception.type=ValueError",
    ]


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0, "0 µs"), (999_000, "999 µs"), (1_000_000, "1.00 ms"), (2_340_000_000, "2.34 s")],
)
def test_durations_have_the_unit_that_fits(nanoseconds: int, shown: str) -> None:
    assert shown in render([span("a", end_unix_nano=nanoseconds)])


def test_traces_are_apart_and_a_missing_parent_begins_a_tree() -> None:
    text = render([span("a", parent="elsewhere"), span("b", trace_id="cd" * 16), span("c")])

    assert [line for line in text.splitlines() if line.startswith("trace")] == [
        f"trace {'ab' * 16}  shop  2 spans",
        f"trace {'cd' * 16}  shop  1 span",
    ]


def test_a_circle_of_parents_is_shown_once() -> None:
    text = render([span("a", parent="b"), span("b", parent="a"), span("self", parent="self")])

    assert names(text) == ["a", "└─ b", "self"]


def test_a_chain_of_1000_spans_does_not_exhaust_the_stack_nor_the_width() -> None:
    spans = [span(f"s{n}", parent=f"s{n - 1}", start=n) for n in range(1_000)]

    lines = render(spans).splitlines()

    assert len(lines) == 1_001
    assert max(map(len, lines)) < 160


def test_what_came_with_a_request_cannot_steer_the_terminal() -> None:
    text = render(
        [span("a\x1b[2J\n", attributes={"url.path": "/\x1b]0;title\x07\r\u202e", "k": "x" * 500})]
    )

    assert text.replace("\n", "").isprintable()
    assert r"a\x1b[2J\n" in text
    assert text.count("\n") == 2
    assert "x" * 79 + "…" in text


def test_colours_are_there_when_asked_for() -> None:
    spans = [span("a", status="error")]

    assert "\x1b[31mERROR\x1b[0m" in render(spans, colour=True)
    assert "\x1b" not in render(spans)


def test_no_spans_are_no_text() -> None:
    assert render([]) == ""
