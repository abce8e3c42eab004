"""One clock call a measurement: monotonic in memory, wall time only where a trace is written."""

from __future__ import annotations

import time

now = time.perf_counter_ns
"""Nanoseconds of the monotonic clock; every start and end in `record` is in these."""


def wall_offset() -> int:
    """Return what to add to `now()` to get Unix time, in nanoseconds.

    It is measured when needed and not kept, because NTP moves the wall clock under a process
    that lives for weeks.
    """
    return time.time_ns() - now()


def give_way() -> None:
    """Let other threads run: called between slices of work off the request path."""
    time.sleep(0)
