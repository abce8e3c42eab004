"""The agent's threads: one for the second's chores, one for each exporter."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from apmkit.record import clock
from apmkit.relay.delivery import EXPORT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.record.faults import Faults
    from apmkit.record.tracer import TracerProvider
    from apmkit.relay.delivery import Delivery
    from apmkit.relay.export import Exporter
    from apmkit.relay.relay import Relay

_CHORE_INTERVAL = 0.1
_POLL_INTERVAL = 0.5


class Worker:
    """A daemon thread that does a piece of work at an interval until it is stopped."""

    def __init__(self, name: str, interval: float, work: Callable[[], None]) -> None:
        self._work = work
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ask the thread to end and wait for it at most `timeout` seconds."""
        self._stopped.set()
        self._thread.join(max(timeout, 0.0))

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._work()


def chores(provider: TracerProvider, relay: Relay, faults: Faults) -> Worker:
    """Start the thread that encodes large traces, stores long-open roots, and logs."""
    next_second = 0

    def work() -> None:
        nonlocal next_second
        try:
            relay.encode_large()
            now = clock.now()
            if now >= next_second:
                next_second = now + 1_000_000_000
                provider.store_long_open(now)
                faults.report()
        except Exception as error:  # noqa: BLE001 - the thread must outlive any one failure
            faults.internal("worker.chores", error)

    return Worker("apmkit", _CHORE_INTERVAL, work)


def traces(delivery: Delivery, stopping: Callable[[], bool]) -> Worker:
    """Start the thread that delivers the journal to one exporter."""

    def work() -> None:
        while delivery.deliver() and not stopping():
            pass

    return Worker(f"apmkit-{delivery.exporter.name}", _POLL_INTERVAL, work)


def metrics(
    exporter: Exporter, interval: float, encode: Callable[[], bytes], faults: Faults
) -> tuple[Worker, Callable[[float], None]]:
    """Start the thread that sends all metrics at an interval; a lost one is replaced by the next.

    Returns:
        The thread, and a function that sends them once within a number of seconds.
    """
    lock = threading.Lock()

    def send(timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not lock.acquire(timeout=max(timeout, 0.0)):
            return
        try:
            request = encode()
            outcome = exporter.export("metrics", request, max(deadline - time.monotonic(), 0.001))
            problem = getattr(outcome, "reason", "") or getattr(outcome, "message", "")
            if problem:
                faults.warn(
                    f"metrics.{exporter.name}", f"exporter {exporter.name!r}, metrics: {problem}"
                )
        except Exception as error:  # noqa: BLE001 - anybody's exporter may raise anything
            faults.internal(f"exporter.{exporter.name}", error)
        finally:
            lock.release()

    return Worker(f"apmkit-{exporter.name}-metrics", interval, lambda: send(EXPORT_TIMEOUT)), send
