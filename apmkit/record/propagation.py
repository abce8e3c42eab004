"""Trace context and baggage from request headers, with limits that hold before anything is built.

W3C headers take a short path. Where `OTEL_PROPAGATORS` names others, `opentelemetry.propagate`
reads them all.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context
from opentelemetry.environment_variables import OTEL_PROPAGATORS
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanContext, TraceFlags, TraceState, get_current_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    HeaderList = Sequence[tuple[bytes, bytes]]

TRACE_HEADERS = frozenset({b"traceparent", b"tracestate", b"baggage"})

MAX_TRACESTATE = 512
"""Bytes over all tracestate headers (what W3C Trace Context asks everybody to carry)."""
MAX_BAGGAGE = 8_192
"""Bytes over all baggage headers (the limit of W3C Baggage)."""
MAX_TRACESTATE_MEMBERS = 32
MAX_BAGGAGE_MEMBERS = 180
MAX_BAGGAGE_MEMBER = 4_096
"""Bytes of one member."""
MAX_OTHER_HEADER = 8_192
"""Bytes of one header that another propagator is shown."""

_TRACEPARENT_LENGTH = 55
_HEXADECIMAL = frozenset(b"0123456789abcdef")
_STATE_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)
_TOKEN = re.compile(r"[!#-'*+.^-z|~0-9A-Z-]+")
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_NO_STATE = TraceState()
_baggage = W3CBaggagePropagator()


def uses_w3c_only() -> bool:
    """Tell whether the short path does what `OTEL_PROPAGATORS` asks for."""
    names = {
        name.strip() for name in os.environ.get(OTEL_PROPAGATORS, "tracecontext,baggage").split(",")
    }
    return names == {"tracecontext", "baggage"}


def extract_w3c(
    headers: HeaderList, malformed: Callable[[str], None]
) -> tuple[SpanContext | None, Context | None]:
    """Read traceparent, tracestate and baggage.

    Args:
        headers: of an ASGI scope (names in lower case).
        malformed: told the name of a header that could not be read; the request goes on.

    Returns:
        The remote parent, or None, and a context that holds the baggage, or None.
    """
    parents: list[bytes] = []
    states: list[bytes] = []
    bags: list[bytes] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
        elif name == b"baggage":
            bags.append(value)
    parent = None
    if parents:
        parent = parse_traceparent(parents[0], states, malformed) if len(parents) == 1 else None
        if parent is None:
            malformed("traceparent")
    return parent, (_extract_baggage(bags, malformed) if bags else None)


def parse_traceparent(
    value: bytes, states: Sequence[bytes], malformed: Callable[[str], None]
) -> SpanContext | None:
    """Read one traceparent header (W3C Trace Context, section 3.2); None if it is not one."""
    version = value[:2]
    if len(value) != _TRACEPARENT_LENGTH and not (
        len(value) > _TRACEPARENT_LENGTH and version != b"00" and value[55:56] == b"-"
    ):
        return None
    trace_id, span_id, flags = value[3:35], value[36:52], value[53:55]
    if (value[2:3] + value[35:36] + value[52:53]) != b"---" or version == b"ff":
        return None
    if not _HEXADECIMAL.issuperset(version + trace_id + span_id + flags):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if not trace or not span:
        return None
    state = _parse_tracestate(states, malformed) if states else _NO_STATE
    sampled = _SAMPLED if int(flags, 16) & 1 else _NOT_SAMPLED
    return SpanContext(trace, span, is_remote=True, trace_flags=sampled, trace_state=state)


# OpenTelemetry's own readers log a warning for each bad member, which lets any client write to the
# log: only what they will take is shown to them.


def _parse_tracestate(states: Sequence[bytes], malformed: Callable[[str], None]) -> TraceState:
    header = _valid_tracestate(states, malformed)
    return TraceState.from_header([header]) if header else _NO_STATE


def _valid_tracestate(states: Sequence[bytes], malformed: Callable[[str], None]) -> str:
    """Return all members as one header, or nothing if one is bad, as W3C Trace Context asks."""
    found: dict[str, str] = {}
    if sum(map(len, states)) <= MAX_TRACESTATE:
        members = b",".join(states).decode("latin-1").split(",")
        present = [member for member in (member.strip(" \t") for member in members) if member]
        found = {m.partition("=")[0]: m for m in present if _STATE_MEMBER.fullmatch(m)}
        if len(found) == len(present) <= MAX_TRACESTATE_MEMBERS:
            return ",".join(present)
    malformed("tracestate")
    return ""


def _extract_baggage(bags: Sequence[bytes], malformed: Callable[[str], None]) -> Context | None:
    header = _valid_baggage(bags, malformed)
    if not header:
        return None
    return _baggage.extract({"baggage": [header]}, Context()) or None


def _valid_baggage(bags: Sequence[bytes], malformed: Callable[[str], None]) -> str:
    """Return the good members as one header; a bad one does not spoil the others."""
    if sum(map(len, bags)) > MAX_BAGGAGE:
        malformed("baggage")
        return ""
    members = b",".join(bags).decode("latin-1").split(",")
    present = [member for member in (member.strip(" \t") for member in members) if member]
    valid = [member for member in present if _is_baggage_member(member)][:MAX_BAGGAGE_MEMBERS]
    if len(valid) < len(present):
        malformed("baggage")
    return ",".join(valid)


def _is_baggage_member(member: str) -> bool:
    if len(member) > MAX_BAGGAGE_MEMBER:
        return False
    pair, *properties = (part.strip(" \t") for part in member.split(";"))
    return _is_pair(pair) and all(_is_pair(p) or _TOKEN.fullmatch(p) for p in properties)


def _is_pair(text: str) -> bool:
    key, equals, value = text.partition("=")
    return bool(
        equals and _TOKEN.fullmatch(key.rstrip(" \t")) and _VALUE.fullmatch(value.lstrip(" \t"))
    )


class _HeaderGetter(Getter["HeaderList"]):
    def get(self, carrier: HeaderList, key: str) -> list[str] | None:
        name = key.lower().encode("latin-1")
        found = [
            v.decode("latin-1") for k, v in carrier if k == name and len(v) <= MAX_OTHER_HEADER
        ]
        return found or None

    def keys(self, carrier: HeaderList) -> list[str]:
        return [key.decode("latin-1") for key, _ in carrier]


_getter = _HeaderGetter()


def _cleaned(headers: HeaderList, malformed: Callable[[str], None]) -> HeaderList:
    """Return the headers with what is bad in tracestate and baggage left out."""
    states = [value for name, value in headers if name == b"tracestate"]
    bags = [value for name, value in headers if name == b"baggage"]
    others = [pair for pair in headers if pair[0] not in {b"tracestate", b"baggage"}]
    if states:
        others.append((b"tracestate", _valid_tracestate(states, malformed).encode("ascii")))
    if bags:
        others.append((b"baggage", _valid_baggage(bags, malformed).encode("ascii")))
    return others


def extract_configured(
    headers: HeaderList, malformed: Callable[[str], None]
) -> tuple[SpanContext | None, Context | None]:
    """Read what the propagators of `OTEL_PROPAGATORS` read, to the same result as `extract_w3c`."""
    try:
        context = propagate.extract(_cleaned(headers, malformed), Context(), getter=_getter)
    except Exception:  # noqa: BLE001 - a propagator from anywhere, fed by anybody
        malformed("propagation")
        return None, None
    parent = get_current_span(context).get_span_context()
    return (parent if parent.is_valid else None), (context or None)
