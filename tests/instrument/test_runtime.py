"""Process metrics come from the operating system at the moment of reading."""

from __future__ import annotations

import os
import time

import psutil

from apmkit.instrument.runtime import observe_process
from apmkit.record.metrics import Metrics
from apmkit.relay.snapshot import take


def values(metrics: Metrics) -> dict[str, float]:
    return {
        f"{metric.name}{dict(point.attributes).get('cpu.mode', '')}": point.value
        for metric in take(metrics, 0).metrics
        for point in metric.points
    }


def test_a_reading_says_what_the_process_uses() -> None:
    metrics = Metrics()
    observe_process(metrics)
    found = values(metrics)
    resident = psutil.Process().memory_info().rss
    assert 0.5 * resident < found["process.memory.usage"] < 2 * resident
    assert found["process.thread.count"] >= 1
    assert found["process.unix.file_descriptor.count"] >= 1
    assert found["process.cpu.timeuser"] > 0


def test_cpu_time_grows_with_work() -> None:
    metrics = Metrics()
    observe_process(metrics)
    before = values(metrics)["process.cpu.timeuser"]
    started = time.process_time()
    while time.process_time() - started < 0.1:
        os.getpid()
    after = values(metrics)
    assert after["process.cpu.timeuser"] + after["process.cpu.timesystem"] >= before + 0.05
