"""What the process uses, read by psutil when somebody reads the metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from apmkit.record.metrics import Metrics


def observe_process(metrics: Metrics) -> None:
    """Add the process metrics of the semantic conventions to every reading of `metrics`."""
    process = psutil.Process()
    cpu = metrics.counter("process.cpu.time", "s", "CPU time of the process, by mode.")
    memory = metrics.gauge("process.memory.usage", "By", "Physical memory of the process.")
    threads = metrics.gauge("process.thread.count", "{thread}", "Threads of the process.")
    files = metrics.gauge(
        "process.unix.file_descriptor.count", "{file_descriptor}", "Open files of the process."
    )

    def observe() -> None:
        nonlocal process
        if process.pid != os.getpid():
            process = psutil.Process()  # a fork: read the child, not its parent
        with process.oneshot():
            times = process.cpu_times()
            cpu.bind({"cpu.mode": "user"}).value = times.user
            cpu.bind({"cpu.mode": "system"}).value = times.system
            memory.set(process.memory_info().rss)
            threads.set(process.num_threads())
            if hasattr(process, "num_fds"):
                files.set(process.num_fds())

    metrics.observe_with(observe)
