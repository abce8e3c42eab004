"""The requests under which apmkit is compared with OpenTelemetry's ASGI middleware.

A case names the differences that it shows (`equivalence_differences`); every other attribute and
label must be equal.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from tests.instrument.driving import http_scope, websocket_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from apmkit.instrument.asgi_types import Application, Message, Receive, Scope, Send

ALWAYS = ("size on the span",)
STATIC = (*ALWAYS, "port in the address", "route")
"""What a request shows whose path is its route, from a server on a port other than 80."""
ROUTED = (*STATIC, "name by route")
SOCKET = ("port in the address", "route", "handshake")
UNROUTED = (*ALWAYS, "port in the address", "name without path")


class Case(NamedTuple):
    """A request, the application that answers it, and the differences it shows."""

    name: str
    app: Application
    scope: Scope
    differs: tuple[str, ...] = ROUTED
    environment: tuple[tuple[str, str], ...] = ()


async def ok(_: Request) -> Response:
    return PlainTextResponse("ok")


async def teapot(request: Request) -> Response:
    return Response(b"x", int(request.path_params["status"]), media_type="text/plain")


async def enum_status(_: Request) -> Response:
    return PlainTextResponse("x", HTTPStatus.CREATED)


async def redirect(_: Request) -> Response:
    return RedirectResponse("/ok")


async def streaming(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return StreamingResponse(chunks())


async def marked(_: Request) -> Response:
    return PlainTextResponse(
        "ok", headers={"x-shop": "north", "x-region": "eu", "set-cookie": "a=b"}
    )


async def raising(_: Request) -> Response:
    raise LookupError("no such basket")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


async def refusing(socket: WebSocket) -> None:
    await socket.close()


INNER = Starlette(routes=[Route("/{name}", ok)])
SHOP = Starlette(
    routes=[
        Route(
            "/pages/{page}",
            ok,
            methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "QUERY", "OPTIONS"],
        ),
        Route("/items/{item_id:int}", ok),
        Route("/status/{status:int}", teapot),
        Route("/created", enum_status),
        Route("/redirect", redirect),
        Route("/streaming", streaming),
        Route("/marked", marked),
        Route("/raising", raising),
        Mount("/sub/{tenant}", app=INNER),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/refusing", refusing),
    ]
)

_router = APIRouter()


@_router.get("/users/{user_id}")
async def user(user_id: int) -> dict[str, int]:
    return {"id": user_id}


API = FastAPI()
API.include_router(_router, prefix="/v1")
API.include_router(_router, prefix="/v2")
API.get("/users/{user_id}")(user)


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


async def bare_wrong_length(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"two")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


async def bare_raising(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise LookupError("before the response")


async def bare_raising_late(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise LookupError("in the middle of the response")


def with_headers(
    *headers: tuple[bytes, bytes], path: str = "/pages/3", method: str = "GET"
) -> Scope:
    return http_scope(path, method, headers=[(b"host", b"shop.example"), *headers])


def without(name: str, scope: Scope) -> Scope:
    return {key: value for key, value in scope.items() if key != name}


REQUEST_HEADERS = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
RESPONSE_HEADERS = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE"
SANITIZED = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"
EXCLUDED = "OTEL_PYTHON_EXCLUDED_URLS"


def _status(status: int, *more: str) -> Case:
    return Case(f"status {status}", SHOP, http_scope(f"/status/{status}"), (*ROUTED, *more))


CASES = [
    # methods
    *(
        Case(method, SHOP, http_scope("/pages/3", method))
        for method in ("GET", "HEAD", "POST", "PUT", "QUERY")
    ),
    Case("method in lower case", SHOP, http_scope("/pages/3", "get")),
    Case("unknown method", bare, http_scope("/pages/3", "BREW"), UNROUTED),
    Case("unknown method, 405", SHOP, http_scope("/pages/3", "BREW")),
    Case("wrong method, 405", SHOP, http_scope("/items/3", "DELETE")),
    # statuses
    _status(200),
    _status(204, "size as sent"),
    _status(304, "size as sent"),
    *(_status(status) for status in (400, 422, 499, 500, 503)),
    Case("status from an enum", SHOP, http_scope("/created"), STATIC),
    Case("302", SHOP, http_scope("/redirect"), (*STATIC, "size as sent")),
    Case("404", SHOP, http_scope("/nowhere"), UNROUTED),
    Case("FastAPI, 404", API, http_scope("/nowhere"), UNROUTED),
    # query strings
    Case("query", SHOP, http_scope("/pages/3", query_string=b"page=2&q=%C3%A9")),
    Case(
        "secret in the query",
        SHOP,
        http_scope("/pages/3", query_string=b"password=x"),
        (*ROUTED, "secrets"),
    ),
    Case(
        "query not UTF-8",
        SHOP,
        http_scope("/pages/3", query_string=b"q=\xff"),
        ("query not UTF-8",),
    ),
    # user agents
    Case("no user agent", SHOP, with_headers()),
    Case("bot", SHOP, with_headers((b"user-agent", b"Googlebot/2.1"))),
    Case("synthetic test", SHOP, with_headers((b"user-agent", b"alwayson/1.0"))),
    Case("empty user agent", SHOP, with_headers((b"user-agent", b""))),
    Case("user agent in Latin-1", SHOP, with_headers((b"user-agent", b"caf\xe9"))),
    Case("user agent in UTF-8", SHOP, with_headers((b"user-agent", "café".encode()))),
    Case("two user agents", SHOP, with_headers((b"user-agent", b"one"), (b"user-agent", b"two"))),
    # the connection
    Case(
        "no server",
        SHOP,
        http_scope("/pages/3", server=None),
        (*ALWAYS, "route", "name by route", "no server"),
    ),
    Case("unix socket", SHOP, http_scope("/pages/3", server=("/run/shop.sock", None))),
    Case(
        "port 80",
        SHOP,
        http_scope("/pages/3", server=("192.0.2.1", 80)),
        (*ALWAYS, "route", "name by route"),
    ),
    Case("server as a list", SHOP, http_scope("/pages/3", server=["192.0.2.1", 8000])),
    Case("IPv6", SHOP, http_scope("/pages/3", server=("::1", 8000), client=("::1", 50_000, 0, 0))),
    Case("no client", SHOP, http_scope("/pages/3", client=None)),
    Case("no client in the scope", SHOP, without("client", http_scope("/pages/3"))),
    Case("HTTP/1.0", SHOP, http_scope("/pages/3", http_version="1.0")),
    Case("HTTP/2", SHOP, http_scope("/pages/3", http_version="2")),
    Case("HTTP/3", SHOP, http_scope("/pages/3", http_version="3")),
    Case("https", SHOP, http_scope("/pages/3", scheme="https", server=("192.0.2.1", 443))),
    Case(
        "no scheme", bare, without("scheme", http_scope("/pages/3")), (*UNROUTED, "default scheme")
    ),
    # host header
    Case(
        "host with a port", SHOP, http_scope("/pages/3", headers=[(b"host", b"shop.example:8443")])
    ),
    Case("no host", SHOP, http_scope("/pages/3", headers=[])),
    Case("host not UTF-8", SHOP, http_scope("/pages/3", headers=[(b"host", b"caf\xe9")])),
    # paths and routes
    Case("template", SHOP, http_scope("/items/3")),
    Case("mount", SHOP, http_scope("/sub/acme/ann")),
    Case("root_path", SHOP, http_scope("/shop/pages/3", root_path="/shop")),
    Case("empty path", bare, http_scope(""), (*ALWAYS, "port in the address")),
    Case("path in UTF-8", bare, http_scope("/café"), UNROUTED),
    Case("FastAPI", API, http_scope("/users/7")),
    Case("included router", API, http_scope("/v1/users/7")),
    Case("second prefix", API, http_scope("/v2/users/7")),
    Case("validation error, 422", API, http_scope("/users/x")),
    Case("no router", bare, http_scope("/pages/3"), UNROUTED),
    # bodies
    Case("streaming", SHOP, http_scope("/streaming"), (*STATIC, "size as sent", "own attributes")),
    Case("request body", SHOP, with_headers((b"content-length", b"12"), method="POST")),
    Case(
        "malformed content-length",
        SHOP,
        with_headers((b"content-length", b"twelve"), method="POST"),
    ),
    Case(
        "malformed response length",
        bare_wrong_length,
        http_scope("/pages/3"),
        (*UNROUTED, "size as sent"),
    ),
    # exceptions
    Case("exception, 500", SHOP, http_scope("/raising"), (*STATIC, "exception of a 500")),
    Case(
        "exception without response",
        bare_raising,
        http_scope("/pages/3"),
        ("port in the address", "name without path", "exception type", "size as sent"),
    ),
    Case(
        "exception in the response",
        bare_raising_late,
        http_scope("/pages/3"),
        (*UNROUTED, "exception type", "size as sent"),
    ),
    # standard variables
    Case(
        "request headers",
        SHOP,
        with_headers((b"x-shop", b"north"), (b"x-shop", b"south"), (b"x-id", b"7")),
        environment=((REQUEST_HEADERS, "x-shop,accept.*"),),
    ),
    Case(
        "response headers",
        SHOP,
        http_scope("/marked"),
        STATIC,
        environment=((RESPONSE_HEADERS, "x-.*"),),
    ),
    Case(
        "sanitized headers",
        SHOP,
        http_scope("/marked"),
        STATIC,
        environment=((RESPONSE_HEADERS, "x-shop,x-region"), (SANITIZED, "x-region")),
    ),
    Case(
        "captured secret",
        SHOP,
        with_headers((b"authorization", b"Bearer x")),
        (*ROUTED, "secrets"),
        environment=((REQUEST_HEADERS, "authorization"),),
    ),
    Case(
        "excluded",
        SHOP,
        http_scope("/pages/3"),
        (),
        environment=((EXCLUDED, "shop.example/pages"),),
    ),
    Case("not excluded", SHOP, http_scope("/pages/3"), environment=((EXCLUDED, "health,metrics"),)),
    # WebSockets
    Case("websocket", SHOP, websocket_scope("/echo"), SOCKET),
    Case("websocket refused", SHOP, websocket_scope("/refusing"), SOCKET),
]


def incoming(case: Case) -> list[Message]:
    """Return what the client of a case sends."""
    if case.scope["type"] == "websocket":
        return [{"type": "websocket.connect"}]
    return [{"type": "http.request", "body": b"", "more_body": False}]


def fresh_scope(case: Case) -> dict[str, Any]:
    """Return the scope of a case, for one run: applications write into it."""
    return {**case.scope, "headers": list(case.scope["headers"]), "state": {}}
