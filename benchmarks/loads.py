"""The two applications under load, and the requests that are sent to them."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

LOADS = ("hello", "work")

_DISHES = 64
_DISHES_ASKED_FOR = 80  # a fifth of the ids are unknown: cache reads miss, as they do in life
_BY_ID = "SELECT id, name, price FROM dish WHERE id = ?"
_CHEAPER = "SELECT id, name, price FROM dish WHERE price < ? ORDER BY price LIMIT 5"
_SELL = "UPDATE dish SET sold = sold + 1 WHERE id = ?"


@dataclass(frozen=True)
class Backends:
    """What the `work` load calls; an agent's row replaces them with its own wrappers.

    Attributes:
        connection: A DB-API connection.
        read: One cache read: the value of a key, or None.
    """

    connection: Any
    read: Callable[[str], object]


def bare_connection() -> sqlite3.Connection:
    """Make the in-memory database, without transactions around single statements."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(
        "CREATE TABLE dish (id INTEGER PRIMARY KEY, name TEXT, price REAL, sold INT)"
    )
    connection.executemany(
        "INSERT INTO dish VALUES (?, ?, ?, 0)",
        [(number, f"dish {number}", number * 0.5) for number in range(_DISHES)],
    )
    connection.execute("CREATE INDEX dish_price ON dish (price)")
    return connection


def bare_cache() -> LRUCache[str, object]:
    """Make the cache that the `work` load reads."""
    cache: LRUCache[str, object] = LRUCache(maxsize=4 * _DISHES)
    for number in range(_DISHES):
        cache[f"dish:{number}"] = {"vegan": number % 3 == 0}
        cache[f"stock:{number}"] = number
    return cache


def application(load: str, backends: Backends) -> Starlette:
    """Build the bare Starlette application of a load, which only `work` gives backends to use."""
    if load == "hello":
        return Starlette(routes=[Route("/hello/{name}", _hello)])

    async def order(request: Request) -> JSONResponse:
        number = int(request.path_params["dish"])
        cursor = backends.connection.cursor()
        row = cursor.execute(_BY_ID, (number,)).fetchone()
        cheaper = cursor.execute(_CHEAPER, (number * 0.5,)).fetchall()
        cursor.execute(_SELL, (number,))
        details = backends.read(f"dish:{number}")
        stock = backends.read(f"stock:{number}")
        return JSONResponse({"dish": row, "cheaper": cheaper, "details": details, "stock": stock})

    return Starlette(routes=[Route("/order/{dish}", order)])


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.path_params['name']}")


def paths(load: str) -> Iterator[str]:
    """Yield the request paths of a load, for ever."""
    if load == "hello":
        return itertools.cycle(f"/hello/{name}" for name in ("ada", "grace", "edsger", "barbara"))
    return itertools.cycle(f"/order/{number}" for number in range(_DISHES_ASKED_FOR))


_HEADERS = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench/1"), (b"accept", b"*/*")]


def scope_of(path: str) -> Scope:
    """Make the scope that uvicorn makes for a GET of this path."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "headers": list(_HEADERS),
        "state": {},
    }


def receiver() -> Receive:
    """Make the receive of one request: its empty body, then the client's disconnect."""
    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"", "more_body": False},
    ]

    async def receive() -> Message:
        return messages.pop()

    return receive


def swallow() -> Send:
    """Make a send that drops what it is given."""

    async def send(message: Message) -> None:
        pass

    return send
