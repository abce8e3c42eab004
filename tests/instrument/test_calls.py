from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from apmkit.instrument.calls import CacheCall, DatabaseCall

if TYPE_CHECKING:
    from tests.instrument.conftest import Recording


def test_a_block_is_a_database_call(recording: Recording) -> None:
    with DatabaseCall(
        recording.provider,
        recording.metrics,
        "postgresql",
        statement="SELECT a FROM t WHERE b = 'x'",
        namespace="shop",
    ):
        assert recording.calls == []
    assert recording.names == ["SELECT t"]
    assert recording.last["db.query.text"] == "SELECT a FROM t WHERE b = ?"
    assert recording.last["db.namespace"] == "shop"


def test_a_database_without_statements_has_operations(recording: Recording) -> None:
    with DatabaseCall(
        recording.provider, recording.metrics, "mongodb", operation="find", collection="users"
    ):
        pass
    with DatabaseCall(recording.provider, recording.metrics, "mongodb"):
        pass
    assert recording.names == ["find users", "mongodb"]
    counts = recording.counts(
        "db.client.operation.duration", "db.operation.name", "db.collection.name"
    )
    assert counts == {("find", "users"): 1, (None, None): 1}


def test_the_same_statement_is_the_same_call(recording: Recording) -> None:
    for number in (1, 2):
        with DatabaseCall(
            recording.provider, recording.metrics, "mysql", statement=f"SELECT {number}"
        ):
            pass
    first, second = recording.calls
    assert first.call is second.call


def test_a_block_is_a_cache_operation(recording: Recording) -> None:
    for hit in (True, False):
        with CacheCall(
            recording.provider, recording.metrics, "redis", "GET", key="secret", tier="remote"
        ) as call:
            call.hit = hit
    with CacheCall(recording.provider, recording.metrics, "redis", "SET", key="secret"):
        pass
    assert recording.names == ["get redis", "get redis", "set redis"]
    labels = ("cache.name", "cache.operation", "cache.hit", "cache.tier")
    assert recording.counts("cache.client.operation.duration", *labels) == {
        ("redis", "get", True, "remote"): 1,
        ("redis", "get", False, "remote"): 1,
        ("redis", "set", None, None): 1,
    }
    assert [leaf.call.kind.name for leaf in recording.calls] == ["CLIENT", "CLIENT", "INTERNAL"]
    assert "secret" not in str([leaf.call.attributes for leaf in recording.calls])


def test_an_error_in_the_block_passes_and_is_recorded(recording: Recording) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        DatabaseCall(recording.provider, recording.metrics, "mysql"),
    ):
        raise ZeroDivisionError
    assert isinstance(recording.calls[0].error, ZeroDivisionError)


def test_async_with_does_the_same(recording: Recording) -> None:
    async def use() -> None:
        async with CacheCall(recording.provider, recording.metrics, "store", "get") as call:
            await asyncio.sleep(0)
            call.hit = True
        async with DatabaseCall(
            recording.provider, recording.metrics, "mysql", statement="SELECT 1"
        ):
            await asyncio.sleep(0)

    asyncio.run(use())
    assert recording.names == ["get store", "SELECT"]


def test_ever_new_operations_are_bounded(recording: Recording) -> None:
    for number in range(500):
        with CacheCall(recording.provider, recording.metrics, "store", f"op{number}"):
            pass
    with CacheCall(recording.provider, recording.metrics, "store", "get key with spaces"):
        pass
    counts = recording.counts("cache.client.operation.duration", "cache.operation")
    assert len(counts) == 201
    assert counts["_OTHER",] == 301


def test_a_fault_of_the_agent_does_not_reach_the_application(recording: Recording) -> None:
    recording.faults.reraise = False
    with CacheCall(recording.provider, recording.metrics, "store", None):  # type: ignore[arg-type]
        pass
    with DatabaseCall(recording.provider, recording.metrics, ["x"], statement="SELECT 1"):  # type: ignore[arg-type]
        pass
    errors = recording.metrics.counter("apmkit.internal.errors")
    assert errors.bind({"apmkit.place": "recorded block"}).value == 2
