"""The way of a kept trace out of the hot path: redacted, encoded, appended to the journal."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from apmkit.record import clock
from apmkit.record.trace import Trace
from apmkit.relay.wire import encode

if TYPE_CHECKING:
    from apmkit.record.faults import Faults
    from apmkit.record.span import Span
    from apmkit.relay.journal import Journal

LARGE_TRACE = 64
"""Spans; a larger trace is encoded by the agent's thread, in slices."""

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
        self._encoding = threading.Lock()
        self.kept = 0
        self.unencoded = 0

    @property
    def waiting(self) -> int:
        """Spans of large traces that are not encoded yet."""
        return sum(len(trace) + (root is not None) for trace, root, _ in list(self._large))

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:
        """Encode a kept trace on the caller's stack, or have a large one encoded later."""
        spans = len(trace) + (root is not None)
        self.kept += spans
        if self._journal is None:
            return
        try:
            if root is not None and root.describer is not None:
                # Also for a large trace: the server may reuse what describes its root.
                root.describer.describe(root)
            if spans <= LARGE_TRACE:
                self._journal.append(encode(trace, root, open_until), spans)
            else:
                self._encode_later(trace, root, open_until)
        except Exception as error:  # noqa: BLE001 - a span may hold anything an application gave it
            self.unencoded += spans
            self._faults.internal("relay.encode", error)

    def _encode_later(self, trace: Trace, root: Span | None, open_until: int) -> None:
        if len(self._large) >= _WAITING_LARGE_TRACES:
            spans = len(trace) + (root is not None)
            self.unencoded += spans
            return
        copy = Trace(trace.trace_id, trace.parent, trace.threshold, sampled=trace.sampled)
        copy.extend(trace)
        copy.overflow = trace.overflow
        self._large.append((copy, root, open_until))

    def encode_large(self) -> None:
        """Encode the large traces that wait; called by the agent's thread."""
        # `flush` and the agent's thread may both come here; each trace is written once.
        with self._encoding:
            while self._large and self._journal is not None:
                trace, root, open_until = self._large[0]
                spans = len(trace) + (root is not None)
                try:
                    self._journal.append(encode(trace, root, open_until, clock.give_way), spans)
                except Exception as error:  # noqa: BLE001 - a span may hold anything
                    self.unencoded += spans
                    self._faults.internal("relay.encode", error)
                finally:
                    # Counted as waiting until it is in the journal.
                    self._large.popleft()
