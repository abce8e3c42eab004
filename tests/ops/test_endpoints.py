"""Which of the agent's paths an application has a route for."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apmkit.ops.endpoints import taken


async def mine(_: object) -> PlainTextResponse:
    return PlainTextResponse("mine")


def included(prefix: str, path: str) -> FastAPI:
    router = APIRouter(prefix=prefix)
    router.add_api_route(path, lambda: "mine")
    app = FastAPI()
    app.include_router(router)
    return app


@pytest.mark.parametrize(
    "app",
    [
        Starlette(routes=[Route("/metrics", mine)]),
        Starlette(routes=[Mount("/", routes=[Route("/metrics", mine)])]),
        Starlette(routes=[Mount("/metrics", app=PlainTextResponse("mine"))]),
        included("", "/metrics"),
        included("/metrics", ""),
    ],
    ids=["route", "mount at the root", "mount", "included router", "prefix"],
)
def test_a_route_of_the_application_claims_the_path(app: object) -> None:
    assert taken(app, ["/metrics"]) == ["/metrics"]


@pytest.mark.parametrize(
    "app",
    [
        Starlette(routes=[Route("/other", mine)]),
        Starlette(routes=[Route("/{path:path}", mine)]),
        Starlette(routes=[Mount("/", app=PlainTextResponse("mine"))]),
        included("", "/{name}"),
        object(),
    ],
    ids=["another route", "catch-all", "application at the root", "parameter", "no router"],
)
def test_what_answers_any_path_does_not_claim_it(app: object) -> None:
    assert taken(app, ["/metrics"]) == []
