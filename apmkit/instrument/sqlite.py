"""Connections of the standard library's sqlite3: cursors of a subclass, so that fetches are native."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from apmkit.instrument.dbapi import batch_size, connection_calls
from apmkit.instrument.kept import shared
from apmkit.instrument.proxy import Proxy, unwrapped
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.instrument.kept import StatementCalls
    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider



def is_sqlite_connection(client: object) -> bool:
    """Tell whether `client` is a sqlite3 connection that executes as the standard one does."""
    kind = type(client)
    return isinstance(client, sqlite3.Connection) and all(
        getattr(kind, name) is getattr(sqlite3.Connection, name)
        for name in ("cursor", "execute", "executemany", "executescript")
    )


def wrap_sqlite(
    client: sqlite3.Connection,
    provider: TracerProvider,
    metrics: Metrics,
    name: str | None,  # noqa: ARG001 - a database has its own name
) -> SqliteConnection:
    """Return a connection whose statements are recorded."""
    calls = connection_calls(client, provider, metrics)
    return SqliteConnection(client, calls)


class SqliteConnection(Proxy):
    """Stands before a sqlite3 connection."""

    __slots__ = ("_calls", "_new_cursor", "_traced")

    _calls: StatementCalls
    _new_cursor: Callable[..., sqlite3.Cursor]
    _traced: type[sqlite3.Cursor]

    def __init__(self, wrapped: sqlite3.Connection, calls: StatementCalls) -> None:
        super().__init__(wrapped)
        own = object.__setattr__
        own(self, "_calls", calls)
        own(self, "_new_cursor", wrapped.cursor)
        traced = shared(calls.provider, ("cursor", calls), lambda: traced_cursor(sqlite3.Cursor, calls))
        own(self, "_traced", traced)

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:  # noqa: ANN401 - passes through
        """Return a cursor whose statements are recorded."""
        if factory is sqlite3.Cursor:
            return self._new_cursor(self._traced)
        if isinstance(factory, type) and issubclass(factory, sqlite3.Cursor):
            return self._new_cursor(traced_cursor(factory, self._calls))
        return self._new_cursor(factory)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - passes through
        """Execute a statement with a new cursor."""
        return self._new_cursor(self._traced).execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - passes through
        """Execute a statement for each set of parameters, with a new cursor."""
        return self._new_cursor(self._traced).executemany(*arguments)

    def executescript(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - passes through
        """Execute several statements with a new cursor."""
        return self._new_cursor(self._traced).executescript(*arguments)

    def backup(self, target: sqlite3.Connection, **options: Any) -> None:  # noqa: ANN401 - passes through
        """Copy the database into `target`, which may be a proxy too."""
        self.__wrapped__.backup(unwrapped(target), **options)

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - passes through
        """Compile a statement, as calling the connection does."""
        return self.__wrapped__(*arguments)

    def __enter__(self) -> SqliteConnection:
        """Enter a transaction."""
        self.__wrapped__.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:  # noqa: ANN401 - passes through
        """Commit, or roll back after an exception."""
        return self.__wrapped__.__exit__(*error)


def traced_cursor(base: type[sqlite3.Cursor], calls: StatementCalls) -> type[sqlite3.Cursor]:
    """Return a subclass of `base` that records into `calls`; local names are the quickest to read."""
    execute_, executemany_, executescript_ = base.execute, base.executemany, base.executescript

    class TracedCursor(base):  # type: ignore[misc, valid-type]  # a class that is known when it runs
        def execute(self, sql: Any, *parameters: Any) -> Any:  # noqa: ANN401 - passes through
            start = now()
            try:
                result = execute_(self, sql, *parameters)
            except BaseException as error:
                calls.failed(sql, start, error)
                raise
            end = now()
            try:
                record_call(calls[sql], start, end)
            except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
                calls.faults.internal("database call", fault)
            return result

        def executemany(self, sql: Any, *parameters: Any) -> Any:  # noqa: ANN401 - passes through
            return measure(calls, executemany_, "executemany", (self, sql, *parameters), {})

        def executescript(self, script: Any) -> Any:  # noqa: ANN401 - passes through
            return measure(calls, executescript_, "executescript", (self, script), {})

    TracedCursor.__name__ = base.__name__
    TracedCursor.__qualname__ = base.__qualname__
    TracedCursor.__module__ = base.__module__
    return TracedCursor
