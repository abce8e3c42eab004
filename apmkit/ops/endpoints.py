"""The agent's own paths in an application: answered here, for those who may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apmkit.ops.access import allowed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apmkit.config import Settings
    from apmkit.instrument.asgi_types import Application, Receive, Scope, Send

_ANOTHER = "-of-nobody"

_REFUSAL = (
    b"apmkit: this page is for clients in ops_networks that reach the service directly, or for"
    b" those who send 'Authorization: Bearer <ops_token>'.\n"
)


def guarded(endpoint: Application, settings: Settings) -> Application:
    """Return `endpoint` for those who may see it, and a refusal (403) for others."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if allowed(scope, settings.ops_token, settings.ops_networks):
            await endpoint(scope, receive, send)
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_REFUSAL)),
        ]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})

    return answer


def taken(app: Any, paths: Iterable[str]) -> list[str]:  # noqa: ANN401 - any ASGI application
    """Return those paths for which a Starlette or FastAPI application has a route of its own."""
    routes = getattr(app, "routes", None) or ()
    return [path for path in paths if _has_route(routes, path, _scope(path))]


def _has_route(routes: Iterable[Any], path: str, scope: dict[str, Any]) -> bool:
    for route in routes:
        if getattr(route, "path", None) == path:
            return True
        if not hasattr(route, "matches"):
            continue
        match, child_scope = route.matches(dict(scope))
        if not match.value:
            continue
        other = {**scope, "path": scope["path"] + _ANOTHER, "raw_path": b""}
        # What answers any other path too, a catch-all or a mount, has not claimed this one.
        if not route.matches(other)[0].value:
            return True
        inner = getattr(route, "routes", None)
        if inner and _has_route(inner, path, {**scope, **child_scope}):
            return True
    return False


def _scope(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
