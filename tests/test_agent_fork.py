"""An agent in a process that forks."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.collecting import account, recording

if TYPE_CHECKING:
    from collections.abc import Callable


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def in_a_child(work: Callable[[], object]) -> Any:  # noqa: ANN401 - any application, any value
    """Fork, run `work` in the child, and return what it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that hangs is to fail the test, not to stay
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as results:
        answer = results.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(answer)


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_an_account_of_its_own_and_records_and_stops() -> None:
    agent, exporter = recording()
    agent.start()
    agent._pipeline._deliveries[
        0
    ]._lock.acquire()  # another thread is delivering as the process forks
    with agent.span("of the parent"):
        pass
    open_span = agent.tracer.start_span("open in the parent")

    def work() -> dict[str, Any]:
        at_first = account(agent)
        exporter.spans.clear()
        agent.start()
        with agent.span("of the child"):
            pass
        agent.stop()
        return {
            "at first": (at_first["created"], at_first["pending"]),
            "open": agent.stats()["open_requests"],
            "names": [span.name for span in exporter.spans],
            "account": account(agent),
        }

    child = in_a_child(work)
    agent._pipeline._deliveries[0]._lock.release()
    assert child["at first"] == [0, 0]
    assert child["open"] == 0
    assert child["names"] == ["of the child"]
    assert child["account"]["created"] == child["account"]["delivered"] == 1
    open_span.end()
    assert agent.flush()
    assert [span.name for span in exporter.spans] == ["of the parent", "open in the parent"]


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_and_parent_have_identifiers_of_their_own() -> None:
    agent, _ = recording()

    def identifiers() -> list[str]:
        spans = [agent.tracer.start_span("span") for _ in range(20)]
        return [
            f"{span.get_span_context().trace_id:032x}{span.get_span_context().span_id:016x}"
            for span in spans
        ]

    found = [*in_a_child(identifiers), *in_a_child(identifiers), *identifiers()]
    assert len(set(found)) == 60


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_other_threads_record_does_not_hang_the_child() -> None:
    agent, _ = recording()
    agent.start()
    finished = threading.Event()

    def record() -> None:
        while not finished.is_set():
            with agent.span("busy"):
                agent.flush(0.001)

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()

    def work() -> int:
        with agent.span("of the child"):
            pass
        agent.start()
        agent.stop()
        return int(account(agent)["delivered"])

    try:
        assert [in_a_child(work) for _ in range(5)] == [1] * 5
    finally:
        finished.set()
        for thread in threads:
            thread.join()


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_counts_from_nothing_in_the_series_that_were_bound_before() -> None:
    agent, _ = recording()
    counter = agent.counter("orders")
    series = counter.bind({"currency": "EUR"})
    series.add(5)
    agent.record("basket.value", 42.5)

    def work() -> list[float]:
        inherited = series.value
        series.add(1)
        observed = sum(agent.histogram("basket.value").bind().counts)
        return [inherited, counter.bind({"currency": "EUR"}).value, observed]

    assert in_a_child(work) == [0, 1, 0]
    assert series.value == 5
