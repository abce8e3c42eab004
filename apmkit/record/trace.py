"""What the spans of one request share, and how it ends: kept as bytes or freed there and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias

    from opentelemetry.trace import SpanContext
    from opentelemetry.util.types import AttributeValue

    from apmkit.record.metrics import HistogramSeries
    from apmkit.record.shared import Shared
    from apmkit.record.span import Span

MAX_SPANS = 1_000
"""Spans that one trace holds in this process; further ones are counted."""


Leaf: TypeAlias = (
    "tuple[Shared, Span | None, int, int, BaseException | None, dict[str, AttributeValue] | None,"
    " HistogramSeries, int]"
)
"""A finished database or cache call: what it is, under which span, start, end, what it raised,
attributes of its own, the series that counted it and the bucket. It becomes a span only if its
trace is kept; a plain tuple, because there are many.
"""

Entry: TypeAlias = "Span | Leaf"


class LateCalls(Protocol):
    """Who takes calls that end outside every open trace (the tracer provider)."""

    def late_call(self, entry: Leaf) -> None:
        """Take the call."""
        ...


class Follower(Protocol):
    """Work that goes on after its root has ended, a background task for instance."""

    def follow(self) -> Span:
        """Return the span of that work, started on first use."""
        ...


class Trace(list["Entry"]):
    """The finished spans of a local trace, and its state.

    A list, because appending to it is the one thing that happens often. `room` falls with every
    span; at 0 the trace takes the slow path: it is full, or its root has ended.
    """

    __slots__ = (
        "ended",
        "follower",
        "kept",
        "overflow",
        "parent",
        "room",
        "sampled",
        "threshold",
        "trace_id",
    )

    def __init__(
        self, trace_id: int, parent: SpanContext | None, threshold: int | None, *, sampled: bool
    ) -> None:
        self.trace_id = trace_id
        self.parent = parent
        self.sampled = sampled
        self.threshold = threshold
        self.room = MAX_SPANS - 1
        self.ended = False
        self.kept = False
        self.overflow = 0
        self.follower: Follower | None = None
