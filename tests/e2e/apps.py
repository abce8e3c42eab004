"""The application that the e2e tests serve under a real uvicorn, as its users write one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import cachetools
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse

import apmkit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = FastAPI()
agent = apmkit.instrument(app, service_name="shop")

_plain = sqlite3.connect(":memory:", check_same_thread=False)
_plain.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
_plain.executemany("INSERT INTO items VALUES (?, ?)", [(n, f"item {n}") for n in range(1, 101)])
database = agent.wrap(_plain)
cache: Any = agent.wrap(cachetools.TTLCache(1_000, 60.0), name="items")


@app.get("/items/{number}")
async def item(number: int) -> dict[str, str]:
    name = cache.get(number)
    if name is None:
        row = database.execute("SELECT name FROM items WHERE id = ?", (number,)).fetchone()
        name = cache[number] = row[0]
    return {"name": name}


@app.get("/broken/{number}")
async def broken(number: int) -> dict[str, str]:
    database.execute("SELECT name FROM items WHERE id = ?", (number,)).fetchone()
    message = f"item {number} is broken"
    raise LookupError(message)


@app.get("/stats")
async def stats() -> dict[str, Any]:
    return agent.stats()


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(20):
            yield b"%04d" % number
            await asyncio.sleep(0.005)

    return StreamingResponse(pieces(), media_type="application/octet-stream")


@app.get("/events")
async def events() -> StreamingResponse:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(endless(), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await socket.receive_text())
