"""Delivery to an exporter, with a clock that only moves when told."""

from __future__ import annotations

from itertools import pairwise

from apmkit.record.faults import Faults
from apmkit.record.metrics import Metrics
from apmkit.relay.delivery import Account, Delivery
from apmkit.relay.export import Delivered, Outcome, Refused, Retry, Signal
from apmkit.relay.journal import MemoryJournal


class Backend:
    """Answers with the given outcomes, then takes everything."""

    name = "backend"
    signals: frozenset[Signal] = frozenset({"traces"})

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.requests = 0

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:  # noqa: ARG002
        self.requests += 1
        return self.outcomes.pop(0) if self.outcomes else Delivered()

    def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def delivery_to(backend: Backend, clock: Clock, records: int = 1) -> Delivery:
    journal = MemoryJournal()
    faults = Faults(Metrics())
    delivery = Delivery(backend, journal.reader(), b"", faults, clock.now, clock.sleep)
    for _ in range(records):
        journal.append(b"payload", 10)
    return delivery


def test_a_batch_is_delivered_once() -> None:
    backend = Backend()
    delivery = delivery_to(backend, Clock(), records=3)
    assert delivery.deliver()
    assert not delivery.deliver()
    assert backend.requests == 1
    assert delivery.account() == Account(30, 0, 0, 0, 0)


def test_a_failed_batch_waits_longer_each_time_and_is_not_lost() -> None:
    backend, clock = Backend(Retry("down"), Retry("down"), Retry("down")), Clock()
    delivery = delivery_to(backend, clock)
    attempts = []
    while not delivery.account().delivered:
        before = backend.requests
        delivery.deliver()
        if backend.requests > before:
            attempts.append(clock.time)
        clock.time += 0.01
    first, second, third = (later - earlier for earlier, later in pairwise(attempts))
    # Half a second, one, two, each with jitter down to its half.
    assert 0.25 <= first <= 0.52
    assert 0.5 <= second <= 1.02
    assert 1.0 <= third <= 2.02
    assert delivery.account() == Account(10, 0, 0, 0, 0)


def test_retry_after_is_respected() -> None:
    backend, clock = Backend(Retry("busy", after=20.0)), Clock()
    delivery = delivery_to(backend, clock)
    delivery.deliver()
    clock.time += 19.9
    assert not delivery.deliver()
    assert delivery.account().pending == 10
    clock.time += 0.2
    assert delivery.deliver()
    assert delivery.account() == Account(10, 0, 0, 0, 0)


def test_what_the_backend_rejects_or_refuses_is_counted_apart() -> None:
    delivery = delivery_to(Backend(Delivered(rejected=4, message="too old")), Clock())
    assert delivery.deliver()
    assert delivery.account() == Account(6, 4, 0, 0, 0)
    delivery = delivery_to(Backend(Refused("400")), Clock())
    assert delivery.deliver()
    assert delivery.account() == Account(0, 0, 10, 0, 0)


def test_a_flush_survives_one_failure() -> None:
    backend = Backend(Retry("the connection was closed"))
    delivery = delivery_to(backend, Clock())
    assert delivery.flush(5.0)
    assert backend.requests == 2
    assert delivery.account() == Account(10, 0, 0, 0, 0)


def test_a_flush_gives_up_once_the_breaker_is_open() -> None:
    backend, clock = Backend(*[Retry("down")] * 100), Clock()
    delivery = delivery_to(backend, clock)
    assert not delivery.flush(60.0)
    assert delivery.breaker_open
    assert backend.requests == 5
    assert clock.time < 101.0
    assert delivery.account().pending == 10


def test_a_flush_ends_in_time() -> None:
    clock = Clock()

    class Slow(Backend):
        def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
            clock.time += timeout
            return super().export(signal, request, timeout)

    delivery = delivery_to(Slow(*[Retry("slow")] * 100), clock)
    assert not delivery.flush(2.0)
    assert clock.time <= 102.001
