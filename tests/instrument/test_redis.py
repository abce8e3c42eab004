# ruff: noqa: ANN401 - what a client takes and returns can be anything

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

from apmkit.instrument import redis as redis_wrapper
from apmkit.instrument.wrap import wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.instrument.conftest import Recording

METRIC = "db.client.operation.duration"


@pytest.fixture
def bare(redis_port: int) -> Iterator[Any]:
    with contextlib.closing(redis.Redis(port=redis_port, db=3)) as client:
        client.flushdb()
        yield client


@pytest.fixture
def client(bare: Any, recording: Recording) -> Any:
    return wrap(bare, recording.provider, recording.metrics)


def test_a_command_is_one_span_and_one_observation(
    client: Any, recording: Recording, redis_port: int
) -> None:
    client.set("secret-key", "secret-value")
    assert client.get("secret-key") == b"secret-value"
    assert recording.names == ["SET", "GET"]
    assert recording.last == {
        "db.system.name": "redis",
        "db.namespace": "3",
        "db.operation.name": "GET",
        "server.address": "localhost",
        "server.port": redis_port,
        "cache.hit": True,
    }
    assert recording.counts(METRIC, "db.system.name", "db.namespace", "db.operation.name") == {
        ("redis", "3", "SET"): 1,
        ("redis", "3", "GET"): 1,
    }
    assert "secret" not in str(
        [(leaf.call.attributes, leaf.attributes) for leaf in recording.calls]
    )


def test_the_same_client_is_returned_and_wrapped_once(bare: Any, recording: Recording) -> None:
    first: Any = wrap(bare, recording.provider, recording.metrics)
    second = wrap(first, recording.provider, recording.metrics, name="other")
    assert first is second is bare
    assert type(first) is redis.Redis
    bare.ping()
    bare.pipeline().get("a").execute()
    assert recording.names == ["PING", "PIPELINE"]


def test_lookups_are_hits_or_misses(client: Any, recording: Recording) -> None:
    client.mset({"a": 0, "b": ""})
    client.hset("h", "f", "1")
    seen = [
        client.get("a"),
        client.get("b"),
        client.get("c"),
        client.mget("a", "b"),
        client.mget("a", "c"),
        client.hget("h", "f"),
        client.hget("h", "g"),
        client.getdel("a"),
    ]
    assert seen == [b"0", b"", None, [b"0", b""], [b"0", None], b"1", None, b"0"]
    hits = [leaf.call.attributes.get("cache.hit") for leaf in recording.calls]
    assert hits == [None, None, True, True, False, True, False, True, False, True]


def test_a_named_client_is_also_a_cache(bare: Any, recording: Recording) -> None:
    client = wrap(bare, recording.provider, recording.metrics, name="sessions")
    client.get("a")
    client.set("a", 1)
    client.get("a")
    client.delete("a")
    client.ping()
    labels = ("cache.name", "cache.operation", "cache.hit", "cache.tier")
    assert recording.counts("cache.client.operation.duration", *labels) == {
        ("sessions", "get", False, "remote"): 1,
        ("sessions", "set", None, "remote"): 1,
        ("sessions", "get", True, "remote"): 1,
        ("sessions", "delete", None, "remote"): 1,
    }
    assert sum(recording.counts(METRIC).values()) == 5


def test_a_pipeline_is_one_call(client: Any, recording: Recording) -> None:
    with client.pipeline() as pipeline:
        assert pipeline.set("a", 1).get("a").execute() == [True, b"1"]
    assert recording.names == ["PIPELINE"]
    assert recording.last["db.operation.batch.size"] == 2
    assert client.pipeline().execute() == []
    assert len(recording.calls) == 1


def test_a_watching_pipeline_records_what_it_sends_at_once(
    client: Any, recording: Recording
) -> None:
    def increment(pipeline: Any) -> None:
        value = int(pipeline.get("n") or 0)
        pipeline.multi()
        pipeline.set("n", value + 1)

    assert client.transaction(increment, "n") == [True]
    assert recording.names == ["WATCH", "GET", "PIPELINE"]
    assert recording.calls[1].call.attributes["cache.hit"] is False


