"""Connections of aiosqlite: everything passes `Connection._execute`, which is replaced in place.

The call is timed in the caller's context, the wait for the connection's thread included.
"""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apmkit.instrument.dbapi import batch_size, sqlite_name
from apmkit.instrument.kept import StatementCalls, shared
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider

_RECORDED = frozenset(
    {"execute", "executemany", "executescript", "_execute_insert", "_execute_fetchall"}
)


def is_connection(client: object) -> bool:
    """Tell whether `client` is a connection of aiosqlite, open or still to be awaited."""
    return hasattr(client, "_execute") and any(
        kind.__module__.partition(".")[0] == "aiosqlite" and kind.__name__ == "Connection"
        for kind in type(client).__mro__
    )


def wrap_connection(
    client: Any,
    provider: TracerProvider,
    metrics: Metrics,
    name: str | None,  # noqa: ARG001 - a database has its own name
) -> Any:
    """Return the same connection, its statements recorded, those of its cursors too."""
    if not isinstance(client._execute, _Execute):  # noqa: SLF001 - the one place all passes
        client._execute = _Execute(client, provider, metrics)  # noqa: SLF001
    return client


class _Execute:
    """Stands in for the method `_execute` of a connection."""

    def __init__(self, client: Any, provider: TracerProvider, metrics: Metrics) -> None:
        self._client = client
        self._run: Callable[..., Awaitable[Any]] = client._execute  # noqa: SLF001 - see above
        self._provider = provider
        self._metrics = metrics
        self._calls: StatementCalls | None = None

    async def __call__(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run `function` in the connection's thread."""
        name = getattr(function, "__name__", "")
        if name not in _RECORDED or not arguments:
            return await self._run(function, *arguments, **options)
        calls = self._calls or await self._find_calls()
        start = now()
        try:
            result = await self._run(function, *arguments, **options)
        except BaseException as error:
            calls.failed(arguments[0], start, error)
            raise
        end = now()
        try:
            record_call(calls.of(arguments[0]), start, end, None, batch_size(name, arguments))
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            calls.faults.internal("database call", fault)
        return result

    async def _find_calls(self) -> StatementCalls:
        attributes = {"db.system.name": "sqlite"}
        try:
            # Only the connection's own thread may ask for the name of its file.
            name = await self._run(sqlite_name, self._client._connection)  # noqa: SLF001 - see above
            if name:
                attributes["db.namespace"] = name
        except Exception as fault:  # noqa: BLE001 - a closed connection says so to the application next
            self._provider.faults.warn("database name", f"aiosqlite did not tell its file: {fault}")
        self._calls = shared(
            self._provider,
            tuple(attributes.items()),
            lambda: StatementCalls(self._provider, self._metrics, attributes),
        )
        return self._calls
