"""An exporter that remembers the slowest trace it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apmkit.relay.export import Delivered, decode_traces

if TYPE_CHECKING:
    from apmkit.relay.export import DecodedSpan, Outcome, Signal


class SlowestTrace:
    """Keeps one trace: that whose root took longest.

    Attributes:
        traces: how many traces came.
        spans: those of the slowest one, empty before the first came.
    """

    name = "demo"
    signals: frozenset[Signal] = frozenset({"traces"})

    def __init__(self) -> None:
        self.traces = 0
        self.spans: list[DecodedSpan] = []
        self._longest = -1

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
        """Look at the traces of `request`."""
        del signal, timeout
        decoded = decode_traces(request)
        for span in decoded:
            if span.parent_span_id:
                continue
            self.traces += 1
            duration = span.end_unix_nano - span.start_unix_nano
            if duration > self._longest:
                self._longest = duration
                self.spans = [other for other in decoded if other.trace_id == span.trace_id]
        return Delivered()

    def close(self) -> None:
        """Keep the trace: it is shown after the agent has stopped."""
