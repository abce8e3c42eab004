"""What the demo prints: tables from the metrics, the slowest trace, the cost, the accounts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from apmkit.cli.traffic import NO_ROUTE
from apmkit_console import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from apmkit.cli.cost import Cost
    from apmkit.cli.traffic import Answer
    from apmkit.relay.export import DecodedSpan, Snapshot

_CLIENT_ERROR, _SERVER_ERROR = 400, 500


def print_routes(console: Console, snapshot: Snapshot, answers: Sequence[Answer]) -> bool:
    """Print a row for each route: requests as the agent counted them, durations from the client.

    Returns:
        Whether agent and client counted the same requests, by route and status.
    """
    seen = _requests(snapshot)
    sent = Counter((f"{answer.method} {answer.route}", answer.status) for answer in answers)
    durations: dict[str, list[float]] = {}
    for answer in answers:
        durations.setdefault(f"{answer.method} {answer.route}", []).append(answer.seconds)
    columns = ("requests", "4xx", "errors", "p50 ms", "p95 ms", "p99 ms")
    table = _table("Requests by route", "route", *columns)
    for name in sorted(durations, key=lambda name: -len(durations[name])):
        statuses = {status: count for (route, status), count in seen.items() if route == name}
        errors = sum(n for status, n in statuses.items() if status >= _SERVER_ERROR)
        refused = sum(n for status, n in statuses.items() if status >= _CLIENT_ERROR) - errors
        times = sorted(durations[name])
        table.add_row(
            name,
            f"{sum(statuses.values()):,}",
            f"{refused:,}",
            Text(f"{errors:,}", style="red" if errors else ""),
            *(f"{percentile(times, share) * 1e3:,.1f}" for share in (0.5, 0.95, 0.99)),
        )
    console.print(table)
    console.print(
        "Requests, 4xx and errors (5xx) are the agent's counts, "
        + ("equal to" if seen == sent else "[red]different from[/]")
        + f" the client's. Percentiles are exact, of the {len(answers):,} durations that the client"
        " measured.\n",
        style="dim",
    )
    return seen == sent


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the `ordered` values do not exceed; 0 if none."""
    if not ordered:
        return 0.0
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]


def print_calls(console: Console, snapshot: Snapshot) -> None:
    """Print the cache hit rate and the number of database calls."""
    hits = {True: 0, False: 0}
    for labels, count in _counts(snapshot, "cache.client.operation.duration"):
        if "cache.hit" in labels:
            hits[bool(labels["cache.hit"])] += count
    lookups = sum(hits.values())
    queries = sum(count for _, count in _counts(snapshot, "db.client.operation.duration"))
    rate = f"{hits[True] / lookups:.1%}" if lookups else "no lookups"
    console.print(
        f"[bold]Cache hit rate[/]  {rate} ({hits[True]:,} of {lookups:,} lookups)"
        f"    [bold]Database calls[/]  {queries:,}\n"
    )


def print_trace(console: Console, spans: Sequence[DecodedSpan]) -> None:
    """Print the slowest kept trace as a tree."""
    console.print("Slowest kept trace", style="bold")
    text = render(spans, colour=console.is_terminal) if spans else "none was kept"
    # Attributes may run over the edge: a tree reads best with one line a span.
    console.print(Text.from_ansi(text.rstrip("\n")), no_wrap=True, overflow="ellipsis")


def print_cost(console: Console, cost: Cost) -> None:
    """Print what the agent costs, and how that was measured."""
    console.print(
        f"\n[bold]What the agent costs[/]  {cost.added:,.0f} µs of CPU time a request"
        f" ({cost.without:,.0f} µs without it, {cost.with_agent:,.0f} µs with it)"
    )
    console.print(
        f"Medians of {cost.rounds} rounds of {cost.requests} product pages (one cache lookup"
        " each), with the agent and without in turn, called in this process without a server; all"
        " threads count.\n",
        style="dim",
    )


def print_accounts(console: Console, accounts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what became of the spans, for each exporter of traces."""
    columns = ("created", "delivered", "rejected", "dropped", "pending")
    table = _table("Spans by exporter", "exporter", *columns)
    table.add_column("dropped, by reason")
    for name, account in accounts.items():
        dropped = {reason: number for reason, number in account["dropped"].items() if number}
        numbers = [account[key] for key in ("created", "delivered", "rejected")]
        numbers += [sum(dropped.values()), account["pending"]]
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in dropped.items())
        table.add_row(name, *(f"{number:,}" for number in numbers), reasons or "none")
    console.print(table)
    console.print(
        "created = delivered + rejected + dropped + pending. Dropped by sampling is what lies over"
        " the trace budget; the metrics above count it all the same.\n",
        style="dim",
    )


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _requests(snapshot: Snapshot) -> Counter[tuple[str, int]]:
    seen: Counter[tuple[str, int]] = Counter()
    for labels, count in _counts(snapshot, "http.server.request.duration"):
        route = labels.get("http.route", NO_ROUTE)
        status = labels.get("http.response.status_code", 0)
        seen[f"{labels['http.request.method']} {route}", status] += count
    return seen


def _counts(snapshot: Snapshot, metric: str) -> Iterable[tuple[dict[str, Any], int]]:
    """Yield the labels of each series of a histogram and how often it was observed."""
    for data in snapshot.metrics:
        if data.name == metric:
            for point in data.points:
                yield dict(point.attributes), sum(point.counts)
