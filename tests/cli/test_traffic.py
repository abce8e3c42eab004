from __future__ import annotations

from apmkit.cli.traffic import NO_ROUTE, plan


def test_the_plan_is_the_same_every_time() -> None:
    assert plan(50) == plan(50)


def test_the_plan_has_as_many_requests_as_asked_for() -> None:
    assert len(plan(123)) == 123


def test_every_route_is_asked_for() -> None:
    routes = {(method, route) for method, route, _ in plan(2_000)}
    assert routes == {
        ("GET", "/products"),
        ("GET", "/products/{product_id}"),
        ("GET", "/products/{product_id}/delivery"),
        ("POST", "/orders/{product_id}"),
        ("GET", NO_ROUTE),
    }


def test_no_path_has_a_template_in_it() -> None:
    assert not [path for _, _, path in plan(500) if "{" in path]
