"""Connections of sqlite3: their cursors are of a subclass, so that fetches are native."""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apmkit.instrument.dbapi import connection_calls, measure
from apmkit.instrument.kept import shared
from apmkit.instrument.proxy import Proxy, unwrapped
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from apmkit.instrument.kept import StatementCalls
    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider


def is_sqlite_connection(client: object) -> bool:
    """Tell whether `client` is a sqlite3 connection that executes as the standard one does."""
    kind = type(client)
    if all(base.__module__ != "sqlite3" for base in kind.__mro__):
        return False
    import sqlite3

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
        own(self, "_traced", _traced_class(_cursor_class(), calls))

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor whose statements are recorded, also of the application's own class."""
        if not arguments and not options:
            return self._new_cursor(self._traced)
        factory = arguments[0] if arguments else options.get("factory")
        if isinstance(factory, type) and issubclass(factory, _cursor_class()):
            return self._new_cursor(_traced_class(factory, self._calls))
        return self._new_cursor(*arguments, **options)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute a statement with a new cursor."""
        return self._new_cursor(self._traced).execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """Execute a statement for each set of parameters, with a new cursor."""
        return self._new_cursor(self._traced).executemany(sql, parameters)

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        """Execute several statements with a new cursor."""
        return self._new_cursor(self._traced).executescript(script)

    def backup(self, target: sqlite3.Connection, **options: Any) -> None:
        """Copy the database into `target`, which may be a proxy too."""
        self.__wrapped__.backup(unwrapped(target), **options)

    def __call__(self, *arguments: Any) -> Any:
        """Compile a statement, as calling the connection does."""
        return self.__wrapped__(*arguments)

    def __enter__(self) -> Any:
        """Enter a transaction."""
        self.__wrapped__.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        """Commit, or roll back after an exception."""
        return self.__wrapped__.__exit__(*error)


def _cursor_class() -> type[sqlite3.Cursor]:
    import sqlite3

    return sqlite3.Cursor


def _traced_class(base: type[sqlite3.Cursor], calls: StatementCalls) -> type[sqlite3.Cursor]:
    return shared(
        calls.provider, ("cursor", id(calls), base), lambda: _make_traced_class(base, calls)
    )


def _make_traced_class(base: type[sqlite3.Cursor], calls: StatementCalls) -> type[sqlite3.Cursor]:
    """Return a subclass of `base` that records; local names are the quickest to read."""
    execute_ = base.execute

    class TracedCursor(base):  # type: ignore[misc, valid-type]  # a class that is known when it runs
        __slots__ = ()

        def execute(self, sql: Any, parameters: Any = (), /) -> Any:
            start = now()
            try:
                result = execute_(self, sql, parameters)
            except BaseException as error:
                calls.failed(sql, start, error)
                raise
            end = now()
            try:
                record_call(calls[sql], start, end)
            except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
                calls.faults.internal("database call", fault)
            return result

        def executemany(self, sql: Any, parameters: Any, /) -> Any:
            return measure(calls, super().executemany, "executemany", (sql, parameters), {})

        def executescript(self, script: Any, /) -> Any:
            return measure(calls, super().executescript, "executescript", (script,), {})

    TracedCursor.__name__ = base.__name__
    TracedCursor.__qualname__ = base.__qualname__
    TracedCursor.__module__ = base.__module__
    return TracedCursor
