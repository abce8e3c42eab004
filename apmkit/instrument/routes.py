"""The route template of a request, read from the scope that the router has filled in.

The router has already matched; nothing is matched a second time, except for Starlette before
1.10, which leaves no trace of the route in the scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    Scope = MutableMapping[str, Any]


def route_template(scope: Scope) -> str | None:
    """Return the template of the matched route, mounts included.

    Args:
        scope: the ASGI scope after the application ran.

    Returns:
        A template such as `/users/{user_id}`. None if no route matched or the application has
        no router: then the request counts without `http.route`, and never by its path.
    """
    litestar = scope.get("path_template")
    if litestar:
        return str(litestar)
    route = scope.get("route")
    if route is None:
        return _matched_again(scope) if "router" in scope else None
    fastapi = scope.get("fastapi")
    context = fastapi.get("effective_route_context") if type(fastapi) is dict else None
    # FastAPI puts the prefix of `include_router` there since 0.137, and not into the route.
    template = getattr(context, "path_format", None) or getattr(route, "path_format", None)
    if template is None:
        return None
    prefix = _mounted_under(scope)
    if not hasattr(route, "endpoint"):
        # A mount whose application matched nothing further, or is no router: its own path is
        # already in the prefix.
        return f"{prefix}/{{path}}" if prefix else str(template)
    return prefix + str(template)


def _mounted_under(scope: Scope) -> str:
    """Return the path of the mounts around the route, parameter names put back.

    `root_path` is concrete (`/sub/acme`); whole segments that equal the value of a path
    parameter become its name (`/sub/{tenant}`).
    """
    if "app_root_path" not in scope:
        return ""
    prefix = str(scope.get("root_path", ""))[len(scope["app_root_path"]) :]
    parameters = scope.get("path_params")
    if not prefix or not parameters:
        return prefix
    names = {str(value): f"{{{name}}}" for name, value in reversed(list(parameters.items()))}
    return "/".join(names.get(segment, segment) for segment in prefix.split("/"))


def _matched_again(scope: Scope) -> str | None:
    if "endpoint" not in scope:
        return None
    outer = dict(scope)
    outer["root_path"] = scope.get("app_root_path", scope.get("root_path", ""))
    for key in ("endpoint", "path_params"):
        outer.pop(key, None)
    return _first_match(scope["router"].routes, outer)


def _first_match(routes: Iterable[Any], scope: Scope) -> str | None:
    partial = None
    for route in routes:
        match, child_scope = route.matches(scope)
        if not match.value or not hasattr(route, "path_format"):
            continue
        if hasattr(route, "endpoint"):
            template = str(route.path_format)
        else:
            inner = _first_match(getattr(route, "routes", None) or (), {**scope, **child_scope})
            template = f"{route.path}{inner}" if inner else str(route.path_format)
        if match.value > 1:
            return template
        partial = partial or template
    return partial
