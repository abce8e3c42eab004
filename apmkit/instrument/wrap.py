"""Choosing the wrapper of a client, by looking at it; no library is imported for that."""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apmkit.instrument import aiosqlite, cache, dbapi, redis, sqlite
from apmkit.instrument.proxy import is_proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider

    Wrapper = Callable[[Any, TracerProvider, Metrics, "str | None"], Any]

# The first that fits wraps: what looks like several of them (a Redis client also has get, set and
# delete) stands before what it looks like.
_WRAPPERS: list[tuple[Callable[[object], bool], Wrapper]] = [
    (aiosqlite.is_connection, aiosqlite.wrap_connection),
    (redis.is_client, redis.wrap_client),
    (sqlite.is_sqlite_connection, sqlite.wrap_sqlite),
    (dbapi.is_connection, dbapi.wrap_connection),
    (cache.is_mapping, cache.wrap_mapping),
    (cache.is_get_set_delete, cache.wrap_get_set_delete),
]


def wrap(
    client: Any, provider: TracerProvider, metrics: Metrics, *, name: str | None = None
) -> Any:
    """Return `client` with its calls recorded; a second time changes nothing.

    Args:
        client: a PEP 249 connection, an aiosqlite connection, a redis client, a mapping such as a
            cachetools cache, or any object with get, set and delete.
        provider: the agent's.
        metrics: the agent's.
        name: of a cache, for the label `cache.name`; with a Redis client, that it is used as a
            cache, whose hits and misses are to be counted.

    Returns:
        The same object where it can be changed in place (redis, aiosqlite), else a proxy that
        passes `isinstance`, with the client in `__wrapped__`.

    Raises:
        TypeError: if there is no wrapper for `client`.
    """
    if is_proxy(client):
        return client
    for fits, wrapper in _WRAPPERS:
        if not isinstance(client, type) and fits(client):
            return wrapper(client, provider, metrics, name)
    raise TypeError(
        f"cannot wrap {type(client).__module__}.{type(client).__qualname__}: wrap a PEP 249"
        " connection (sqlite3, psycopg, …), an aiosqlite connection, a redis or redis.asyncio"
        " client, a mapping such as a cachetools cache, or an object with get, set and delete;"
        " for anything else there are agent.db_call and agent.cache_call"
    )
