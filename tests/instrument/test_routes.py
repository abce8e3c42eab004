"""Route templates, as real routers leave them in the scope."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar, get
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from apmkit.instrument.routes import route_template
from tests.instrument.driving import drive, http_scope

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

    from apmkit.instrument.asgi_types import Application, Receive, Scope, Send


def template(app: Application, path: str, method: str = "GET", **changes: Any) -> str | None:  # noqa: ANN401 - any application, any value
    """Return the template of a request after the application has answered it."""
    scope = http_scope(path, method, **changes)
    asyncio.run(drive(app, scope))
    return route_template(scope)


async def ok(_: Request) -> Response:
    return PlainTextResponse("ok")


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


DEEP = Starlette(routes=[Route("/{name}", ok), Route("/", ok)])
MIDDLE = Router(routes=[Mount("/{shelf}", app=DEEP)])
STARLETTE = Starlette(
    routes=[
        Route("/users/{user_id:int}", ok, methods=["GET"]),
        Route("/files/{path:path}", ok),
        Mount("/sub/{tenant}", app=DEEP),
        Mount("/stores/{store}", app=MIDDLE),
        Mount("/plain", app=bare),
        Host("{tenant}.shop.example", app=Router(routes=[Route("/orders/{order_id}", ok)])),
    ]
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users/7", "/users/{user_id}"),
        ("/files/a/b/c.txt", "/files/{path}"),
        ("/sub/acme/ann", "/sub/{tenant}/{name}"),
        ("/sub/acme/", "/sub/{tenant}/"),
        ("/stores/north/top/ann", "/stores/{store}/{shelf}/{name}"),
        ("/plain/anything/at/all", "/plain/{path}"),
    ],
)
def test_a_starlette_route_has_its_template_with_mounts(path: str, expected: str) -> None:
    assert template(STARLETTE, path) == expected


def test_a_host_route_has_the_template_of_the_route_inside() -> None:
    headers = [(b"host", b"acme.shop.example")]
    assert template(STARLETTE, "/orders/12", headers=headers) == "/orders/{order_id}"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/users/not-a-number"])
def test_a_request_without_a_route_has_no_template(path: str) -> None:
    assert template(STARLETTE, path) is None


def test_a_method_that_a_route_does_not_have_counts_for_the_route() -> None:
    assert template(STARLETTE, "/users/7", "DELETE") == "/users/{user_id}"


def test_a_root_path_of_the_server_is_not_part_of_the_template() -> None:
    assert template(STARLETTE, "/shop/users/7", root_path="/shop") == "/users/{user_id}"
    assert template(STARLETTE, "/shop/sub/acme/ann", root_path="/shop") == "/sub/{tenant}/{name}"


def test_static_files_count_as_their_mount(tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>", encoding="utf-8")
    app = Starlette(routes=[Mount("/static", app=StaticFiles(directory=tmp_path))])
    assert template(app, "/static/logo.svg") == "/static/{path}"
    assert template(app, "/static/missing.svg") == "/static/{path}"


def fastapi_app() -> FastAPI:
    inner, router, api = APIRouter(), APIRouter(), FastAPI()

    @inner.get("/lines/{line}")
    async def line(order_id: int, line: int) -> int:
        return order_id + line

    @router.get("/users/{user_id}")
    async def user(user_id: int) -> int:
        return user_id

    router.include_router(inner, prefix="/orders/{order_id}")
    api.include_router(router, prefix="/v1")
    api.include_router(router, prefix="/v2")
    api.get("/users/{user_id}")(user)
    part = FastAPI()
    part.get("/rooms/{room}")(user_of_room)
    api.mount("/part", part)
    return api


async def user_of_room(room: str) -> str:
    return room


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users/7", "/users/{user_id}"),
        ("/v1/users/7", "/v1/users/{user_id}"),
        ("/v2/users/7", "/v2/users/{user_id}"),
        ("/v2/orders/3/lines/4", "/v2/orders/{order_id}/lines/{line}"),
        ("/v1/users/nobody", "/v1/users/{user_id}"),
        ("/part/rooms/blue", "/part/rooms/{room}"),
        ("/openapi.json", "/openapi.json"),
        ("/nowhere", None),
        ("/v1/nowhere", None),
    ],
)
def test_a_fastapi_route_has_its_template_with_prefixes(path: str, expected: str | None) -> None:
    assert template(fastapi_app(), path) == expected


def test_the_template_of_a_405_has_the_prefix_too() -> None:
    assert template(fastapi_app(), "/v1/users/7", "DELETE") == "/v1/users/{user_id}"


@pytest.mark.filterwarnings(
    "ignore:.*inferred style"
)  # Litestar's newer spelling is not in all versions
def test_a_litestar_route_has_its_template() -> None:
    @get("/users/{user_id:int}")
    async def user(user_id: int) -> int:
        return user_id

    app: Any = Litestar([user])
    assert template(app, "/users/7") == "/users/{user_id}"
    assert template(app, "/nowhere") is None


def test_an_application_without_a_router_has_no_template() -> None:
    assert template(bare, "/users/7") is None


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/users/7", "GET", "/users/{user_id}"),
        ("/users/7", "DELETE", "/users/{user_id}"),
        ("/sub/acme/ann", "GET", "/sub/{tenant}/{name}"),
        ("/stores/north/top/ann", "GET", "/stores/{store}/{shelf}/{name}"),
        ("/plain/x", "GET", "/plain/{path}"),
        ("/nowhere", "GET", None),
    ],
)
def test_starlette_before_1_10_which_leaves_no_route_gives_the_same(
    path: str, method: str, expected: str | None
) -> None:
    scope = http_scope(path, method)
    asyncio.run(drive(STARLETTE, scope))
    scope.pop("route", None)
    assert route_template(scope) == expected


@pytest.mark.parametrize("path", ["/seven/7", "/a/a", "/{name}/x"])
def test_a_path_that_equals_another_parameter_value_stays_a_template(path: str) -> None:
    app = Starlette(routes=[Mount("/{section}", app=Starlette(routes=[Route("/{name}", ok)]))])
    assert template(app, path) == "/{section}/{name}"
