from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import cachetools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit.instrument import cache as cache_wrapper
from apmkit.instrument.wrap import wrap

if TYPE_CHECKING:
    from tests.instrument.conftest import Recording

METRIC = "cache.client.operation.duration"


def counts(recording: Recording) -> dict[tuple[Any, ...], int]:
    return recording.counts(METRIC, "cache.operation", "cache.hit")


@pytest.fixture
def menu(recording: Recording) -> cachetools.LRUCache[str, object]:
    cache: cachetools.LRUCache[str, object] = wrap(
        cachetools.LRUCache(10), recording.provider, recording.metrics, name="menu"
    )
    return cache


def test_a_lookup_is_a_hit_or_a_miss(
    menu: cachetools.LRUCache[str, object], recording: Recording
) -> None:
    menu["soup"] = 4
    assert menu.get("soup") == 4
    assert menu["soup"] == 4
    assert menu.get("tea") is None
    assert menu.get("tea", "none") == "none"
    with pytest.raises(KeyError, match="tea"):
        menu["tea"]
    assert counts(recording) == {("set", None): 1, ("get", True): 2, ("get", False): 3}
    assert recording.names == [
        "set menu",
        "get menu",
        "get menu",
        "get menu",
        "get menu",
        "get menu",
    ]
    assert recording.last == {
        "cache.name": "menu",
        "cache.operation": "get",
        "cache.hit": False,
        "cache.tier": "memory",
    }
    assert recording.calls[-1].error is None
    assert recording.calls[-1].call.kind.name == "INTERNAL"


@pytest.mark.parametrize("value", [None, 0, "", []])
def test_a_stored_nothing_is_a_hit(
    menu: cachetools.LRUCache[str, object], recording: Recording, value: object
) -> None:
    menu["k"] = value
    assert menu.get("k", "default") == value
    assert counts(recording)["get", True] == 1


def test_other_operations_are_what_they_do(
    menu: cachetools.LRUCache[str, object], recording: Recording
) -> None:
    assert menu.setdefault("a", 1) == 1
    assert "a" in menu
    assert "b" not in menu
    del menu["a"]
    assert menu.pop("b", 5) == 5
    with pytest.raises(KeyError):
        menu.pop("b")
    assert counts(recording) == {
        ("set", None): 1,
        ("contains", True): 1,
        ("contains", False): 1,
        ("delete", None): 3,
    }


def test_an_error_of_the_cache_passes_unchanged(
    menu: cachetools.LRUCache[Any, object], recording: Recording
) -> None:
    with pytest.raises(TypeError):
        menu.get([])
    with pytest.raises(TypeError):
        menu[[]]
    assert recording.counts(METRIC, "cache.hit", "error.type") == {(None, "TypeError"): 2}


def test_the_proxy_is_a_cache(menu: cachetools.LRUCache[str, object]) -> None:
    menu["a"] = 1
    assert isinstance(menu, cachetools.LRUCache)
    assert isinstance(menu, MutableMapping)
    assert (len(menu), list(menu), dict(menu), menu.currsize, menu.maxsize) == (
        1,
        ["a"],
        {"a": 1},
        1,
        10,
    )
    menu.update(b=2)
    assert menu.popitem() == ("a", 1)
    assert copy.copy(menu).get("b") == 2
    assert pickle.loads(pickle.dumps(menu))["b"] == 2  # noqa: S301 - pickled here
    menu.clear()
    assert not menu


def test_wrapping_twice_changes_nothing(
    menu: cachetools.LRUCache[str, object], recording: Recording
) -> None:
    assert wrap(menu, recording.provider, recording.metrics, name="other") is menu


def test_a_cached_function_records_its_lookups(
    menu: cachetools.LRUCache[Any, object], recording: Recording
) -> None:
    computed = []

    @cachetools.cached(menu)
    def square(number: int) -> int:
        computed.append(number)
        return number * number

    assert [square(3), square(3), square(4)] == [9, 9, 16]
    assert computed == [3, 4]
    assert counts(recording) == {("get", True): 1, ("get", False): 2, ("set", None): 2}


def test_a_cache_without_a_name_has_that_of_its_class(recording: Recording) -> None:
    wrap(cachetools.TTLCache(1, 1), recording.provider, recording.metrics).get("a")
    assert recording.names == ["get TTLCache"]


def test_an_expired_entry_is_a_miss(recording: Recording) -> None:
    clock = [0.0]
    cache = wrap(
        cachetools.TTLCache(5, 10, timer=lambda: clock[0]),
        recording.provider,
        recording.metrics,
        name="c",
    )
    cache["a"] = 1
    assert cache.get("a") == 1
    clock[0] = 11
    assert cache.get("a") is None
    assert counts(recording) == {("set", None): 1, ("get", True): 1, ("get", False): 1}


