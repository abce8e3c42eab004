from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import aiosqlite
import pytest

from apmkit.instrument.wrap import wrap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.instrument.conftest import Recording


def test_statements_are_recorded_under_the_callers_span(
    tmp_path: Path, recording: Recording
) -> None:
    async def use() -> None:
        async with aiosqlite.connect(tmp_path / "shop.db") as bare:
            connection = wrap(bare, recording.provider, recording.metrics)
            assert connection is bare
            with recording.tracer.start_as_current_span("request"):
                await connection.execute("CREATE TABLE t (a)")
                await connection.execute_insert("INSERT INTO t VALUES (?)", (1,))
                await connection.executemany("INSERT INTO t VALUES (?)", [(2,), (3,)])
                assert recording.calls == []
                rows = await connection.execute_fetchall("SELECT a FROM t")
                assert list(rows) == [(1,), (2,), (3,)]
                async with connection.execute("SELECT a FROM t WHERE a > 'x'") as cursor:
                    assert await cursor.fetchone() is None
                    await cursor.execute("DELETE FROM t WHERE a = ?", (3,))
                await connection.executescript("SELECT 1; SELECT 2")
                await connection.commit()

    asyncio.run(use())
    assert recording.names == [
        "CREATE TABLE t",
        "INSERT t",
        "INSERT t",
        "SELECT t",
        "SELECT t",
        "DELETE t",
        "SELECT SELECT",
    ]
    assert {leaf.parent.name for leaf in recording.calls if leaf.parent} == {"request"}
    assert recording.calls[2].attributes == {"db.operation.batch.size": 2}
    assert recording.last["db.system.name"] == "sqlite"
    assert recording.last["db.namespace"] == "shop.db"
    assert recording.calls[4].call.attributes["db.query.text"] == "SELECT a FROM t WHERE a > ?"


def test_a_connection_may_be_wrapped_before_it_is_awaited_and_twice(recording: Recording) -> None:
    async def use() -> None:
        connecting = wrap(aiosqlite.connect(":memory:"), recording.provider, recording.metrics)
        async with connecting as connection:
            assert wrap(connection, recording.provider, recording.metrics) is connection
            cursor = await connection.cursor()
            await cursor.execute("SELECT 1")
            assert [row async for row in cursor] == [(1,)]
        assert isinstance(connection, aiosqlite.Connection)

    asyncio.run(use())
    assert recording.names == ["SELECT"]
    assert "db.namespace" not in recording.last


def test_errors_pass_unchanged(recording: Recording) -> None:
    async def use() -> None:
        async with aiosqlite.connect(":memory:") as bare:
            connection = wrap(bare, recording.provider, recording.metrics)
            with pytest.raises(sqlite3.OperationalError, match="no such table"):
                await connection.execute("SELECT * FROM nowhere")
        with pytest.raises(ValueError, match="no active connection"):
            await connection.execute("SELECT 1")

    asyncio.run(use())
    assert recording.counts("db.client.operation.duration", "db.query.summary", "error.type") == {
        ("SELECT nowhere", "sqlite3.OperationalError"): 1
    }
