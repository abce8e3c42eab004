from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from apmkit.cli import report
from apmkit.cli.traffic import Answer
from apmkit.record.metrics import Metrics
from apmkit.relay import snapshot

if TYPE_CHECKING:
    from apmkit.relay.export import Snapshot


def reading(*requests: tuple[str, int]) -> Snapshot:
    metrics = Metrics()
    durations = metrics.histogram("http.server.request.duration", "s", "")
    for route, status in requests:
        durations.observe(
            0.01,
            {
                "http.request.method": "GET",
                "http.route": route,
                "http.response.status_code": status,
            },
        )
    return snapshot.take(metrics, 0)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (0.001, 1.0), (1.0, 100.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert report.percentile([float(number) for number in range(1, 101)], share) == expected


def test_the_percentile_of_nothing_is_zero() -> None:
    assert report.percentile([], 0.99) == 0.0


def test_a_route_has_its_requests_and_its_errors(console: Console) -> None:
    answers = [Answer("GET", "/a", status, 0.01) for status in (200, 404, 500)]
    same = report.print_routes(console, reading(("/a", 200), ("/a", 404), ("/a", 500)), answers)
    assert same
    row = next(line for line in printed(console).splitlines() if "GET /a" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "GET /a", "3", "1", "1", "10.0", "10.0", "10.0",
    ]  # fmt: skip


def test_a_request_that_the_agent_missed_is_told(console: Console) -> None:
    answers = [Answer("GET", "/a", 200, 0.01), Answer("GET", "/a", 200, 0.01)]
    assert not report.print_routes(console, reading(("/a", 200)), answers)
    assert "different from the client's" in printed(console)


def test_an_answer_that_the_agent_counted_with_another_status_is_told(console: Console) -> None:
    assert not report.print_routes(console, reading(("/a", 200)), [Answer("GET", "/a", 500, 0.01)])


def test_the_hit_rate_is_hits_by_lookups(console: Console) -> None:
    metrics = Metrics()
    operations = metrics.histogram("cache.client.operation.duration", "s", "")
    for hit in (True, True, True, False):
        operations.observe(0.001, {"cache.operation": "get", "cache.hit": hit})
    operations.observe(0.001, {"cache.operation": "set"})
    report.print_calls(console, snapshot.take(metrics, 0))
    assert "75.0% (3 of 4 lookups)" in printed(console)


def test_without_lookups_there_is_no_hit_rate(console: Console) -> None:
    report.print_calls(console, snapshot.take(Metrics(), 0))
    assert "no lookups" in printed(console)


def test_an_account_names_the_reasons_of_drops(console: Console) -> None:
    account = {
        "created": 1_010,
        "delivered": 7,
        "rejected": 1,
        "dropped": {"sampling": 1_000, "refused": 0},
        "pending": 2,
    }
    report.print_accounts(console, {"otlp": account})
    assert "sampling 1,000" in printed(console)
    assert "refused" not in printed(console)


def test_without_a_kept_trace_it_says_so(console: Console) -> None:
    report.print_trace(console, [])
    assert "none was kept" in printed(console)
