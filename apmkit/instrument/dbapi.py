"""Connections of any PEP 249 module, as proxies; those of sqlite3 are in `sqlite`."""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

from apmkit.instrument.kept import StatementCalls, shared
from apmkit.instrument.proxy import Proxy
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.util.types import AttributeValue

    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider

_SYSTEMS = {
    "MySQLdb": "mysql",
    "cx_Oracle": "oracle.db",
    "ibm_db_dbi": "ibm.db2",
    "mariadb": "mariadb",
    "mysql": "mysql",
    "oracledb": "oracle.db",
    "pg8000": "postgresql",
    "psycopg": "postgresql",
    "psycopg2": "postgresql",
    "pymssql": "microsoft.sql_server",
    "pymysql": "mysql",
    "pysqlite3": "sqlite",
    "sqlite3": "sqlite",
}
"""`db.system.name` by the top-level module of the connection's class."""


def is_connection(client: object) -> bool:
    """Tell whether `client` has what PEP 249 wants of a connection, and is not async."""
    methods = [getattr(client, name, None) for name in ("cursor", "commit", "rollback", "close")]
    return all(callable(method) and not inspect.iscoroutinefunction(method) for method in methods)


def wrap_connection(
    client: object,
    provider: TracerProvider,
    metrics: Metrics,
    name: str | None,  # noqa: ARG001 - a database has its own name
) -> TracedConnection:
    """Return a connection whose execute, executemany and callproc are recorded."""
    return TracedConnection(client, connection_calls(client, provider, metrics))


def connection_calls(client: object, provider: TracerProvider, metrics: Metrics) -> StatementCalls:
    """Return the calls of the database that `client` is connected to."""
    try:
        attributes = _describe(client)
    except Exception as fault:  # noqa: BLE001 - a connection that does not tell is recorded all the same
        provider.faults.internal("database name", fault)
        attributes = {"db.system.name": "other_sql"}
    return shared(
        provider, tuple(attributes.items()), lambda: StatementCalls(provider, metrics, attributes)
    )


def _describe(client: object) -> dict[str, AttributeValue]:
    roots = [kind.__module__.partition(".")[0] for kind in type(client).__mro__]
    system = next((_SYSTEMS[root] for root in roots if root in _SYSTEMS), "other_sql")
    found: dict[str, AttributeValue] = {"db.system.name": system}
    if system == "sqlite":
        name = sqlite_name(client)
        return {**found, "db.namespace": name} if name else found
    info = getattr(client, "info", None)  # psycopg
    for key, sources in (
        ("db.namespace", [(info, "dbname"), (client, "database"), (client, "db")]),
        ("server.address", [(info, "host"), (client, "host")]),
        ("server.port", [(info, "port"), (client, "port")]),
    ):
        for source, attribute in sources:
            value = getattr(source, attribute, None)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            if isinstance(value, (str, int)) and value:
                found[key] = value
                break
    return found


def sqlite_name(connection: Any) -> str | None:
    """Return the name of the main database's file; None in memory, or in another thread."""
    try:
        cursor = connection.cursor()
        cursor.row_factory = None
        rows = cursor.execute("PRAGMA database_list").fetchall()
        cursor.close()
    except Exception:  # noqa: BLE001 - closed, of another thread: the calls are recorded without a name
        return None
    path = next((row[2] for row in rows if row[1] in {"main", b"main"}), None)
    return os.path.basename(os.fsdecode(path)) or None if isinstance(path, (str, bytes)) else None  # noqa: PTH119


class TracedConnection(Proxy):
    """Stands before a connection; its cursors are proxies too.

    `execute` and `executemany` on the connection are not part of PEP 249, but several modules
    have them.
    """

    __slots__ = ("_calls",)

    _calls: StatementCalls

    def __init__(self, wrapped: object, calls: StatementCalls) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_calls", calls)

    def __getattr__(self, name: str) -> Any:
        """Return what the connection has; its shortcuts are recorded."""
        found = getattr(self.__wrapped__, name)
        if name in _SHORTCUTS and callable(found):
            return self._shortcut(found, name)
        return found

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor whose statements are recorded."""
        return TracedCursor(self.__wrapped__.cursor(*arguments, **options), self._calls)

    def __enter__(self) -> Any:
        """Enter as the connection does."""
        entered = self.__wrapped__.__enter__()
        if entered is self.__wrapped__:
            return self
        return TracedCursor(entered, self._calls) if hasattr(entered, "execute") else entered

    def __exit__(self, *error: object) -> Any:
        """Exit as the connection does."""
        return self.__wrapped__.__exit__(*error)

    def _shortcut(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def traced(*arguments: Any, **options: Any) -> Any:
            result = measure(self._calls, function, name, arguments, options)
            if result is self.__wrapped__:
                return self
            return TracedCursor(result, self._calls) if hasattr(result, "fetchone") else result

        return traced


_SHORTCUTS = frozenset({"execute", "executemany", "executescript"})


class TracedCursor(Proxy):
    """Stands before a cursor."""

    __slots__ = ("_calls",)

    _calls: StatementCalls

    def __init__(self, wrapped: object, calls: StatementCalls) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_calls", calls)

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Execute a statement."""
        return self._measure("execute", arguments, options)

    def executemany(self, *arguments: Any, **options: Any) -> Any:
        """Execute a statement for each set of parameters."""
        return self._measure("executemany", arguments, options)

    def callproc(self, *arguments: Any, **options: Any) -> Any:
        """Call a stored procedure."""
        return self._measure("callproc", arguments, options)

    def fetchone(self) -> Any:
        """Fetch the next row."""
        return self.__wrapped__.fetchone()

    def fetchmany(self, *arguments: Any, **options: Any) -> Any:
        """Fetch the next rows."""
        return self.__wrapped__.fetchmany(*arguments, **options)

    def fetchall(self) -> Any:
        """Fetch the remaining rows."""
        return self.__wrapped__.fetchall()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows."""
        return iter(self.__wrapped__)

    def __next__(self) -> Any:
        """Fetch the next row."""
        return next(self.__wrapped__)

    def __enter__(self) -> Any:
        """Enter as the cursor does."""
        self.__wrapped__.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        """Exit as the cursor does."""
        return self.__wrapped__.__exit__(*error)

    def _measure(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        function = getattr(self.__wrapped__, name)
        result = measure(self._calls, function, name, arguments, options)
        return self if result is self.__wrapped__ else result


def measure(
    calls: StatementCalls,
    function: Callable[..., Any],
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Call a cursor's or connection's method and record it."""
    start = now()
    try:
        result = function(*arguments, **options)
    except BaseException as error:
        calls.failed(_statement(name, arguments, options), start, error)
        raise
    end = now()
    try:
        call = calls.of(_statement(name, arguments, options))
        record_call(call, start, end, None, batch_size(name, arguments))
    except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
        calls.faults.internal("database call", fault)
    return result


def _statement(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> object:
    # PEP 249 calls it `operation`; drivers also say query, sql, statement.
    statement = arguments[0] if arguments else next(iter(options.values()), None)
    return f"CALL {statement}" if name == "callproc" else statement


def batch_size(name: str, arguments: tuple[Any, ...]) -> dict[str, AttributeValue] | None:
    """Return how many sets of parameters `executemany` was given, where that can be told."""
    if name != "executemany" or len(arguments) < 2 or not isinstance(arguments[1], (list, tuple)):  # noqa: PLR2004
        return None
    return {"db.operation.batch.size": len(arguments[1])}
