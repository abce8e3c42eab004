"""Pages are made off the event loop, one at a time and in small slices."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from apmkit.relay.export import ExporterContext, MetricData, Point, Snapshot
from apmkit_prometheus import pages
from apmkit_prometheus.pages import Format, Pages, render

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT, OPENMETRICS = Format(openmetrics=False, gzip=False), Format(openmetrics=True, gzip=False)


def context(collect: Callable[..., Snapshot]) -> ExporterContext:
    return ExporterContext({}, None, collect, pytest.fail)


def empty(_pause: object = None) -> Snapshot:
    return Snapshot(0, 0, [])


def test_scrapes_of_one_format_share_a_page_and_others_wait_for_their_turn() -> None:
    entered, release = threading.Semaphore(0), threading.Semaphore(0)
    at_once, most_at_once = 0, 0

    def collect(_pause: object) -> Snapshot:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        entered.release()
        assert release.acquire(timeout=30)
        at_once -= 1
        return empty()

    made = Pages(context(collect))
    first, shared, other = made.get(TEXT), made.get(TEXT), made.get(OPENMETRICS)

    assert shared is first
    assert other is not first
    release.release(2)
    assert first.result(30) != other.result(30)
    assert most_at_once == 1
    assert made.get(TEXT) is not first


def test_a_failure_reaches_those_who_wait_and_not_those_who_come_later() -> None:
    def fail(_pause: object) -> Snapshot:
        raise OSError("gone")

    made = Pages(context(fail))

    first = made.get(TEXT)
    with pytest.raises(OSError, match="gone"):
        first.result(30)
    assert made.get(TEXT) is not first


def test_a_page_of_2000_histograms_is_made_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    slices: list[float] = []

    class MeasuredPace(pages.Pace):
        """Notes the processor time between two moments of giving way."""

        def __init__(self) -> None:
            super().__init__()
            self.resumed = time.thread_time()

        def __call__(self) -> None:
            before = self._began
            super().__call__()
            if self._began != before:
                now = time.thread_time()
                slices.append(now - self.resumed)
                self.resumed = now

    monkeypatch.setattr(pages, "Pace", MeasuredPace)
    counts, boundaries = [1] * 15, tuple(n / 10 for n in range(14))
    points = [
        Point((("http.route", f"/{n}"), ("method", "GET")), counts=counts, sum=1.0)
        for n in range(2_000)
    ]
    snapshot = Snapshot(0, 0, [MetricData("work", "histogram", "s", "", points, boundaries)])
    # The best of some: whatever else the machine does makes slices longer, never shorter.
    for _ in range(8):
        slices.clear()
        size = sum(map(len, render(context(lambda _pause: snapshot), OPENMETRICS)))
        if max(slices) < 0.005:
            break

    assert size > 2_000_000
    assert len(slices) > 100
    assert max(slices) < 0.005


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_a_scrape_answers_its_own() -> None:
    parent = os.getpid()
    entered, release = threading.Event(), threading.Event()

    def collect(_pause: object) -> Snapshot:
        if os.getpid() == parent:
            entered.set()
            assert release.wait(30)
        return empty()

    made = Pages(context(collect))
    page = made.get(TEXT)
    assert entered.wait(30)

    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            made.get(TEXT).result(10)
            status = 0
        os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    release.set()
    assert page.result(30)
