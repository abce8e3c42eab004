"""Which traces are kept: a budget of kept traces a second, errors and slow ones besides.

The head decides by a probability that follows the traffic, by trace identifier, so that every
service of a trace that uses the same probability decides alike. The tail may still keep what the
head did not: an error or a slow request, within a budget of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from apmkit.record.tracestate import RANDOM_MASK, threshold_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler as StandardSampler
    from opentelemetry.trace import SpanContext, SpanKind
    from opentelemetry.util.types import Attributes

_SECOND = 1_000_000_000


class Sampler(Protocol):
    """Decides at the head, and again at the tail for traces that the head did not sample."""

    threshold: int | None

    def head(self, trace_id: int, now: int) -> bool:
        """Tell whether to sample a trace that starts here; `now` is monotonic nanoseconds."""
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

    __slots__ = ("_exceptions", "_left", "_rate", "_seen", "_window_end", "_window_start", "budget", "threshold")

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.threshold: int | None = 0
        self._left = budget
        self._exceptions = budget
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

    def tail(self, *, error: bool, slow: bool) -> bool:
        """Keep an error or a slow trace while the second's budget for them lasts."""
        if not (error or slow) or self._exceptions < 1:
            return False
        self._exceptions -= 1
        return True

    def _adapt(self, now: int) -> None:
        """Start a new second; let the probability follow the rate of the last ones."""
        if self._window_start:
            rate = self._seen * _SECOND / (now - self._window_start)
            # Up at once, down slowly: a burst must not overrun the budget twice.
            self._rate = max(rate, (self._rate + rate) / 2)
        if self._rate > self.budget and not math.isinf(self.budget):
            self.threshold = threshold_of(self.budget / self._rate)
        else:
            self.threshold = 0
        self._seen = 0
        self._left = self._exceptions = self.budget
        self._window_start = now
        self._window_end = now + _SECOND


class StandardHead:
    """Gives the decision to a sampler of OpenTelemetry's SDK (`OTEL_TRACES_SAMPLER`)."""

    threshold = None

    def __init__(self, sampler: StandardSampler) -> None:
        self._sampler = sampler

    def head(self, trace_id: int, now: int) -> bool:  # noqa: ARG002 - the time does not matter here
        """Ask the sampler about a root without parent."""
        return self._sampler.should_sample(None, trace_id, "").decision.is_sampled()

    def decide(
        self, parent: SpanContext, trace_id: int, name: str, kind: SpanKind, attributes: Attributes
    ) -> bool:
        """Ask the sampler about a root whose parent is in another service."""
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context  # noqa: PLC0415

        context = set_span_in_context(NonRecordingSpan(parent))
        result = self._sampler.should_sample(context, trace_id, name, kind, attributes)
        return result.decision.is_sampled()

    def tail(self, *, error: bool, slow: bool) -> bool:  # noqa: ARG002 - the head's word is final
        """Keep nothing that the head did not sample."""
        return False
