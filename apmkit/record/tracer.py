"""The OpenTelemetry tracing API on apmkit's spans: roots are decided on as they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import trace as trace_api
from opentelemetry.trace import SpanKind, StatusCode

from apmkit.record import clock
from apmkit.record.context import SPAN_KEY, get_context
from apmkit.record.current import CurrentSpan
from apmkit.record.identifiers import random_bits
from apmkit.record.span import Span
from apmkit.record.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import Attributes

    from apmkit.record.faults import Faults
    from apmkit.record.sampling import Sampler
    from apmkit.record.span import Describer
    from apmkit.record.trace import Entry, Leaf

SCOPE = ("apmkit", "")
"""The instrumentation scope of what apmkit records itself."""

_SECOND = 1_000_000_000
_LONGEST = 1e9
_OPEN_TOO_LONG = 60 * _SECOND


class Sink(Protocol):
    """Takes kept traces (the relay)."""

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:
        """Take the entries of `trace` and its root, if it has one here, and forget neither.

        `open_until` is set for a root that is still open: the time up to which it is described.
        """
        ...


class TracerProvider(trace_api.TracerProvider):
    """Starts roots, takes ended spans, keeps or frees traces.

    Args:
        sampler: decides which traces are kept.
        sink: takes the kept ones.
        faults: counts what goes wrong.
        slow_after: seconds after which a root counts as slow.

    Attributes:
        open: the roots that have not ended.
        calls: what `instrument` keeps of the clients of this agent, by client.
        unsampled: spans of the traces that were not kept.
        over_limit: spans that a kept trace did not have room for.
    """

    def __init__(
        self, sampler: Sampler, sink: Sink, faults: Faults, slow_after: float = 1.0
    ) -> None:
        self.sampler = sampler
        self.sink = sink
        self.faults = faults
        self.slow_after = int(min(slow_after, _LONGEST) * _SECOND)
        self.open: dict[Span, None] = {}
        self.calls: dict[Hashable, Any] = {}
        self.unsampled = 0
        self.over_limit = 0

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,  # noqa: ARG002 - the signature is OpenTelemetry's
        attributes: Attributes = None,  # noqa: ARG002 - the signature is OpenTelemetry's
    ) -> Tracer:
        """Return a tracer whose spans carry this instrumentation scope."""
        return Tracer(self, (instrumenting_module_name, instrumenting_library_version or ""))

    def start_root(
        self,
        name: str,
        kind: SpanKind,
        start: int,
        parent: SpanContext | None = None,
        scope: tuple[str, str] = SCOPE,
        describer: Describer | None = None,
    ) -> Span:
        """Start the first span of a trace in this process, with or without a remote parent."""
        sampler = self.sampler
        if parent is None:
            trace_id = random_bits(128) or 1
            sampled = sampler.head(trace_id, start)
            trace = Trace(trace_id, None, sampler.threshold, sampled=sampled)
        else:
            sampled = sampler.decide(parent, parent.trace_id, name, kind)
            trace = Trace(parent.trace_id, parent, None, sampled=sampled)
        span = Span(self, trace, None, name, kind, start, scope, describer)
        self.open[span] = None
        return span

    def start_span(
        self, name: str, parent: object, kind: SpanKind, start: int, scope: tuple[str, str]
    ) -> Span:
        """Start a span under `parent`, which may be ours, another SDK's, or None."""
        if isinstance(parent, Span):
            trace = parent.trace
            # A parent that is still open, around a yield, keeps what is under it in its trace.
            if trace.ended and parent.end_time and trace.follower is not None:
                parent = trace.follower.follow()
            return Span(self, parent.trace, parent, name, kind, start, scope)
        context = parent.get_span_context() if isinstance(parent, trace_api.Span) else None
        return self.start_root(
            name, kind, start, context if context and context.is_valid else None, scope
        )

    def span_ended(self, span: Span) -> None:
        """Take a span whose `end` was called."""
        if span.parent is None:
            self.end_root(span, error=span.status is StatusCode.ERROR)
        elif span.trace.room > 0:
            span.trace.room -= 1
            span.trace.append(span)
        else:
            self._no_room(span.trace, span)

    def end_root(self, span: Span, *, error: bool, slow: bool = False) -> None:
        """Keep or free the trace of a root whose `end_time` is set."""
        trace = span.trace
        trace.ended = True
        trace.room = 0
        self.open.pop(span, None)
        slow = slow or span.end_time - span.start > self.slow_after
        if (
            trace.sampled
            or trace.kept
            or ((error or slow) and self.sampler.tail(error=error, slow=slow))
        ):
            trace.kept = True
            self.over_limit += trace.overflow
            self.sink.keep(trace, span)
        else:
            # Taken first: a call between reading and writing would let threads in between.
            spans = len(trace) + 1 + trace.overflow
            self.unsampled += spans
        # Entries refer to their parents, and these to the trace: cut the circle here, so that
        # nothing waits for the garbage collector.
        trace.clear()

    def late_call(self, entry: Leaf) -> None:
        """Take a call that has no open trace with room: outside every trace, after it, or over."""
        call, span, start, end, error, attributes, series, bucket = entry
        if span is not None:
            trace = span.trace
            if trace.ended and span.end_time and trace.follower is not None:
                parent = trace.follower.follow()
                if parent.trace.room > 0:
                    parent.trace.room -= 1
                    parent.trace.append(
                        (call, parent, start, end, error, attributes, series, bucket)
                    )
                    return
                trace = parent.trace
            self._no_room(trace, entry)
            return
        trace_id = random_bits(128) or 1
        sampled = self.sampler.head(trace_id, start)
        if sampled or self.sampler.tail(
            error=error is not None, slow=end - start > self.slow_after
        ):
            trace = Trace(trace_id, None, self.sampler.threshold, sampled=sampled)
            trace.append(entry)
            self.sink.keep(trace, None)
        else:
            self.unsampled += 1

    def store_long_open(self, now: int) -> None:
        """Hand over roots that have been open for a minute, as they stand: they may be hung.

        What they hold is handed over only once; the root itself is written again when it ends.
        """
        for span in list(self.open):
            trace = span.trace
            if now - span.start <= _OPEN_TOO_LONG or trace.kept:
                continue
            if trace.sampled or self.sampler.tail(error=False, slow=True):
                trace.kept = True
                entries = Trace(
                    trace.trace_id, trace.parent, trace.threshold, sampled=trace.sampled
                )
                while trace:
                    entries.append(trace.pop(0))
                self.sink.keep(entries, span, open_until=now)

    def _no_room(self, trace: Trace, entry: Entry) -> None:
        if not trace.ended:
            trace.overflow += 1
        elif trace.kept:
            late = Trace(trace.trace_id, trace.parent, trace.threshold, sampled=trace.sampled)
            late.append(entry)
            self.sink.keep(late, None)
        else:
            self.unsampled += 1


