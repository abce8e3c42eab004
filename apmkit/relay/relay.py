"""The way of a kept trace: redacted, encoded, appended to the journal, delivered by the exporters."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from apmkit.record import clock
from apmkit.record.trace import Trace
from apmkit.relay.wire import TraceEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.record.faults import Faults
    from apmkit.record.span import Span
    from apmkit.relay.journal import Journal

LARGE_TRACE = 64
"""Spans; a larger trace is encoded by the agent's thread, in slices."""

_SLICE = 500_000
"""Nanoseconds of work off the request path before other threads get their turn."""

_WAITING_LARGE_TRACES = 64


class Relay:
    """Takes kept traces from the hot path.

    Args:
        journal: where encoded traces go; None if no exporter takes traces.
        faults: counts what goes wrong.

    Attributes:
        kept: spans of kept traces handed over so far.
        unencoded: spans of traces that were lost before the journal: too many large ones at
            once, or an error while encoding.
    """

    def __init__(self, journal: Journal | None, faults: Faults) -> None:
        self._journal = journal
        self._faults = faults
        self._large: deque[tuple[Trace, Span | None, int]] = deque()
        self.kept = 0
        self.unencoded = 0

    @property
    def waiting(self) -> int:
        """Spans of large traces that are not encoded yet."""
        return sum(len(trace) + (root is not None) for trace, root, _ in list(self._large))

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:
        """Encode a kept trace on the caller's stack, or have a large one encoded later."""
        self.kept += len(trace) + (root is not None)
        if self._journal is None:
            return
        if len(trace) <= LARGE_TRACE:
            self._write(trace, root, open_until)
            return
        if len(self._large) >= _WAITING_LARGE_TRACES:
            self.unencoded += len(trace) + (root is not None)
            return
        copy = Trace(trace.trace_id, trace.parent, trace.threshold, sampled=trace.sampled)
        copy.extend(trace)
        copy.overflow = trace.overflow
        if root is not None and root.describer is not None:
            # The scope that describes the root may be reused by the server: read it now.
            root.describer.describe(root)
            _attach_exemplar(root, clock.wall_offset())
        self._large.append((copy, root, open_until))

    def encode_large(self) -> None:
        """Encode the large traces that wait; called by the agent's thread."""
        while self._large:
            # Counted as waiting until it is in the journal.
            self._write(*self._large[0], pause=clock.give_way)
            self._large.popleft()

    def _write(
        self,
        trace: Trace,
        root: Span | None,
        open_until: int,
        pause: Callable[[], None] | None = None,
    ) -> None:
        spans = len(trace) + (root is not None)
        try:
            encoder = TraceEncoder(trace)
            if pause is None:
                for entry in trace:
                    encoder.add(entry)
            else:
                _add_in_slices(encoder, trace, pause)
            if root is not None:
                if root.describer is not None and pause is None:
                    root.describer.describe(root)
                    _attach_exemplar(root, encoder.wall_offset)
                encoder.add_span(root, root.end_time or open_until)
            payload = encoder.finish()
        except Exception as error:  # noqa: BLE001 - a span may hold anything an application gave it
            self.unencoded += spans
            self._faults.internal("relay.encode", error)
            return
        if self._journal is not None:
            self._journal.append(payload, spans)


def _add_in_slices(encoder: TraceEncoder, trace: Trace, pause: Callable[[], None]) -> None:
    turn = clock.now() + _SLICE
    for entry in trace:
        encoder.add(entry)
        if clock.now() > turn:
            pause()
            turn = clock.now() + _SLICE


def _attach_exemplar(root: Span, wall_offset: int) -> None:
    if root.describer is not None and root.end_time:
        value = (root.end_time - root.start) * 1e-9
        time = root.end_time + wall_offset
        root.describer.attach_exemplar((value, time, root.trace.trace_id, root.span_id))