class Store:
    """A client as memcached's are."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def get(self, key: str, default: object = None) -> object:
        return self.values.get(key, default)

    def set(self, key: str, value: object, *, expire: int = 0) -> bool:
        self.values[key] = (value, expire) if expire else value
        return True

    def delete(self, key: str) -> None:
        del self.values[key]


class AsyncStore:
    def __init__(self) -> None:
        self.store = Store()

    async def get(self, key: str) -> object:
        await asyncio.sleep(0)
        return self.store.get(key)

    async def set(self, key: str, value: object) -> bool:
        return self.store.set(key, value)

    async def delete(self, key: str) -> None:
        self.store.delete(key)


def test_an_object_with_get_set_and_delete_is_a_cache(recording: Recording) -> None:
    store = wrap(Store(), recording.provider, recording.metrics, name="store")
    assert isinstance(store, Store)
    assert store.set("a", 0, expire=3)
    assert store.get("a") == (0, 3)
    assert store.get("b") is None
    assert store.get("b", default="x") == "x"
    store.delete("a")
    assert store.values == {}
    with pytest.raises(KeyError):
        store.delete("a")
    assert recording.counts(METRIC, "cache.operation", "cache.hit", "error.type") == {
        ("set", None, None): 1,
        ("get", True, None): 1,
        ("get", False, None): 2,
        ("delete", None, None): 1,
        ("delete", None, "KeyError"): 1,
    }


def test_an_async_store_is_recorded_when_awaited(recording: Recording) -> None:
    async def use() -> None:
        store = wrap(AsyncStore(), recording.provider, recording.metrics, name="store")
        assert await store.get("a") is None
        assert await store.set("a", 1)
        assert await store.get("a") == 1
        await store.delete("a")
        with pytest.raises(KeyError):
            await store.delete("a")

    asyncio.run(use())
    assert recording.counts(METRIC, "cache.operation", "cache.hit", "error.type") == {
        ("get", False, None): 1,
        ("set", None, None): 1,
        ("get", True, None): 1,
        ("delete", None, None): 1,
        ("delete", None, "KeyError"): 1,
    }


def test_a_fault_of_the_agent_does_not_reach_the_application(
    menu: cachetools.LRUCache[str, object], recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.faults.reraise = False

    def broken(*_: object) -> None:
        raise RuntimeError("fault")

    monkeypatch.setattr(cache_wrapper, "record_call", broken)
    menu["a"] = 1
    assert menu.get("a") == 1
    assert menu.get("b", 2) == 2
    assert menu["a"] == 1
    errors = recording.metrics.counter("apmkit.internal.errors").bind({"apmkit.place": "cache"})
    assert errors.value == 4


KEYS = st.integers(0, 4)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["get", "[]", "in", "del", "pop"]), KEYS),
    st.tuples(
        st.sampled_from(["set", "setdefault", "pop2", "get2"]), KEYS, st.none() | st.integers()
    ),
    st.tuples(st.sampled_from(["len", "list", "popitem", "clear"])),
)
ACTIONS: dict[str, Any] = {
    "get": lambda c, k: c.get(k),
    "get2": lambda c, k, d: c.get(k, d),
    "[]": lambda c, k: c[k],
    "in": lambda c, k: k in c,
    "del": lambda c, k: c.__delitem__(k),
    "pop": lambda c, k: c.pop(k),
    "pop2": lambda c, k, d: c.pop(k, d),
    "set": lambda c, k, v: c.__setitem__(k, v),
    "setdefault": lambda c, k, v: c.setdefault(k, v),
    "len": len,
    "list": list,
    "popitem": lambda c: c.popitem(),
    "clear": lambda c: c.clear(),
}


@given(st.lists(STEPS, max_size=20))
def test_a_wrapped_cache_does_what_a_bare_one_does(
    make_recording: type[Recording], steps: list[tuple[Any, ...]]
) -> None:
    recording = make_recording()
    bare: cachetools.LRUCache[int, Any] = cachetools.LRUCache(3)
    proxy = wrap(cachetools.LRUCache(3), recording.provider, recording.metrics)
    for step in steps:
        seen = []
        for cache in (bare, proxy):
            try:
                seen.append(ACTIONS[step[0]](cache, *step[1:]))
            except KeyError as error:  # noqa: PERF203 - both may raise
                seen.append(repr(error))
        assert seen[0] == seen[1]


def test_pop_with_a_named_default_and_merging_do_as_the_bare_cache(recording: Recording) -> None:
    bare: cachetools.TTLCache[str, int] = cachetools.TTLCache(2, 60)
    cache: Any = wrap(bare, recording.provider, recording.metrics, name="menu")
    assert cache.pop("absent", default=3) == 3
    mapping: Any = wrap({"a": 1}, recording.provider, recording.metrics, name="plain")
    same = mapping
    mapping |= {"b": 2}
    assert mapping is same
    assert {"c": 3} | mapping == {"c": 3, "a": 1, "b": 2}
    assert mapping | mapping == {"a": 1, "b": 2}
