"""Clients of redis-py, plain and asyncio: `execute_command` and `pipeline` replaced in place."""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from apmkit.instrument.kept import CacheCalls, database_call, database_histogram, shared
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.util.types import AttributeValue

    from apmkit.record.call import Call
    from apmkit.record.metrics import HistogramSeries, Metrics
    from apmkit.record.tracer import TracerProvider

_MAX_COMMANDS = 500
_NAME = re.compile(r"[A-Z][A-Z0-9._]{0,31}")
# Commands of two words; with others the second word may be a key.
_OF_TWO_WORDS = (
    "ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT"
    " SENTINEL SLOWLOG XGROUP XINFO"
)
_CONTAINERS = frozenset(_OF_TWO_WORDS.split())
_LOOKUPS = frozenset({"GET", "GETDEL", "GETEX", "HGET", "HMGET", "MGET"})
_CACHE_OPERATIONS = {
    **dict.fromkeys(_LOOKUPS, "get"),
    **dict.fromkeys(("SET", "SETEX", "PSETEX", "SETNX", "MSET", "HSET", "HMSET"), "set"),
    **dict.fromkeys(("DEL", "UNLINK", "HDEL"), "delete"),
}


def is_client(client: object) -> bool:
    """Tell whether `client` is a client of redis-py, and not a pipeline of one."""
    return (
        any(kind.__module__.partition(".")[0] == "redis" for kind in type(client).__mro__)
        and hasattr(client, "execute_command")
        and callable(getattr(client, "pipeline", None))
        and not hasattr(client, "execute")
    )


def wrap_client(
    client: Any,
    provider: TracerProvider,
    metrics: Metrics,
    name: str | None,
) -> Any:
    """Return the same client, its commands and pipelines recorded.

    Args:
        client: a client of redis-py.
        provider: the agent's.
        metrics: the agent's.
        name: of the cache that this Redis is; None if it is not used as one.
    """
    if not isinstance(client.execute_command, _Execute):
        attributes = _describe(client)
        commands = shared(
            provider,
            ("redis", name, *attributes.items()),
            lambda: Commands(provider, metrics, attributes, name),
        )
        pipeline = client.pipeline
        client.execute_command = _Execute(client.execute_command, commands)
        client.pipeline = lambda *arguments, **options: _traced_pipeline(
            pipeline(*arguments, **options), commands
        )
    return client


def _describe(client: Any) -> dict[str, AttributeValue]:
    settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
    found: dict[str, AttributeValue] = {"db.system.name": "redis"}
    if "path" in settings:
        found["server.address"] = str(settings["path"])
    elif settings:
        found["server.address"] = str(settings.get("host") or "localhost")
        found["server.port"] = int(settings.get("port") or 6379)
    if settings:
        found["db.namespace"] = str(settings.get("db") or 0)
    return found


class Outcome(NamedTuple):
    """What is recorded: the call, and the observation of the cache that Redis is, if it is one."""

    call: Call
    cache: HistogramSeries | None


class Command(NamedTuple):
    """The outcomes of one command."""

    lookup: bool
    plain: Outcome
    hit: Outcome
    miss: Outcome


