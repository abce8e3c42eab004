"""What was measured, against its bars, as markdown tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# OpenTelemetry must add at least this many times the CPU time that apmkit adds.
CPU_BARS = {
    ("hello", "apmkit"): 30,
    ("hello", "apmkit-all"): 16,
    ("work", "apmkit"): 24,
    ("work", "apmkit-all"): 12,
}
RATE_BAR = 0.65  # of the requests a second without an agent
P99_BARS = {"apmkit": 1.6, "apmkit-all": 2.5}  # times the p99 without an agent


@dataclass(frozen=True)
class Run:
    """One row in one round.

    Attributes:
        sent: Requests sent.
        made: Spans that these requests made, kept or not; 0 for a row that does not trace.
        arrived: Spans that the collector received.
        cpu: Microseconds a request; 0 when not measured.
        rate: Requests a second; 0 when not measured.
        p99: Milliseconds; 0 when not measured.
    """

    sent: int
    made: int
    arrived: int
    cpu: float = 0
    rate: float = 0
    p99: float = 0


Runs = dict[str, "list[Run]"]


def verdict(value: float, bar: float, *, at_least: bool = False) -> str:
    """Say whether a figure reaches its bar."""
    return "met" if (value >= bar if at_least else value <= bar) else "missed"


def cpu_table(load: str, runs: Runs) -> str:
    """Show the CPU time of every row of a load, and what it adds to no agent, in each round."""
    added = {
        row: [run.cpu - bare.cpu for run, bare in zip(those, runs["none"], strict=True)]
        for row, those in runs.items()
    }
    lines = []
    for row, those in runs.items():
        ratio = median(run.cpu / bare.cpu for run, bare in zip(those, runs["none"], strict=True))
        share = bar_text = said = ""
        bar = CPU_BARS.get((load, row))
        if bar and "opentelemetry" in added:
            times = median(
                theirs / ours if ours > 0 else math.inf
                for theirs, ours in zip(added["opentelemetry"], added[row], strict=True)
            )
            share, bar_text = f"1/{times:.1f}", f"1/{bar}"
            said = _unless_lost(row, those, verdict(times, bar, at_least=True))
        lines.append(
            (
                row,
                f"{median(run.cpu for run in those):.1f}",
                f"{ratio:.2f}",
                "" if row == "none" else _with_range(added[row]),
                share,
                bar_text,
                said,
                _arrived(those),
            )
        )
    share_of = "of OpenTelemetry's"
    head = ("row", "CPU µs a request", "ratio", "added µs (range)", share_of, "bar", "", "spans")
    return _table(head, lines)


def server_table(runs: Runs) -> str:
    """Show requests a second and p99 behind uvicorn, as medians of the rounds' ratios."""
    lines = []
    for row, those in runs.items():
        pairs = list(zip(those, runs["none"], strict=True))
        rate = median(run.rate / bare.rate for run, bare in pairs)
        p99 = median(run.p99 / bare.p99 for run, bare in pairs)
        said = []
        if row == "apmkit":
            said.append(f"rate ≥ {RATE_BAR:.0%}: {verdict(rate, RATE_BAR, at_least=True)}")
        if row in P99_BARS:
            reached = _unless_lost(row, those, verdict(p99, P99_BARS[row]))
            said.append(f"p99 ≤ {P99_BARS[row]}: {reached}")
        lines.append(
            (
                row,
                f"{median(run.rate for run in those):,.0f}",
                f"{rate:.0%}",
                f"{median(run.p99 for run in those):.2f}",
                f"{p99:.2f}",
                ", ".join(said),
                _arrived(those),
            )
        )
    head = ("row", "requests/s", "of none", "p99 ms", "times none", "bars", "spans")
    return _table(head, lines)


def footprint_table(figures: Sequence[tuple[str, float, float, str, float | None]]) -> str:
    """Show figures given as name, value, bar, unit and the worst of its repeats."""
    return _table(
        ("figure", "median", "worst", "bar", ""),
        [
            (
                name,
                f"{value:.1f} {unit}",
                "" if worst is None else f"{worst:.1f} {unit}",
                f"{bar:g} {unit}",
                verdict(value, bar),
            )
            for name, value, bar, unit, worst in figures
        ],
    )


def _unless_lost(row: str, runs: Sequence[Run], said: str) -> str:
    """Refuse a bar to a row that promises every trace and lost some: losing them is cheap."""
    if row == "apmkit-all" and any(run.arrived < run.made for run in runs):
        return "missed: spans lost"
    return said


def _with_range(values: Sequence[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _arrived(runs: Sequence[Run]) -> str:
    made = sum(run.made for run in runs)
    return f"{sum(run.arrived for run in runs):,} of {made:,} arrived" if made else "none made"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"
