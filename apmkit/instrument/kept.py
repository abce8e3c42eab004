"""The calls of a database or a cache: made once for what looks alike, kept for all its clients."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from opentelemetry.trace import SpanKind

from apmkit.instrument.statement import (
    MAX_LENGTH,
    Statement,
    describe,
    first_keyword,
    load_tokenizer,
    mask,
)
from apmkit.record.call import Call, record_call
from apmkit.record.clock import now
from apmkit.record.metrics import CACHE_DURATION_BOUNDARIES, DATABASE_DURATION_BOUNDARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from opentelemetry.util.types import AttributeValue

    from apmkit.record.metrics import Histogram, Metrics
    from apmkit.record.tracer import TracerProvider

MAX_STATEMENTS = 1_000
"""Statements of one database that have a call of their own; it is also the number of parses."""

MAX_OPERATIONS = 200
"""Operations of one cache that have a call of their own."""

MAX_CLIENTS = 200
"""Databases and caches whose calls are kept when their last client is gone."""

_WORD = re.compile(r"[\w.-]{1,32}\Z")

KeptType = TypeVar("KeptType")


def shared(provider: TracerProvider, key: Hashable, make: Callable[[], KeptType]) -> KeptType:
    """Return what is kept under `key`, made on first use.

    Applications open a connection a request: their statements are read once, not once a connection.
    """
    kept = provider.calls
    found: KeptType | None = kept.get(key)
    if found is None:
        found = make()
        if len(kept) < MAX_CLIENTS:
            found = kept.setdefault(key, found)
    return found


def database_histogram(metrics: Metrics) -> Histogram:
    """Return the metric of all database calls."""
    return metrics.histogram(
        "db.client.operation.duration",
        "s",
        "Duration of database client operations.",
        DATABASE_DURATION_BOUNDARIES,
    )


class StatementCalls(dict[object, Call]):
    """The calls of one database, by statement; a missing one is made.

    The same statement with other literals is the same call. At most 1,000 calls are made; what
    comes after counts by its first keyword.

    Args:
        provider: takes calls that are made outside every trace.
        metrics: where their durations go.
        attributes: of the database: `db.system.name`, `db.namespace`, `server.address`.
    """

    def __init__(
        self, provider: TracerProvider, metrics: Metrics, attributes: Mapping[str, AttributeValue]
    ) -> None:
        super().__init__()
        load_tokenizer()
        self.provider = provider
        self.faults = provider.faults
        self._histogram = database_histogram(metrics)
        self._attributes = dict(attributes)
        self._system = str(attributes["db.system.name"])
        self._by_text: dict[str, Call] = {}
        self._by_operation: dict[str, Call] = {}

    @cached_property
    def other(self) -> Call:
        """The call of what is not text, or does not start as a statement does."""
        return self._make(Statement(""))

    def __missing__(self, statement: object) -> Call:
        """Return the call of a statement that was not seen lately."""
        if isinstance(statement, (bytes, bytearray)):
            return self[bytes(statement[:MAX_LENGTH]).decode("utf-8", "replace")]
        if not isinstance(statement, str):
            return self.other
        if len(statement) > MAX_LENGTH:
            return self[str(statement[:MAX_LENGTH])]
        text = mask(statement, self._system)
        call = self._by_text.get(text)
        if call is None:
            if len(self._by_text) < MAX_STATEMENTS:
                call = self._by_text.setdefault(text, self._make(describe(text, self._system)))
            else:
                call = self._over(text)
        # Statements with their literals in them are ever new: forget them, the calls stay.
        if len(self) >= MAX_STATEMENTS:
            self.clear()
        if type(statement) is str:
            self[statement] = call
        return call

    def of(self, statement: object) -> Call:
        """Return the call of anything, also of what cannot be a key."""
        try:
            return self[statement]
        except TypeError:
            return self.__missing__(statement)

    def failed(
        self,
        statement: object,
        start: int,
        error: BaseException,
        attributes: dict[str, AttributeValue] | None = None,
    ) -> None:
        """Record a call that raised `error` just now."""
        end = now()
        try:
            code = _status_code(error)
            if code is not None:
                attributes = {**(attributes or {}), "db.response.status_code": code}
            record_call(self.of(statement), start, end, error, attributes)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self.faults.internal("database call", fault)

    def _over(self, text: str) -> Call:
        operation = first_keyword(text)
        if operation is None:
            return self.other
        call = self._by_operation.get(operation)
        if call is None:
            call = self._by_operation[operation] = self._make(Statement("", operation=operation))
        return call

    def _make(self, statement: Statement) -> Call:
        found = {
            **self._attributes,
            "db.operation.name": statement.operation,
            "db.collection.name": statement.collection,
            "db.query.summary": statement.summary,
            "db.query.text": statement.text,
        }
        return database_call(self.provider, self._histogram, found)


def database_call(
    provider: TracerProvider, histogram: Histogram, attributes: Mapping[str, AttributeValue | None]
) -> Call:
    """Return a call with the name and the labels that the semantic conventions give it."""
    found = {key: value for key, value in attributes.items() if value is not None and value != ""}
    operation, collection = found.get("db.operation.name"), found.get("db.collection.name")
    name = found.get("db.query.summary") or " ".join(
        str(part) for part in (operation, collection) if part
    )
    return Call(
        provider,
        histogram,
        str(name or found["db.system.name"]),
        found,
        {key: found[key] for key in _DATABASE_LABELS if key in found},
    )


_DATABASE_LABELS = (
    "db.system.name",
    "db.namespace",
    "db.operation.name",
    "db.collection.name",
    "db.query.summary",
)


def _status_code(error: BaseException) -> str | None:
    """Return the SQLSTATE of psycopg and others, or the name of SQLite's error code."""
    for attribute in ("sqlstate", "pgcode", "sqlite_errorname"):
        code = getattr(error, attribute, None)
        if isinstance(code, str):
            return code
    return None


class CacheCalls(dict["tuple[str, bool | None]", Call]):
    """The calls of one cache, by operation and hit; a missing one is made.

    Args:
        provider: takes calls that are made outside every trace.
        metrics: where their durations go.
        name: of the cache.
        tier: "memory" or "remote", where it is known.
    """

    def __init__(
        self, provider: TracerProvider, metrics: Metrics, name: str, tier: str | None = None
    ) -> None:
        super().__init__()
        self.provider = provider
        self.faults = provider.faults
        self._histogram = metrics.histogram(
            "cache.client.operation.duration",
            "s",
            "Duration of cache operations.",
            CACHE_DURATION_BOUNDARIES,
        )
        self._name = name
        self._tier = tier

    def __missing__(self, key: tuple[str, bool | None]) -> Call:
        """Make the call of an operation."""
        operation, hit = key
        if len(self) >= MAX_OPERATIONS or not _WORD.match(operation):
            operation = "_OTHER"
        labels: dict[str, AttributeValue] = {"cache.name": self._name, "cache.operation": operation}
        if hit is not None:
            labels["cache.hit"] = hit
        if self._tier is not None:
            labels["cache.tier"] = self._tier
        kind = SpanKind.CLIENT if self._tier == "remote" else SpanKind.INTERNAL
        call = Call(
            self.provider, self._histogram, f"{operation} {self._name}", labels, labels, kind
        )
        if len(self) < MAX_OPERATIONS + 3:  # the three of _OTHER
            call = self.setdefault((operation, hit), call)
        return call
