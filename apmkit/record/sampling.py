"""Which traces are kept: a budget of kept traces a second, errors and slow ones besides.

The head decides by a probability that follows the traffic, by trace identifier, so that every
service of a trace that uses the same probability decides alike. The tail may still keep what the
head did not: an error or a slow request, within a budget of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from opentelemetry.context.context import Context

from apmkit.record import clock
from apmkit.record.tracestate import RANDOM_MASK, threshold_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler as StandardSampler
    from opentelemetry.sdk.trace.sampling import SamplingResult
    from opentelemetry.trace import SpanContext, SpanKind

_SECOND = 1_000_000_000


class Sampler(Protocol):
    """Decides at the head, and again at the tail for traces that the head did not sample."""

    @property
    def threshold(self) -> int | None:
        """Traces whose low 56 bits lie below it are not sampled; None if that is not how."""
        ...

    def head(self, trace_id: int, now: int) -> bool:
        """Tell whether to sample a trace that starts here; `now` is monotonic nanoseconds."""
        ...

    def decide(self, parent: SpanContext, trace_id: int, name: str, kind: SpanKind) -> bool:
        """Tell whether to sample a trace whose parent is in another service."""
        ...

    def tail(self, *, error: bool, slow: bool) -> bool:
        """Tell whether to keep an unsampled trace that has just ended."""
        ...


class BudgetSampler:
    """Keeps about `budget` traces a second, and as many errors and slow ones besides.

    Args:
        budget: kept traces a second; `float("inf")` keeps all, 0 none.

    Attributes:
        threshold: traces whose low 56 bits lie below it are not sampled.
    """

    __slots__ = (
        "_exceptions",
        "_exceptions_end",
        "_left",
        "_rate",
        "_seen",
        "_window_end",
        "_window_start",
        "budget",
        "threshold",
    )

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.threshold: int | None = 0
        self._left = self._exceptions = self._refilled(1.0 if budget else 0.0)
        self._exceptions_end = 0
        self._seen = 0
        self._rate = 0.0
        self._window_start = 0
        self._window_end = 0

    def head(self, trace_id: int, now: int) -> bool:
        """Sample by the trace identifier while the second's budget lasts."""
        if now >= self._window_end:
            self._adapt(now)
        self._seen += 1
        if (trace_id & RANDOM_MASK) < (self.threshold or 0) or self._left < 1:
            return False
        self._left -= 1
        return True

    def decide(self, parent: SpanContext, trace_id: int, name: str, kind: SpanKind) -> bool:  # noqa: ARG002
        """Do as upstream did, so that traces are whole."""
        return parent.trace_flags.sampled

    def tail(self, *, error: bool, slow: bool) -> bool:
        """Keep an error or a slow trace while the second's budget for them lasts."""
        if not (error or slow):
            return False
        # A clock of its own: where upstream decides on every trace, `head` is never asked.
        now = clock.now()
        if now >= self._exceptions_end:
            late = (now - self._exceptions_end) // _SECOND if self._exceptions_end else 0
            self._exceptions = self._refilled(self._exceptions, 1 + late)
            self._exceptions_end = now + _SECOND
        if self._exceptions < 1:
            return False
        self._exceptions -= 1
        return True

    def _adapt(self, now: int) -> None:
        """Start a new second; let the probability follow the rate of the last ones."""
        seconds = 1.0
        if self._window_start:
            seconds = (now - self._window_start) / _SECOND
            rate = self._seen / seconds
            # Up at once, down slowly: a burst must not overrun the budget twice.
            self._rate = max(rate, (self._rate + rate) / 2)
        if self._rate > self.budget and not math.isinf(self.budget):
            self.threshold = threshold_of(self.budget / self._rate)
        else:
            self.threshold = 0
        self._seen = 0
        self._left = self._refilled(self._left, seconds)
        self._window_start = now
        self._window_end = now + _SECOND

    def _refilled(self, left: float, seconds: float = 1.0) -> float:
        """Return what may be kept in the next second; a budget below 1 is saved up."""
        budget = self.budget
        return budget if budget >= 1 else min(left + budget * seconds, 1.0)


class StandardHead:
    """Gives the decision to a sampler of OpenTelemetry's SDK (`OTEL_TRACES_SAMPLER`)."""

    threshold = None

    def __init__(self, sampler: StandardSampler) -> None:
        self._sampler = sampler

    def head(self, trace_id: int, now: int) -> bool:  # noqa: ARG002 - the time does not matter here
        """Ask the sampler about a root without parent."""
        return _is_sampled(self._sampler.should_sample(Context(), trace_id, ""))

    def decide(self, parent: SpanContext, trace_id: int, name: str, kind: SpanKind) -> bool:
        """Ask the sampler about a root whose parent is in another service."""
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        context = set_span_in_context(NonRecordingSpan(parent))
        return _is_sampled(self._sampler.should_sample(context, trace_id, name, kind))

    def tail(self, *, error: bool, slow: bool) -> bool:  # noqa: ARG002 - the head's word is final
        """Keep nothing that the head did not sample."""
        return False


def _is_sampled(result: SamplingResult) -> bool:
    # What the SDK means by Decision.is_sampled, which it leaves untyped: RECORD_AND_SAMPLE.
    return result.decision.name == "RECORD_AND_SAMPLE"
