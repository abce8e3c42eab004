"""Caches: cachetools and other mappings, and any object with get, set and delete."""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from apmkit.instrument.kept import CacheCalls, shared
from apmkit.instrument.proxy import Proxy
from apmkit.record.call import record_call
from apmkit.record.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apmkit.record.call import Call
    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider

_ABSENT = object()


def is_mapping(client: object) -> bool:
    """Tell whether `client` is a mutable mapping, as the caches of cachetools are."""
    return isinstance(client, MutableMapping)


def is_get_set_delete(client: object) -> bool:
    """Tell whether `client` has methods get, set and delete."""
    return all(callable(getattr(client, name, None)) for name in ("get", "set", "delete"))


def wrap_mapping(
    client: Any, provider: TracerProvider, metrics: Metrics, name: str | None
) -> CachedMapping:
    """Return a mapping whose lookups are recorded as hits and misses."""
    return CachedMapping(client, _calls(client, provider, metrics, name, "memory"))


def wrap_get_set_delete(
    client: Any,
    provider: TracerProvider,
    metrics: Metrics,
    name: str | None,
) -> CacheClient:
    """Return a client whose get, set and delete are recorded, plain or async."""
    return CacheClient(client, _calls(client, provider, metrics, name, None))


def _calls(
    client: object, provider: TracerProvider, metrics: Metrics, name: str | None, tier: str | None
) -> CacheCalls:
    name = name or type(client).__name__
    return shared(
        provider, ("cache", name, tier), lambda: CacheCalls(provider, metrics, name, tier)
    )


class CachedMapping(Proxy):
    """A mapping that stands before a cache.

    `get` and `[]` are lookups, and a stored None is a hit. `in` is an operation of its own,
    "contains": most often a lookup of the same key follows.
    """

    __slots__ = ("_calls", "_delete", "_get", "_getitem", "_hit", "_miss", "_set")

    _calls: CacheCalls
    _get: Callable[..., Any]
    _getitem: Callable[[Any], Any]
    _hit: Call
    _miss: Call
    _set: Call
    _delete: Call

    def __init__(self, wrapped: Any, calls: CacheCalls) -> None:
        super().__init__(wrapped)
        own = object.__setattr__
        own(self, "_calls", calls)
        own(self, "_get", wrapped.get)
        own(self, "_getitem", wrapped.__getitem__)
        own(self, "_hit", calls["get", True])
        own(self, "_miss", calls["get", False])
        own(self, "_set", calls["set", None])
        own(self, "_delete", calls["delete", None])

    def get(self, key: Any, default: Any = None) -> Any:
        """Look up `key`."""
        start = now()
        try:
            value = self._get(key, _ABSENT)
        except BaseException as error:
            self._record(self._calls["get", None], start, error)
            raise
        end = now()
        try:
            if value is _ABSENT:
                record_call(self._miss, start, end)
                return default
            record_call(self._hit, start, end)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self._calls.faults.internal("cache", fault)
        return default if value is _ABSENT else value

    def __getitem__(self, key: Any) -> Any:
        """Look up `key`; KeyError is a miss."""
        start = now()
        try:
            value = self._getitem(key)
        except KeyError:
            self._record(self._miss, start)
            raise
        except BaseException as error:
            self._record(self._calls["get", None], start, error)
            raise
        end = now()
        try:
            record_call(self._hit, start, end)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self._calls.faults.internal("cache", fault)
        return value

    def __contains__(self, key: object) -> bool:
        """Tell whether `key` is there."""
        start = now()
        found = key in self.__wrapped__
        self._record(self._calls["contains", found], start)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        """Store `value`."""
        self._measure(self._set, self.__wrapped__.__setitem__, key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Store `default` unless there is a value; return what is stored then."""
        return self._measure(self._set, self.__wrapped__.setdefault, key, default)

    def __delitem__(self, key: Any) -> None:
        """Delete `key`."""
        self._measure(self._delete, self.__wrapped__.__delitem__, key)

    def pop(self, key: Any, *default: Any, **options: Any) -> Any:
        """Delete `key` and return its value."""
        pop = self.__wrapped__.pop
        return self._measure(self._delete, lambda: pop(key, *default, **options))

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the keys."""
        return iter(self.__wrapped__)

    def __reversed__(self) -> Iterator[Any]:
        """Iterate over the keys from the end, where the mapping can."""
        found: Iterator[Any] = reversed(self.__wrapped__)
        return found

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self.__wrapped__)

    def __or__(self, other: Any) -> Any:
        """Merge, where the mapping can."""
        return self.__wrapped__ | getattr(other, "__wrapped__", other)

    def __ror__(self, other: Any) -> Any:
        """Merge, where the mapping can."""
        return other | self.__wrapped__

    def __ior__(self, other: Any) -> Any:
        """Take another mapping's items in; the cache stays wrapped."""
        merged = self.__wrapped__
        merged |= getattr(other, "__wrapped__", other)
        return self

    def _measure(self, call: Call, function: Callable[..., Any], *arguments: Any) -> Any:
        start = now()
        try:
            result = function(*arguments)
        except KeyError:
            self._record(call, start)  # nothing there to delete: an answer, not a failure
            raise
        except BaseException as error:
            self._record(call, start, error)
            raise
        self._record(call, start)
        return result

    def _record(self, call: Call, start: int, error: BaseException | None = None) -> None:
        end = now()
        try:
            record_call(call, start, end, error)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self._calls.faults.internal("cache", fault)


class CacheClient(Proxy):
    """Stands before an object with get, set and delete; their results may be awaitable.

    `get` that answers None, or the default it was given, is a miss.
    """

    __slots__ = ("_calls",)

    _calls: CacheCalls

    def __init__(self, wrapped: Any, calls: CacheCalls) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_calls", calls)

    def get(self, key: Any, *arguments: Any, **options: Any) -> Any:
        """Look up `key`."""
        default = arguments[0] if arguments else options.get("default")
        return self._measure("get", default, self.__wrapped__.get, key, *arguments, **options)

    def set(self, *arguments: Any, **options: Any) -> Any:
        """Store a value."""
        return self._measure("set", None, self.__wrapped__.set, *arguments, **options)

    def delete(self, *arguments: Any, **options: Any) -> Any:
        """Delete a key."""
        return self._measure("delete", None, self.__wrapped__.delete, *arguments, **options)

    def _measure(
        self,
        operation: str,
        default: Any,
        function: Callable[..., Any],
        /,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        start = now()
        try:
            result = function(*arguments, **options)
        except BaseException as error:
            self._record(operation, None, start, error)
            raise
        if hasattr(result, "__await__"):
            return self._awaited(operation, default, result)
        self._record(operation, _is_hit(operation, result, default), start)
        return result

    async def _awaited(self, operation: str, default: Any, result: Any) -> Any:
        start = now()
        try:
            value = await result
        except BaseException as error:
            self._record(operation, None, start, error)
            raise
        self._record(operation, _is_hit(operation, value, default), start)
        return value

    def _record(
        self,
        operation: str,
        hit: bool | None,  # noqa: FBT001 - one of the two keys of a call
        start: int,
        error: BaseException | None = None,
    ) -> None:
        end = now()
        try:
            record_call(self._calls[operation, hit], start, end, error)
        except Exception as fault:  # noqa: BLE001 - the agent never raises into the application
            self._calls.faults.internal("cache", fault)


def _is_hit(operation: str, value: object, default: object) -> bool | None:
    return (value is not None and value is not default) if operation == "get" else None
