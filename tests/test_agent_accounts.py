"""The accounts of an agent: what became of every span."""

from __future__ import annotations

import itertools
import logging
import threading
from typing import Any

import pytest

from apmkit import Agent
from apmkit.relay.export import Delivered, Outcome, Refused, Retry
from tests.collecting import Collecting, account, recording


def test_a_trace_that_is_not_kept_is_dropped_by_sampling() -> None:
    agent, _ = recording(trace_budget=0)
    with agent.span("outer"), agent.span("inner"):
        pass
    assert account(agent)["created"] == account(agent)["dropped"]["sampling"] == 2


@pytest.mark.parametrize(
    ("outcome", "place", "done"),
    [
        (Delivered(), "delivered", True),
        (Delivered(rejected=1, message="too old"), "rejected", True),
        (Retry("busy"), "pending", False),
        (RuntimeError("injected"), "pending", False),
    ],
)
def test_an_outcome_is_counted_in_its_place(
    outcome: Outcome | Exception, place: str, *, done: bool
) -> None:
    agent, _ = recording(*[outcome] * 5)  # five failures open the breaker, and flush gives up
    agent._faults.reraise = False
    with agent.span("one"):
        pass
    assert agent.flush() is done
    seen = account(agent)
    assert (seen["created"], seen[place]) == (1, 1)


def test_a_refused_request_is_dropped_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    agent, _ = recording(Refused("400 Bad Request"))
    agent.start()
    with agent.span("one"):
        pass
    agent.flush()
    with caplog.at_level(logging.WARNING, "apmkit"):
        agent.stop()
    assert account(agent)["dropped"]["refused"] == 1
    assert any("400 Bad Request" in record.message for record in caplog.records)


def test_a_retried_request_is_delivered_once() -> None:
    agent, exporter = recording(Retry("busy"), RuntimeError("injected"), Retry("busy", after=60))
    agent._faults.reraise = False
    with agent.span("one"):
        pass
    assert agent.flush()
    assert [span.name for span in exporter.spans] == ["one"]


def whole(seen: dict[str, Any]) -> int:
    return int(
        seen["delivered"] + seen["rejected"] + sum(seen["dropped"].values()) + seen["pending"]
    )


def test_created_is_the_sum_of_what_became_of_the_spans_at_every_moment() -> None:
    outcomes: list[Outcome | Exception] = [
        Delivered(),
        Retry("503"),
        Delivered(rejected=3),
        Refused("400"),
        RuntimeError("injected"),
    ]
    exporter = Collecting(itertools.islice(itertools.cycle(outcomes), 60))
    agent = Agent(exporters=[exporter], trace_budget=400)
    agent._faults.reraise = False
    finished = threading.Event()
    seen: list[dict[str, Any]] = []

    def read() -> None:
        while not finished.is_set():
            seen.append(account(agent))

    def record(number: int) -> None:
        for turn in range(300):
            with agent.span(f"thread {number}"):
                for _ in range(80 if not turn % 100 else 3):
                    with agent.span("inner"):
                        pass
            if not turn % 10:
                agent.flush(1)

    reader = threading.Thread(target=read)
    recorders = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in (reader, *recorders):
        thread.start()
    for thread in recorders:
        thread.join()
    # What is left of the outcomes is used up; from then on everything is delivered.
    assert any(agent.flush(5) for _ in range(100))
    finished.set()
    reader.join()
    last = account(agent)
    seen.append(last)
    assert [one for one in seen if one["created"] != whole(one)] == []
    assert last["created"] == 4 * (3 * 81 + 297 * 4)
    assert last["pending"] == 0
    assert last["delivered"] + last["rejected"] == len(exporter.spans)
    assert last["dropped"]["sampling"] > 0
    assert last["dropped"]["refused"] > 0
    assert last["rejected"] > 0
