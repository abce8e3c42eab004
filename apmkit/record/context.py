"""The current span, read and set in OpenTelemetry's own context.

`opentelemetry.trace.get_current_span()` walks four functions; a recorded call needs the answer
in one. The default runtime context keeps a plain `ContextVar`, so it is used directly; any other
runtime context (`OTEL_PYTHON_CONTEXT`) goes through the public functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context as context_api
from opentelemetry.context import _RUNTIME_CONTEXT
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace.propagation import _SPAN_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

SPAN_KEY = _SPAN_KEY

get_context: Callable[[], Context]
set_context: Callable[[Context], object]

if isinstance(_RUNTIME_CONTEXT, ContextVarsRuntimeContext):
    _variable = _RUNTIME_CONTEXT._current_context  # noqa: SLF001 - see the module's docstring
    get_context = _variable.get
    set_context = _variable.set
else:  # pragma: no cover - needs another runtime context installed
    get_context = context_api.get_current
    set_context = context_api.attach


def with_span(span: object, context: Context | None = None) -> Context:
    """Return a copy of `context` (nothing by default) in which `span` is the current span."""
    values = {} if context is None else dict(context)
    values[SPAN_KEY] = span
    return Context(values)