class Tracer(trace_api.Tracer):
    """Starts spans with one instrumentation scope."""

    def __init__(self, provider: TracerProvider, scope: tuple[str, str]) -> None:
        self._provider = provider
        self._scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002, ARG002 - OpenTelemetry's signature
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002, ARG002 - OpenTelemetry's signature
    ) -> Span:
        """Start a span under the current one, without making it current."""
        start = clock.now() if start_time is None else start_time - clock.wall_offset()
        parent = (get_context() if context is None else context).get(SPAN_KEY)
        span = self._provider.start_span(name, parent, kind, start, self._scope)
        if attributes:
            span.set_attributes(attributes)
        if links:
            span.add_links(links)
        return span

    def start_as_current_span(  # type: ignore[override]  # a plain object instead of a generator
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - OpenTelemetry's signature
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002 - OpenTelemetry's signature
        end_on_exit: bool = True,  # noqa: FBT001, FBT002 - OpenTelemetry's signature
    ) -> CurrentSpan:
        """Start a span and make it current: a context manager, also async, and a decorator."""
        return CurrentSpan(
            lambda: self.start_span(name, context, kind, attributes, links, start_time),
            record_exception=record_exception,
            set_status_on_exception=set_status_on_exception,
            end_on_exit=end_on_exit,
        )
