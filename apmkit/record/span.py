"""The span: a slotted object that keeps what it is given until its trace is kept or freed."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace as trace_api
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from apmkit.record import clock
from apmkit.record.errors import qualified_name, safe_text
from apmkit.record.identifiers import random_bits
from apmkit.record.tracestate import with_threshold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Protocol

    from opentelemetry.trace import Link, Status
    from opentelemetry.util.types import Attributes, AttributeValue
    from typing_extensions import Self

    from apmkit.record.shared import Shared
    from apmkit.record.trace import Trace

    class Owner(Protocol):
        """Who is told when a span ends (the tracer provider)."""

        def span_ended(self, span: Span) -> None:
            """Take the ended span."""

    class Describer(Protocol):
        """Who names a span and gives its attributes, once its trace is kept."""

        def describe(self, span: Span) -> None:
            """Set the span's name, attributes and status; give its metrics their exemplar."""


MAX_ATTRIBUTES = 128
MAX_EVENTS = 128
MAX_LINKS = 128

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_UNSET = StatusCode.UNSET


class Event(NamedTuple):
    """Something that happened during a span; `time` is monotonic, in nanoseconds."""

    name: str
    time: int
    attributes: Mapping[str, Any]


class Span(trace_api.Span):
    """One operation of a trace; a real OpenTelemetry span.

    `start` and `end_time` are monotonic nanoseconds (`apmkit.record.clock.now`). Attributes stay
    as given: they are checked, redacted and encoded only if the trace is kept. Where `shared` is
    set, its first member has the name and kind, and all have attributes besides the span's own.
    """

    __slots__ = (
        "_owner",
        "_span_id",
        "attributes",
        "describer",
        "description",
        "end_time",
        "events",
        "kind",
        "links",
        "name",
        "parent",
        "scope",
        "shared",
        "start",
        "status",
        "trace",
    )

    def __init__(
        self,
        owner: Owner,
        trace: Trace,
        parent: Span | None,
        name: str,
        kind: SpanKind,
        start: int,
        scope: tuple[str, str],
        describer: Describer | None = None,
    ) -> None:
        self._owner = owner
        self._span_id = 0
        self.trace = trace
        self.parent = parent
        self.name = name
        self.kind = kind
        self.start = start
        self.end_time = 0
        self.scope = scope
        self.describer = describer
        self.shared: tuple[Shared, ...] | None = None
        self.attributes: dict[str, AttributeValue] | None = None
        self.events: list[Event] | None = None
        self.links: list[tuple[SpanContext, Attributes]] | None = None
        self.status = _UNSET
        self.description: str | None = None

    @property
    def span_id(self) -> int:
        """The 64-bit identifier, made when somebody first asks: most spans are never kept."""
        if not self._span_id:
            self._span_id = random_bits(64) or 1
        return self._span_id

    @property
    def parent_span_id(self) -> int:
        """The parent's identifier, which may be another service's; 0 where there is none."""
        if self.parent is not None:
            return self.parent.span_id
        remote = self.trace.parent
        return 0 if remote is None else remote.span_id

    def get_span_context(self) -> SpanContext:
        """Return what identifies this span to other services."""
        trace = self.trace
        state = None if trace.parent is None else trace.parent.trace_state
        if trace.threshold is not None and trace.sampled:
            state = with_threshold(state or TraceState(), trace.threshold)
        flags = _SAMPLED if trace.sampled else _NOT_SAMPLED
        return SpanContext(
            trace.trace_id, self.span_id, is_remote=False, trace_flags=flags, trace_state=state
        )

    def is_recording(self) -> bool:
        """Tell whether the span is still open."""
        return not self.end_time

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute."""
        if self.end_time:
            return
        attributes = self.attributes
        if attributes is None:
            self.attributes = {key: value}
        elif len(attributes) < MAX_ATTRIBUTES or key in attributes:
            attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event; `timestamp` is Unix time in nanoseconds, now by default."""
        if self.end_time:
            return
        if self.events is None:
            self.events = []
        if len(self.events) < MAX_EVENTS:
            time = clock.now() if timestamp is None else timestamp - clock.wall_offset()
            self.events.append(Event(name, time, dict(attributes) if attributes else {}))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Link this span to another one, which may be of another trace."""
        if self.end_time:
            return
        if self.links is None:
            self.links = []
        if len(self.links) < MAX_LINKS:
            self.links.append((context, attributes))

    def add_links(self, links: Sequence[Link] | None) -> None:
        """Add the links that a span is started with."""
        for link in links or ():
            self.add_link(link.context, link.attributes)

    def update_name(self, name: str) -> None:
        """Rename the span."""
        if not self.end_time:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; OK is final and UNSET is ignored, as OpenTelemetry has it."""
        if isinstance(status, trace_api.Status):
            code, description = status.status_code, status.description
        else:
            code = status
        if self.end_time or self.status is StatusCode.OK or code is _UNSET:
            return
        self.status = code
        self.description = description if code is StatusCode.ERROR else None

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - the signature is OpenTelemetry's
    ) -> None:
        """Add the event "exception" with type, message and stack trace."""
        found: dict[str, Any] = {
            "exception.type": qualified_name(type(exception)),
            "exception.message": safe_text(exception),
            "exception.stacktrace": "".join(
                traceback.format_exception(type(exception), exception, exception.__traceback__)
            ),
            "exception.escaped": str(escaped),
        }
        if attributes:
            found.update(attributes)
        self.add_event("exception", found, timestamp)

    def fail(self, exception: BaseException) -> None:
        """Record the exception and set the status to error."""
        self.record_exception(exception)
        self.set_status(StatusCode.ERROR, f"{type(exception).__name__}: {safe_text(exception)}")

    def end(self, end_time: int | None = None) -> None:
        """End the span; `end_time` is Unix time in nanoseconds, now by default."""
        if self.end_time:
            return
        self.end_time = clock.now() if end_time is None else end_time - clock.wall_offset()
        self._owner.span_ended(self)

    def __enter__(self) -> Self:
        """Return the span; it is made current by the tracer, not here."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Record an exception that passes and end the span."""
        if error is not None and self.is_recording():
            self.fail(error)
        self.end()
