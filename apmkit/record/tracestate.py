"""The `ot` member of tracestate: the sampling threshold.

As OpenTelemetry's probability sampling has it: `th:` and up to 14 hexadecimal digits of a 56-bit
number, trailing zeros left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import TraceState

RANDOM_BITS = 56
RANDOM_MASK = (1 << RANDOM_BITS) - 1
_DIGITS = RANDOM_BITS // 4


def threshold_of(probability: float) -> int:
    """Return the rejection threshold: traces whose low 56 bits are at least this are sampled."""
    return min(round((1 - probability) * (1 << RANDOM_BITS)), RANDOM_MASK)


def with_threshold(state: TraceState, threshold: int) -> TraceState:
    """Return `state` with `ot=th:…` first; other fields of the `ot` member stay."""
    digits = f"{threshold:0{_DIGITS}x}".rstrip("0") or "0"
    others = [
        field for field in state.get("ot", "").split(";") if field and not field.startswith("th:")
    ]
    return state.update("ot", ";".join([f"th:{digits}", *others]))
