# ruff: noqa: ANN401 - what a client takes and returns can be anything

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import pytest

from apmkit.instrument.wrap import wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from tests.instrument.conftest import Recording


class Cursor:
    """A cursor as a driver without a database would have it: it answers what it was asked."""

    arraysize = 1

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def execute(self, query: Any, params: Any = None, *, prepare: bool = False) -> Cursor:
        if query == "fail":
            error = RuntimeError("no")
            error.sqlstate = "42P01"  # type: ignore[attr-defined]  # as psycopg's errors have it
            raise error
        self.asked.append((query, params, prepare))
        return self

    def executemany(self, query: str, params: Any) -> None:
        self.asked.append((query, params))

    def callproc(self, name: str, params: Any = ()) -> Any:
        self.asked.append((name, params))
        return params

    def fetchone(self) -> Any:
        return self.asked[0] if self.asked else None

    def fetchmany(self, size: int = 1) -> Any:
        return self.asked[:size]

    def fetchall(self) -> Any:
        return self.asked

    def close(self) -> None:
        self.asked = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Connection:
    def __init__(self) -> None:
        self.info = types.SimpleNamespace(dbname="shop", host="db.example", port=5432)
        self.done: list[str] = []

    def cursor(self, name: str = "") -> Cursor:
        self.done.append(f"cursor{name}")
        return Cursor()

    def execute(self, query: str) -> Cursor:
        return Cursor().execute(query)

    def commit(self) -> None:
        self.done.append("commit")

    def rollback(self) -> None:
        self.done.append("rollback")

    def close(self) -> None:
        self.done.append("close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.commit()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(Connection, "__module__", "psycopg.connection")
    return Connection()


@pytest.fixture
def connection(bare: Connection, recording: Recording) -> Any:
    return wrap(bare, recording.provider, recording.metrics)


def test_any_pep_249_connection_is_recorded(
    bare: Connection, connection: Any, recording: Recording
) -> None:
    cursor = connection.cursor(name="1")
    assert cursor.execute("SELECT a FROM t WHERE b = %s AND c = 'x'", (1,), prepare=True) is cursor
    assert recording.names == ["SELECT t"]
    assert recording.last == {
        "db.system.name": "postgresql",
        "db.namespace": "shop",
        "db.operation.name": "SELECT",
        "db.collection.name": "t",
        "db.query.summary": "SELECT t",
        "db.query.text": "SELECT a FROM t WHERE b = %s AND c = ?",
        "server.address": "db.example",
        "server.port": 5432,
    }
    assert bare.done == ["cursor1"]
    row = ("SELECT a FROM t WHERE b = %s AND c = 'x'", (1,), True)
    assert cursor.fetchone() == row
    assert cursor.fetchall() == cursor.fetchmany(size=5) == list(cursor) == [row]


def test_executemany_and_procedures_are_recorded(connection: Any, recording: Recording) -> None:
    cursor = connection.cursor()
    assert cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)]) is None
    assert recording.last["db.operation.batch.size"] == 2
    assert cursor.callproc("refresh", (1,)) == (1,)
    assert cursor.execute(query="SELECT 1") is cursor
    assert recording.names == ["INSERT t", "CALL refresh", "SELECT"]


def test_a_shortcut_on_the_connection_is_recorded(connection: Any, recording: Recording) -> None:
    cursor = connection.execute("SELECT a FROM t")
    cursor.execute("SELECT b FROM u")
    assert recording.names == ["SELECT t", "SELECT u"]


@pytest.mark.parametrize("statement", [b"SELECT a FROM t", bytearray(b"SELECT a FROM t")])
def test_bytes_are_statements(connection: Any, recording: Recording, statement: Any) -> None:
    connection.cursor().execute(statement)
    assert recording.names == ["SELECT t"]


@pytest.mark.parametrize("statement", [object(), ["SELECT"], None, 7])
def test_what_is_not_text_is_recorded_by_its_system(
    connection: Any, recording: Recording, statement: Any
) -> None:
    connection.cursor().execute(statement)
    assert recording.names == ["postgresql"]


def test_an_error_passes_unchanged_with_its_code(connection: Any, recording: Recording) -> None:
    with pytest.raises(RuntimeError, match="no") as caught:
        connection.cursor().execute("fail")
    assert recording.calls[0].error is caught.value
    assert recording.last["db.response.status_code"] == "42P01"


def test_the_proxies_behave_as_what_they_wrap(bare: Connection, connection: Any) -> None:
    cursor = connection.cursor()
    cursor.arraysize = 5
    assert cursor.__wrapped__.arraysize == cursor.arraysize == 5
    connection.note = "x"
    assert bare.note == "x"  # type: ignore[attr-defined]  # set just now
    del connection.note
    assert not hasattr(bare, "note")
    assert "commit" in dir(connection)
    assert repr(connection) == repr(bare)
    with connection as entered, connection.cursor() as inner:
        assert entered is connection
        inner.execute("SELECT 1")
    assert inner.fetchall() == []
    assert bare.done[-1] == "commit"
    assert isinstance(connection, Connection)
    assert isinstance(cursor, Cursor)


def test_a_connection_that_does_not_tell_its_database_is_recorded(
    bare: Connection, recording: Recording
) -> None:
    recording.faults.reraise = False

    class Secretive:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    bare.info = Secretive()  # type: ignore[assignment]  # does not tell
    wrap(bare, recording.provider, recording.metrics).cursor().execute("SELECT 1")
    assert recording.last["db.system.name"] == "other_sql"


def test_a_driver_that_nobody_knows_is_other_sql(recording: Recording) -> None:
    wrap(Connection(), recording.provider, recording.metrics).cursor().execute("SELECT 1")
    assert recording.last["db.system.name"] == "other_sql"
