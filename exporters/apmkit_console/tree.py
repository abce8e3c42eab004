"""Spans as text: a tree for each trace, with durations, statuses and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from apmkit.relay.export import DecodedSpan, Value

    Paint = Callable[[str, str], str]

_BOLD, _DIM, _RED, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"
_MILLISECOND = 0.001
_MAX_VALUE = 80
# Deeper spans stay at this indentation; a terminal has no room for more.
_MAX_DEPTH = 24
_NAME_WIDTH = 48


def render(spans: Iterable[DecodedSpan], *, colour: bool = False) -> str:
    """Return the spans as one tree a trace, in the order in which the traces come.

    Args:
        spans: of any number of traces; a span whose parent is not among them begins a tree.
        colour: use the escape sequences of a terminal.

    Returns:
        Lines that each end with a line break; nothing in them but `colour` steers a terminal.

    Example:
        ```
        print(render(decode_traces(request)), end="")
        ```
    """
    traces: dict[str, list[DecodedSpan]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    paint = _paint if colour else _plain
    return "".join(f"{line}\n" for trace in traces.values() for line in _trace(trace, paint))


def _trace(spans: list[DecodedSpan], paint: Paint) -> Iterator[str]:
    service = spans[0].resource.get("service.name", "unknown_service")
    count = f"{len(spans)} span" + ("s" if len(spans) > 1 else "")
    yield paint(_BOLD, f"trace {spans[0].trace_id}") + f"  {_printable(service)}  {count}"
    for prefix, span in _walk(spans):
        yield _line(prefix, span, paint)
        for event in span.events:
            details = _details(event.attributes)
            offset = _duration(event.time_unix_nano - span.start_unix_nano)
            text = f"{' ' * len(prefix)}  * {_printable(event.name)} at {offset}{details}"
            yield paint(_DIM, text)


def _walk(spans: list[DecodedSpan]) -> Iterator[tuple[str, DecodedSpan]]:
    """Yield every span once with the tree's lines before it, parents first, by start time."""
    known = {span.span_id for span in spans}
    ordered = sorted(spans, key=lambda span: span.start_unix_nano)
    children: dict[str, list[DecodedSpan]] = {}
    for span in ordered:
        if span.parent_span_id in known:
            children.setdefault(span.parent_span_id, []).append(span)
    roots = [span for span in ordered if span.parent_span_id not in known]
    # A malformed trace may hold a circle of parents, which no root leads to.
    for top in (*roots, *ordered):
        stack = [("", "", top)]
        while stack:
            prefix, inner, span = stack.pop()
            if span.span_id not in known:
                continue
            known.discard(span.span_id)
            yield prefix, span
            below = children.get(span.span_id, [])
            for child in reversed(below):
                last = child is below[-1]
                deep = len(inner) >= 3 * _MAX_DEPTH
                branch = inner + ("└─ " if last else "├─ ")
                stack.append((branch, inner if deep else inner + ("   " if last else "│  "), child))


def _line(prefix: str, span: DecodedSpan, paint: Paint) -> str:
    name = _printable(span.name)
    gap = " " * max(_NAME_WIDTH - len(prefix) - len(name), 0)
    duration = _duration(span.end_unix_nano - span.start_unix_nano)
    status = ""
    if span.status == "error":
        message = f" {_printable(span.status_message)}" if span.status_message else ""
        status = "  " + paint(_RED, f"ERROR{message}")
    kind = "" if span.kind in {"internal", "unspecified"} else f"  {span.kind}"
    details = paint(_DIM, _details(span.attributes))
    return f"{prefix}{paint(_BOLD, name)}{gap}  {duration:>9}{kind}{status}{details}"


def _details(attributes: dict[str, Value]) -> str:
    return "".join(f"  {_printable(k)}={_printable(v)}" for k, v in attributes.items())


def _duration(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if abs(seconds) < _MILLISECOND:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.2f} ms" if abs(seconds) < 1 else f"{seconds:.2f} s"


def _printable(value: Value) -> str:
    """Return `value` on one line: what came with a request must not steer the terminal."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


def _paint(style: str, text: str) -> str:
    return f"{style}{text}{_RESET}" if text else text


def _plain(style: str, text: str) -> str:
    del style
    return text