class Commands(dict[object, Command]):
    """The commands of one Redis, by what `execute_command` is given first; missing ones are made.

    Args:
        provider: takes calls that are made outside every trace.
        metrics: where their durations go.
        attributes: of the server and its database.
        name: of the cache, if it is one.
    """

    def __init__(
        self,
        provider: TracerProvider,
        metrics: Metrics,
        attributes: Mapping[str, AttributeValue],
        name: str | None,
    ) -> None:
        super().__init__()
        self.faults = provider.faults
        self._provider = provider
        self._histogram = database_histogram(metrics)
        self._attributes = dict(attributes)
        self._cache = None if name is None else CacheCalls(provider, metrics, name, "remote")
        self._other = self._make("")
        self.pipeline = self._make("PIPELINE")

    def __missing__(self, command: object) -> Command:
        """Make the calls of a command."""
        name = _operation(command)
        if not name or len(self) >= _MAX_COMMANDS:
            return self._other
        return self.setdefault(command, self._make(name))

    def record(
        self,
        command: object,
        start: int,
        end: int,
        result: object,
        error: BaseException | None = None,
    ) -> None:
        """Record a command that has ended."""
        try:
            found = self[command]
            outcome = found.plain
            if found.lookup and error is None:
                outcome = found.hit if _found(result) else found.miss
            record_call(outcome.call, start, end, error)
            if outcome.cache is not None:
                outcome.cache.observe((end - start) * 1e-9)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self.faults.internal("redis command", fault)

    def record_pipeline(self, size: int, start: int, error: BaseException | None = None) -> None:
        """Record a pipeline that has ended just now."""
        end = now()
        try:
            record_call(
                self.pipeline.plain.call, start, end, error, {"db.operation.batch.size": size}
            )
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self.faults.internal("redis pipeline", fault)

    def _make(self, name: str) -> Command:
        plain, hit, miss = (self._outcome(name, hit) for hit in (None, True, False))
        return Command(name in _LOOKUPS, plain, hit, miss)

    def _outcome(self, name: str, hit: bool | None) -> Outcome:  # noqa: FBT001 - a key of the cache
        found: dict[str, AttributeValue | None] = {**self._attributes, "db.operation.name": name}
        if hit is not None:
            found["cache.hit"] = hit
        operation = _CACHE_OPERATIONS.get(name)
        cached = self._cache is not None and operation is not None
        return Outcome(
            database_call(self._provider, self._histogram, found),
            self._cache[operation, hit].series if cached else None,  # type: ignore[index]  # as said
        )


class _Execute:
    """Stands in for `execute_command`; what it returns may be awaitable."""

    def __init__(self, execute: Callable[..., Any], commands: Commands) -> None:
        self._execute = execute
        self._commands = commands

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Execute a command."""
        command = arguments[0] if arguments else None
        start = now()
        try:
            result = self._execute(*arguments, **options)
        except BaseException as error:
            self._commands.record(command, start, now(), None, error)
            raise
        if hasattr(result, "__await__"):
            return self._awaited(command, result)
        self._commands.record(command, start, now(), result)
        return result

    async def _awaited(self, command: object, result: Any) -> Any:
        start = now()
        try:
            value = await result
        except BaseException as error:
            self._commands.record(command, start, now(), None, error)
            raise
        self._commands.record(command, start, now(), value)
        return value


def _traced_pipeline(pipeline: Any, commands: Commands) -> Any:
    """Have a pipeline's `execute` recorded as one call."""
    execute = pipeline.execute

    def traced(*arguments: Any, **options: Any) -> Any:
        size = len(pipeline)
        if not size:
            return execute(*arguments, **options)
        start = now()
        try:
            result = execute(*arguments, **options)
        except BaseException as error:
            commands.record_pipeline(size, start, error)
            raise
        if hasattr(result, "__await__"):
            return awaited(size, result)
        commands.record_pipeline(size, start)
        return result

    async def awaited(size: int, result: Any) -> Any:
        start = now()
        try:
            value = await result
        except BaseException as error:
            commands.record_pipeline(size, start, error)
            raise
        commands.record_pipeline(size, start)
        return value

    pipeline.execute = traced
    if hasattr(pipeline, "immediate_execute_command"):  # while it watches keys
        pipeline.immediate_execute_command = _Execute(pipeline.immediate_execute_command, commands)
    return pipeline


def _operation(command: object) -> str:
    if isinstance(command, (bytes, bytearray)):
        command = bytes(command).decode("ascii", "replace")
    words = command.upper().split()[:2] if isinstance(command, str) else []
    words = words if words and words[0] in _CONTAINERS else words[:1]
    return " ".join(words) if words and all(_NAME.fullmatch(word) for word in words) else ""


def _found(result: object) -> bool:
    """Tell whether a lookup found its key, or all of its keys."""
    if isinstance(result, (list, tuple)):
        return bool(result) and None not in result
    return result is not None
