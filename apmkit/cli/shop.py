"""The demo's application: a shop on FastAPI, SQLite and an in-process cache."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from typing import TYPE_CHECKING, Any

from cachetools import TTLCache
from fastapi import FastAPI, HTTPException

import apmkit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from apmkit.relay.export import Exporter

PRODUCTS = 200
DECLINED_EVERY = 10
"""The bank declines payments for products whose number this divides."""

_CARRIER_SECONDS = 0.25


class PaymentDeclinedError(Exception):
    """The bank does not pay."""


def build(
    database_path: Path,
    *,
    exporters: Sequence[str | Exporter],
    disabled: bool = False,
) -> tuple[FastAPI, apmkit.Agent]:
    """Return the shop, instrumented, and its agent.

    Args:
        database_path: the SQLite file; it is filled if there is none.
        exporters: as for `apmkit.instrument`.
        disabled: build the shop without the agent: no middleware, no wrapped clients.
    """
    options: dict[str, Any] = {}
    if disabled and "telemetry" in inspect.signature(FastAPI).parameters:
        # Newer ones record requests by themselves as soon as any agent of the process is there.
        options["telemetry"] = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPI(title="shop", **options)
    agent = apmkit.instrument(
        app, service_name="shop", exporters=exporters, slow_after=0.2, disabled=disabled
    )
    database = agent.wrap(_open(database_path))
    cache: TTLCache[int, dict[str, Any]] = TTLCache(maxsize=PRODUCTS // 2, ttl=60)
    products = agent.wrap(cache, name="products")

    def find(product_id: int) -> dict[str, Any]:
        found: dict[str, Any] | None = products.get(product_id)
        if found is None:
            query = "SELECT name, price FROM product WHERE id = ?"
            row = database.execute(query, (product_id,)).fetchone()
            if row is None:
                raise HTTPException(404, f"there is no product {product_id}")
            found = products[product_id] = {"name": row[0], "price": row[1]}
        return found

    @app.get("/products")
    async def list_products() -> list[str]:
        query = "SELECT name FROM product ORDER BY price LIMIT 20"
        return [name for (name,) in database.execute(query)]

    @app.get("/products/{product_id}")
    async def show_product(product_id: int) -> dict[str, Any]:
        return find(product_id)

    @app.get("/products/{product_id}/delivery")
    async def estimate_delivery(product_id: int) -> dict[str, int]:
        find(product_id)
        query = "SELECT count(*) FROM orders WHERE product_id = ?"
        (waiting,) = database.execute(query, (product_id,)).fetchone()
        with agent.span("ask the carrier", product=product_id):
            await asyncio.sleep(_CARRIER_SECONDS)
        return {"days": 2 + waiting // 100}

    @app.post("/orders/{product_id}", status_code=201)
    async def order(product_id: int) -> dict[str, int | None]:
        price = find(product_id)["price"]
        statement = "INSERT INTO orders (product_id, price) VALUES (?, ?)"
        number = database.execute(statement, (product_id, price)).lastrowid
        with agent.span("charge the card", price=price):
            if not product_id % DECLINED_EVERY:
                raise PaymentDeclinedError(f"the bank declined the payment of order {number}")
        database.execute("UPDATE orders SET paid = 1 WHERE id = ?", (number,))
        return {"order": number}

    return app, agent


def _open(path: Path) -> sqlite3.Connection:
    # The server's thread uses the connection that this one makes.
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.executescript(
        """
        PRAGMA synchronous = OFF;
        CREATE TABLE IF NOT EXISTS product (id INTEGER PRIMARY KEY, name TEXT, price REAL);
        CREATE TABLE IF NOT EXISTS orders (
            id INTEGER PRIMARY KEY, product_id INTEGER, price REAL, paid INTEGER DEFAULT 0
        );
        CREATE INDEX IF NOT EXISTS orders_product ON orders (product_id);
        """
    )
    connection.executemany(
        "INSERT OR IGNORE INTO product VALUES (?, ?, ?)",
        [(number, f"product {number}", 5 + number * 0.5) for number in range(1, PRODUCTS + 1)],
    )
    return connection
