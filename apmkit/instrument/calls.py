"""Recording a block by hand as a database call or a cache operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from apmkit.instrument.kept import (
    CacheCalls,
    StatementCalls,
    database_call,
    database_histogram,
    shared,
)
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from apmkit.record.call import Call
    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider


class _Block(ABC):
    """A block that is one call, with `with` and `async with`."""

    __slots__ = ("_metrics", "_provider", "_start")

    def __init__(self, provider: TracerProvider, metrics: Metrics) -> None:
        self._provider = provider
        self._metrics = metrics
        self._start = 0

    @abstractmethod
    def _call(self) -> Call:
        """Return the call that the block was."""

    def __enter__(self) -> Self:
        """Start the clock."""
        self._start = now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Record the call."""
        end = now()
        try:
            record_call(self._call(), self._start, end, error)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self._provider.faults.internal("recorded block", fault)

    async def __aenter__(self) -> Self:
        """Do as `with` does."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Do as `with` does."""
        self.__exit__(kind, error, tb)


class DatabaseCall(_Block):
    """Records a block as a database call.

    Args:
        provider: the agent's.
        metrics: the agent's.
        system: `db.system.name`, "postgresql" for instance.
        statement: what is executed; its literals are masked.
        namespace: `db.namespace`, the name of the database.
        operation: `db.operation.name`, for a database without statements.
        collection: `db.collection.name`, likewise.

    Example:
        >>> with agent.db_call("postgresql", statement="SELECT name FROM users WHERE id = $1"):
        ...     name = connection.fetch_name(7)
    """

    __slots__ = ("_collection", "_namespace", "_operation", "_statement", "_system")

    def __init__(
        self,
        provider: TracerProvider,
        metrics: Metrics,
        system: str,
        *,
        statement: str | None = None,
        namespace: str | None = None,
        operation: str | None = None,
        collection: str | None = None,
    ) -> None:
        super().__init__(provider, metrics)
        self._system = system
        self._statement = statement
        self._namespace = namespace
        self._operation = operation
        self._collection = collection

    def _call(self) -> Call:
        attributes = {"db.system.name": self._system, "db.namespace": self._namespace or ""}
        if self._statement is not None:
            return shared(
                self._provider,
                ("database", self._system, self._namespace),
                lambda: StatementCalls(self._provider, self._metrics, attributes),
            ).of(self._statement)
        return shared(
            self._provider,
            ("operation", self._system, self._namespace, self._operation, self._collection),
            lambda: database_call(
                self._provider,
                database_histogram(self._metrics),
                {
                    **attributes,
                    "db.operation.name": self._operation,
                    "db.collection.name": self._collection,
                },
            ),
        )


class CacheCall(_Block):
    """Records a block as a cache operation.

    Args:
        provider: the agent's.
        metrics: the agent's.
        cache: the cache's name or system, "redis" for instance.
        operation: "GET" for instance; in the metric's label it is in small letters.
        key: what is looked up. It does not leave the process.
        tier: "memory" or "remote".

    Attributes:
        hit: whether a lookup found something; to be set in the block. None for what is no lookup.

    Example:
        >>> with agent.cache_call("redis", "GET", key=key) as call:
        ...     value = client.fetch(key)
        ...     call.hit = value is not None
    """

    __slots__ = ("_cache", "_operation", "_tier", "hit", "key")

    def __init__(
        self,
        provider: TracerProvider,
        metrics: Metrics,
        cache: str,
        operation: str,
        *,
        key: object = None,
        tier: str | None = None,
    ) -> None:
        super().__init__(provider, metrics)
        self._cache = cache
        self._operation = operation
        self._tier = tier
        self.key = key
        self.hit: bool | None = None

    def _call(self) -> Call:
        calls = shared(
            self._provider,
            ("cache", self._cache, self._tier),
            lambda: CacheCalls(self._provider, self._metrics, self._cache, self._tier),
        )
        hit = self.hit if self.hit is None else bool(self.hit)
        return calls[self._operation.lower(), hit]
