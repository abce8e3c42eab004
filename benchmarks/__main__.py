"""Run the benchmarks and print their tables in markdown: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import platform
import sys
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.agents import ROWS, SPANS_A_REQUEST
from benchmarks.loads import LOADS
from benchmarks.processes import ChildError, Collector, collecting, run, serving
from benchmarks.report import Run, Runs, cpu_table, footprint_table, server_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NOT_SERVED = {"prometheus"}  # no bar behind uvicorn is set for it or derived from it
_UNTRACED = {"none", "prometheus"}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every row (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=4, help="load of a row in a round (default: 4)"
    )
    parser.add_argument(
        "--only", default=",".join(ROWS), help="rows, comma-separated (no agent always runs)"
    )
    options = parser.parse_args()
    asked = options.only.split(",")
    unknown = sorted(set(asked) - set(ROWS))
    if unknown:
        parser.error(f"--only names no row {', '.join(unknown)}; rows are {', '.join(ROWS)}")
    rows = [row for row in ROWS if row == "none" or row in asked]
    print(f"Python {platform.python_version()}, {options.rounds} rounds of {options.seconds:g} s\n")
    with collecting() as collector:
        for load in LOADS:
            print(f"## CPU time, `{load}`\n")
            runs = _rounds(rows, options.rounds, _cpu(load, options.seconds, collector))
            print(cpu_table(load, runs), flush=True)
        print("## Behind uvicorn, `work`\n")
        served = [row for row in rows if row not in _NOT_SERVED]
        print(server_table(_rounds(served, options.rounds, _served(options.seconds, collector))))
        if "apmkit" in rows:
            print("## Footprint of apmkit\n")
            print(footprint_table(list(_footprint(collector))))


def _rounds(rows: Iterable[str], rounds: int, once: Callable[[str], Run]) -> Runs:
    """Run the rows in turn; a row that fails is said to and left out."""
    runs: Runs = {row: [] for row in rows}
    for number in range(rounds):
        for row in list(runs):
            print(f"round {number + 1}: {row}", file=sys.stderr, flush=True)
            try:
                runs[row].append(once(row))
            except ChildError as error:
                print(f"`{row}` left out: {error}\n", flush=True)
                del runs[row]
    return runs


def _cpu(load: str, seconds: float, collector: Collector) -> Callable[[str], Run]:
    def once(row: str) -> Run:
        before = collector.spans()
        said = run("cpu", row, load, str(seconds), collector.endpoint)
        arrived = collector.spans() - before
        return Run(said["sent"], _made(row, load, said["sent"]), arrived, cpu=said["cpu"])

    return once


def _served(seconds: float, collector: Collector) -> Callable[[str], Run]:
    shown: set[str] = set()

    def once(row: str) -> Run:
        before = collector.spans()
        with serving("server", row, "work", collector.endpoint) as server:
            used = "uvicorn with " + " and ".join(server["used"])
            if used not in shown:
                shown.add(used)
                print(f"{used}\n", flush=True)
            said = run("client", str(server["port"]), "work", str(seconds))
        arrived = collector.spans() - before
        made = _made(row, "work", said["sent"])
        return Run(said["sent"], made, arrived, rate=said["rate"], p99=said["p99"])

    return once


def _made(row: str, load: str, requests: int) -> int:
    return 0 if row in _UNTRACED else requests * SPANS_A_REQUEST[load]


def _footprint(collector: Collector) -> Iterable[tuple[str, float, float, str, float | None]]:
    def values(*arguments: str) -> list[float]:
        return [float(run("footprint", *arguments)["value"]) for _ in range(5)]

    def imports() -> tuple[float, float | None]:
        taken = values("import", "")
        return median(taken), max(taken)

    def memory() -> tuple[float, float | None]:
        bare = values("memory", f"none@{collector.endpoint}")
        under = values("memory", f"apmkit@{collector.endpoint}")
        return median(under) - median(bare), None

    def held(figure: str) -> tuple[float, float | None]:
        said = run("footprint", figure, collector.endpoint)
        return said["value"], said["worst"]

    for name, bar, unit, figure in (
        ("import apmkit", 150, "ms", imports),
        ("memory added by a started agent", 20, "MiB", memory),
        ("event loop held by a scrape of 2,000 series", 5, "ms", lambda: held("scrape")),
        ("event loop held by a kept trace of 1,000 spans", 2, "ms", lambda: held("trace")),
    ):
        try:
            value, worst = figure()
        except ChildError as error:  # noqa: PERF203 - one figure must not hide the rest
            print(f"{name}: not measured: {error}\n")
        else:
            yield name, value, bar, unit, worst


if __name__ == "__main__":
    main()
