"""A small shop on FastAPI, SQLite and an in-process cache. Start it with: uvicorn app:app."""

import sqlite3

from cachetools import TTLCache
from fastapi import FastAPI, HTTPException

import apmkit

app = FastAPI()
agent = apmkit.instrument(app, service_name="shop")
database = agent.wrap(sqlite3.connect(":memory:", check_same_thread=False))
cache: TTLCache[int, str] = agent.wrap(TTLCache(maxsize=1000, ttl=60), name="products")

database.execute("CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT)")
database.execute("INSERT INTO product VALUES (1, 'lamp'), (2, 'chair')")


@app.get("/products/{product_id}")
async def product(product_id: int) -> dict[str, str]:
    """Answer from the cache if the product is there, else from the database."""
    name = cache.get(product_id)
    if name is None:
        row = database.execute("SELECT name FROM product WHERE id = ?", (product_id,)).fetchone()
        if row is None:
            raise HTTPException(404, f"there is no product {product_id}")
        name = cache[product_id] = row[0]
    return {"name": name}
