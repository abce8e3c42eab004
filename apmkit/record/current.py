"""Making a span current for a block or a function."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

from opentelemetry.trace import StatusCode

from apmkit.record.context import SPAN_KEY, get_context, set_context, with_span
from apmkit.record.errors import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from opentelemetry.context import Context

    from apmkit.record.span import Span

FunctionType = TypeVar("FunctionType", bound="Callable[..., Any]")


class CurrentSpan:
    """Starts a span on entry, makes it current, and sets its parent back on exit.

    Works with `with` and `async with`, and as a decorator of plain and `async` functions, each
    call then having a span of its own.

    Args:
        start: starts the span.
        record_exception: whether an exception that passes becomes an event.
        set_status_on_exception: whether it sets the status to error.
        end_on_exit: whether the span ends with the block.
    """

    __slots__ = ("_end_on_exit", "_previous", "_record_exception", "_set_status", "_start", "span")

    span: Span

    def __init__(
        self,
        start: Callable[[], Span],
        *,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> None:
        self._start = start
        self._record_exception = record_exception
        self._set_status = set_status_on_exception
        self._end_on_exit = end_on_exit
        self._previous: Context | None = None

    def __enter__(self) -> Span:
        """Start the span and make it current."""
        self._previous = get_context()
        self.span = self._start()
        set_context(with_span(self.span, self._previous))
        return self.span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Set the parent back and end the span."""
        span = self.span
        # A generator that was abandoned is closed in another context, which is left alone.
        if self._previous is not None and get_context().get(SPAN_KEY) is span:
            set_context(self._previous)
        # Cancellation and the end of a generator are ways to leave, not failures.
        if isinstance(error, Exception):
            if self._record_exception:
                span.record_exception(error)
            if self._set_status:
                span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {safe_text(error)}")
        if self._end_on_exit:
            span.end()

    async def __aenter__(self) -> Span:
        """Do as `with` does."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Do as `with` does."""
        self.__exit__(kind, error, tb)

    def __call__(self, function: FunctionType) -> FunctionType:
        """Wrap a function so that each call of it is a span."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def traced_async(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passes through
                with self._again():
                    return await function(*args, **kwargs)

            return cast("FunctionType", traced_async)

        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passes through
            with self._again():
                return function(*args, **kwargs)

        return cast("FunctionType", traced)

    def _again(self) -> CurrentSpan:
        return CurrentSpan(
            self._start,
            record_exception=self._record_exception,
            set_status_on_exception=self._set_status,
            end_on_exit=self._end_on_exit,
        )
