# ruff: noqa: ANN401 - what a client takes and returns can be anything

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit.instrument import kept
from apmkit.instrument.kept import MAX_STATEMENTS
from apmkit.instrument.wrap import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.instrument.conftest import Recording

METRIC = "db.client.operation.duration"


@pytest.fixture
def bare() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE menu (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        connection.execute("INSERT INTO menu (name) VALUES ('soup'), ('bread')")
        connection.commit()
        yield connection


@pytest.fixture
def wrapped(bare: sqlite3.Connection, recording: Recording) -> sqlite3.Connection:
    connection: sqlite3.Connection = wrap(bare, recording.provider, recording.metrics)
    return connection


def test_a_query_is_one_span_and_one_observation(
    wrapped: sqlite3.Connection, recording: Recording
) -> None:
    rows = wrapped.execute("SELECT name FROM menu WHERE id = ? AND name <> 'x'", (1,)).fetchall()
    assert rows == [("soup",)]
    assert recording.names == ["SELECT menu"]
    assert recording.calls[0].call.kind.name == "CLIENT"
    assert recording.last == {
        "db.system.name": "sqlite",
        "db.operation.name": "SELECT",
        "db.collection.name": "menu",
        "db.query.summary": "SELECT menu",
        "db.query.text": "SELECT name FROM menu WHERE id = ? AND name <> ?",
    }
    labels = (
        "db.system.name",
        "db.operation.name",
        "db.collection.name",
        "db.query.summary",
        "error.type",
    )
    assert recording.counts(METRIC, *labels) == {
        ("sqlite", "SELECT", "menu", "SELECT menu", None): 1
    }


def test_the_namespace_is_the_name_of_the_file(tmp_path: Path, recording: Recording) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as bare:
        bare.row_factory = sqlite3.Row
        wrap(bare, recording.provider, recording.metrics).execute("SELECT 1")
    assert recording.last["db.namespace"] == "shop.db"


def test_an_error_passes_unchanged_and_is_counted(
    wrapped: sqlite3.Connection, recording: Recording
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
        wrapped.execute("INSERT INTO menu (name) VALUES (?)", ("soup",))
    leaf = recording.calls[0]
    assert isinstance(leaf.error, sqlite3.IntegrityError)
    counts = recording.counts(METRIC, "db.query.summary", "error.type")
    assert counts == {("INSERT menu", "sqlite3.IntegrityError"): 1}


def test_calls_are_leaves_of_the_open_trace(
    wrapped: sqlite3.Connection, recording: Recording
) -> None:
    with recording.tracer.start_as_current_span("request") as span:
        wrapped.execute("SELECT 1").fetchone()
    assert [leaf.parent for leaf in recording.calls] == [span]


def test_all_ways_to_execute_are_recorded(
    wrapped: sqlite3.Connection, recording: Recording
) -> None:
    cursor = wrapped.cursor()
    cursor.execute("SELECT 1")
    cursor.executemany("DELETE FROM menu WHERE id = ?", [(7,), (8,)])
    assert recording.last["db.operation.batch.size"] == 2
    cursor.executescript("SELECT 1; DROP TABLE menu")
    wrapped.execute("SELECT 2").execute("SELECT 3")
    wrapped.executescript("CREATE TABLE t (a)")
    wrapped.executemany("UPDATE t SET a = ?", iter([]))
    assert recording.names == [
        "SELECT",
        "DELETE menu",
        "SELECT DROP TABLE menu",
        "SELECT",
        "SELECT",
        "CREATE TABLE t",
        "UPDATE t",
    ]


def test_the_proxy_is_an_instance_of_what_it_wraps(
    wrapped: sqlite3.Connection, bare: sqlite3.Connection
) -> None:
    assert isinstance(wrapped, sqlite3.Connection)
    assert wrapped.__wrapped__ is bare  # type: ignore[attr-defined]  # the proxy's
    assert isinstance(wrapped.cursor(), sqlite3.Cursor)
    assert isinstance(wrapped.execute("SELECT 1"), sqlite3.Cursor)
    assert wrapped == bare
    assert hash(wrapped) == hash(bare)


def test_wrapping_twice_changes_nothing(wrapped: sqlite3.Connection, recording: Recording) -> None:
    assert wrap(wrapped, recording.provider, recording.metrics) is wrapped


def test_attributes_are_those_of_the_connection(
    wrapped: sqlite3.Connection, bare: sqlite3.Connection
) -> None:
    wrapped.row_factory = sqlite3.Row
    assert bare.row_factory is sqlite3.Row
    assert wrapped.execute("SELECT 1 AS one").fetchone()["one"] == 1
    wrapped.isolation_level = None
    assert bare.isolation_level is None


def test_a_with_block_commits_and_rolls_back(wrapped: sqlite3.Connection) -> None:
    with wrapped as entered:
        assert entered is wrapped
        wrapped.execute("INSERT INTO menu (name) VALUES ('tea')")
    with pytest.raises(ZeroDivisionError), wrapped:  # noqa: PT012 - what the block did is undone
        wrapped.execute("INSERT INTO menu (name) VALUES ('cake')")
        raise ZeroDivisionError
    assert wrapped.execute("SELECT count(*) FROM menu").fetchone() == (3,)


def test_backup_takes_a_wrapped_target(wrapped: sqlite3.Connection, recording: Recording) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as bare_target:
        target = wrap(bare_target, recording.provider, recording.metrics)
        wrapped.backup(target)
        assert target.execute("SELECT count(*) FROM menu").fetchone() == (2,)


def test_cursors_of_the_applications_own_class_are_recorded(
    wrapped: sqlite3.Connection, recording: Recording
) -> None:
    class OwnCursor(sqlite3.Cursor):
        def names(self) -> list[str]:
            return [row[0] for row in self.execute("SELECT name FROM menu ORDER BY id")]

    cursor = wrapped.cursor(OwnCursor)
    assert isinstance(cursor, OwnCursor)
    assert cursor.names() == ["soup", "bread"]
    assert recording.names == ["SELECT menu"]
    assert type(wrapped.cursor(factory=OwnCursor)) is type(cursor)


def test_a_connection_class_with_its_own_execute_keeps_it(recording: Recording) -> None:
    class Shouting(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            return super().execute(sql.upper(), parameters)

    with contextlib.closing(sqlite3.connect(":memory:", factory=Shouting)) as bare:
        connection = wrap(bare, recording.provider, recording.metrics)
        assert connection.execute("select 'a'").fetchall() == [("A",)]
    assert recording.names == ["SELECT"]


def test_ever_new_statements_share_calls_and_memory_is_bounded(
    wrapped: sqlite3.Connection, recording: Recording
) -> None:
    for number in range(MAX_STATEMENTS + 10):
        wrapped.execute(f"SELECT name FROM menu WHERE id = {number}")  # noqa: S608 - the point here
    assert len({id(leaf.call) for leaf in recording.calls}) == 1
    assert len(wrapped._calls) <= MAX_STATEMENTS  # type: ignore[attr-defined]  # the proxy's
    for number in range(MAX_STATEMENTS + 10):
        wrapped.execute(f"SELECT 1 AS a{number}")
    counts = recording.counts(METRIC, "db.operation.name", "db.query.summary")
    assert counts == {
        ("SELECT", "SELECT menu"): MAX_STATEMENTS + 10,
        ("SELECT", "SELECT"): MAX_STATEMENTS - 1,
        ("SELECT", None): 11,
    }


def test_connections_to_one_database_share_their_calls(recording: Recording) -> None:
    for _ in range(2):
        with contextlib.closing(sqlite3.connect(":memory:")) as bare:
            wrap(bare, recording.provider, recording.metrics).execute("SELECT 1")
    first, second = recording.calls
    assert first.call is second.call


def test_a_fault_of_the_agent_does_not_reach_the_application(
    wrapped: sqlite3.Connection, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.faults.reraise = False

    def broken(*_: object) -> None:
        raise RuntimeError("fault")

    monkeypatch.setattr(kept, "mask", broken)
    assert wrapped.execute("SELECT 41 + 1").fetchone() == (42,)
    with pytest.raises(sqlite3.OperationalError):
        wrapped.execute("SELECT * FROM nowhere")
    assert (
        recording.metrics.counter("apmkit.internal.errors")
        .bind({"apmkit.place": "database call"})
        .value
        == 2
    )


VALUES = st.one_of(st.none(), st.integers(-5, 2**70), st.text(max_size=3), st.binary(max_size=3))
STATEMENTS = st.sampled_from(
    [
        ("INSERT INTO t (a, b) VALUES (?, ?)", 2),
        ("INSERT INTO t (a) VALUES (?)", 1),
        ("UPDATE t SET b = ? WHERE a = ?", 2),
        ("DELETE FROM t WHERE a = ?", 1),
        ("SELECT a, b FROM t ORDER BY rowid", 0),
        ("SELECT rowid AS r, a FROM t WHERE a = ?", 1),
        ("SELECT * FROM missing", 0),
        ("SELEKT", 0),
        ("", 0),
        ("SELECT 1; SELECT 2", 0),
    ]
)
STEPS = st.tuples(
    st.sampled_from(["execute", "executemany", "connection", "commit", "rollback"]),
    STATEMENTS,
    st.lists(VALUES, max_size=2),
    st.sampled_from(["fetchall", "fetchone", "fetchmany", "iterate", "nothing"]),
)


FETCHES: dict[str, Callable[[sqlite3.Cursor], Any]] = {
    "fetchall": lambda cursor: cursor.fetchall(),
    "fetchone": lambda cursor: cursor.fetchone(),
    "fetchmany": lambda cursor: cursor.fetchmany(1),
    "iterate": list,
    "nothing": lambda _: None,
}


def _run(connection: sqlite3.Connection, steps: list[Any]) -> list[object]:
    """Run the steps and return all that an application can see."""
    connection.execute("CREATE TABLE t (a UNIQUE, b)")
    cursor = connection.cursor()
    seen: list[object] = []
    for how, (sql, _), parameters, fetch in steps:
        try:
            if how == "executemany":
                result = cursor.executemany(sql, [parameters])
            elif how == "connection":
                result = connection.execute(sql, parameters)
            elif how == "execute":
                result = cursor.execute(sql, parameters)
            else:
                seen.append(getattr(connection, how)())
                continue
            rows = FETCHES[fetch](result)
            seen.append(
                (rows, result.lastrowid, result.rowcount, result.description, result is cursor)
            )
        except Exception as error:  # noqa: BLE001 - compared below
            seen.append((type(error), str(error)))
        seen.append((connection.in_transaction, connection.total_changes))
    return seen


@given(st.lists(STEPS, max_size=8))
def test_a_wrapped_connection_does_what_a_bare_one_does(
    make_recording: type[Recording], steps: list[Any]
) -> None:
    recording = make_recording()
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as bare,
        contextlib.closing(sqlite3.connect(":memory:")) as other,
    ):
        proxy = wrap(other, recording.provider, recording.metrics)
        assert _run(proxy, steps) == _run(bare, steps)