def test_errors_pass_unchanged(client: Any, recording: Recording) -> None:
    client.set("a", "text")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("a")
    with pytest.raises(redis.ResponseError):
        client.pipeline().incr("a").execute()
    counts = recording.counts(METRIC, "db.operation.name", "error.type")
    assert counts == {
        ("SET", None): 1,
        ("INCRBY", "redis.exceptions.ResponseError"): 1,
        ("PIPELINE", "redis.exceptions.ResponseError"): 1,
    }


def test_publish_and_subscribe_are_left_alone(client: Any, recording: Recording) -> None:
    with client.pubsub() as subscription:
        subscription.subscribe("news")
        assert subscription.get_message(timeout=5)["type"] == "subscribe"
        client.publish("news", "x")
        assert subscription.get_message(timeout=5)["data"] == b"x"
    assert recording.names == ["PUBLISH"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("get", "GET"),
        (b"GET", "GET"),
        ("GET secret-key", "GET"),
        ("CONFIG GET", "CONFIG GET"),
        ("client list", "CLIENT LIST"),
        ("JSON.GET", "JSON.GET"),
        ("CONFIG secret-key", ""),
        ("sécret", ""),
        ("", ""),
        (None, ""),
        (["GET"], ""),
    ],
)
def test_an_operation_is_never_a_key(command: object, name: str) -> None:
    assert redis_wrapper._operation(command) == name


def test_ever_new_commands_are_bounded(client: Any, recording: Recording) -> None:
    for number in range(600):
        with pytest.raises(redis.ResponseError):
            client.execute_command(f"NEW{number}")
    assert len(recording.counts(METRIC, "db.operation.name")) <= 501


def test_an_asyncio_client_is_recorded(recording: Recording, redis_port: int) -> None:
    async def use() -> None:
        client: Any = wrap(
            redis.asyncio.Redis(port=redis_port, db=4), recording.provider, recording.metrics
        )
        async with client:
            with recording.tracer.start_as_current_span("request"):
                await client.flushdb()
                assert await client.get("a") is None
                async with client.pipeline() as pipeline:
                    assert await pipeline.set("a", 1).get("a").execute() == [True, b"1"]
                assert list(await asyncio.gather(client.get("a"), client.hget("h", "f"))) == [
                    b"1",
                    None,
                ]
                with pytest.raises(redis.ResponseError):
                    await client.lpush("a", "x")

        assert isinstance(client, redis.asyncio.Redis)

    asyncio.run(use())
    assert sorted(recording.names) == sorted(["FLUSHDB", "GET", "PIPELINE", "GET", "HGET", "LPUSH"])
    assert {leaf.parent.name for leaf in recording.calls if leaf.parent} == {"request"}
    errors = [leaf.call.name for leaf in recording.calls if leaf.error]
    assert errors == ["LPUSH"]


def test_a_socket_is_the_servers_address(recording: Recording) -> None:
    with contextlib.closing(redis.Redis(unix_socket_path="shop.sock")) as client:
        wrapped = wrap(client, recording.provider, recording.metrics)
        with pytest.raises(redis.ConnectionError):
            wrapped.ping()
    assert recording.last["server.address"] == "shop.sock"
    assert "server.port" not in recording.last


def test_a_fault_of_the_agent_does_not_reach_the_application(
    client: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.faults.reraise = False

    def broken(*_: object) -> None:
        raise RuntimeError("fault")

    monkeypatch.setattr(redis_wrapper, "record_call", broken)
    assert client.set("a", 1)
    assert client.pipeline().get("a").execute() == [b"1"]
    errors = recording.metrics.counter("apmkit.internal.errors")
    assert errors.bind({"apmkit.place": "redis command"}).value == 1
    assert errors.bind({"apmkit.place": "redis pipeline"}).value == 1
