"""Delivering the journal to one exporter: batches, retries, a breaker, and exact accounts."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from apmkit.relay import wire
from apmkit.relay.export import Delivered, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from apmkit.record.faults import Faults
    from apmkit.relay.export import Exporter, Outcome
    from apmkit.relay.journal import Reader

BATCH_BYTES = 512 * 1024
EXPORT_TIMEOUT = 10.0
"""Seconds; OTLP's default."""

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_LONGEST_RETRY_AFTER = 300.0
_FAILURES_TO_OPEN = 5
_FLUSH_PAUSE = 0.05


class Account(NamedTuple):
    """Spans by what became of them."""

    delivered: int
    rejected: int
    refused: int
    overflowed: int
    pending: int


class Delivery:
    """Sends what a reader yields through an exporter.

    A request that the backend cannot take now is sent again after an exponential delay with full
    jitter, or when the backend says. After five failures in a row the breaker opens: one request
    at a time probes the backend, and `flush` no longer waits for it.

    Args:
        exporter: takes "traces".
        reader: its place in the journal.
        resource: the encoded resource that goes before the records.
        faults: told when the backend fails.
        now: a monotonic clock, in seconds.
        sleep: waits for a number of seconds.

    Attributes:
        delivered: spans that the backend has taken.
        rejected: spans that it has refused to store (partial success).
        refused: spans of requests that it will never take.
    """

    def __init__(
        self,
        exporter: Exporter,
        reader: Reader,
        resource: bytes,
        faults: Faults,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.exporter = exporter
        self.reader = reader
        self.delivered = 0
        self.rejected = 0
        self.refused = 0
        self._resource = resource
        self._faults = faults
        self._now = now
        self._sleep = sleep
        self._failures = 0
        self._next_attempt = 0.0
        self._lock = threading.Lock()
        self._account_lock = threading.Lock()

    @property
    def breaker_open(self) -> bool:
        """Tell whether the backend has failed so often that it is only probed."""
        return self._failures >= _FAILURES_TO_OPEN

    def deliver(self, timeout: float = EXPORT_TIMEOUT, *, insist: bool = False) -> bool:
        """Send one batch, if there is one and its time has come.

        Args:
            timeout: seconds that this may take.
            insist: do not wait for a retry's time.

        Returns:
            Whether another batch may be sent at once.
        """
        deadline = self._now() + timeout
        if not self._lock.acquire(timeout=max(timeout, 0.0)):
            return False
        try:
            if not insist and self._now() < self._next_attempt:
                return False
            batch = self.reader.read(BATCH_BYTES)
            if not batch:
                return False
            request = wire.request(self._resource, [payload for payload, _ in batch])
            remaining = max(deadline - self._now(), 0.001)
            outcome = self._attempt(request, min(remaining, EXPORT_TIMEOUT))
            return self._settle(outcome, sum(spans for _, spans in batch))
        finally:
            self._lock.release()

    def flush(self, timeout: float) -> bool:
        """Send all there is; return whether nothing is pending when time is up."""
        deadline = self._now() + timeout
        while self.reader.pending:
            remaining = deadline - self._now()
            if remaining <= 0:
                break
            if not self.deliver(remaining, insist=True) and self.reader.pending:
                # One failure may be a connection that the backend had closed meanwhile.
                if self.breaker_open:
                    break
                self._sleep(max(min(_FLUSH_PAUSE, deadline - self._now()), 0.0))
        return not self.reader.pending

    def account(self) -> Account:
        """Return where the spans are that this exporter was given, at one moment."""
        with self._account_lock:
            pending = self.reader.pending
            return Account(
                self.delivered, self.rejected, self.refused, self.reader.overflowed, pending
            )

    def _attempt(self, request: bytes, timeout: float) -> Outcome:
        try:
            return self.exporter.export("traces", request, timeout)
        except Exception as error:  # noqa: BLE001 - anybody's exporter may raise anything
            self._faults.internal(f"exporter.{self.exporter.name}", error)
            return Retry(f"{type(error).__name__}: {error}")

    def _settle(self, outcome: Outcome, spans: int) -> bool:
        if isinstance(outcome, Retry):
            self._failures += 1
            self._next_attempt = self._now() + self._delay(outcome)
            self._warn(f"cannot deliver now ({outcome.reason}); spans are kept and sent again")
            return False
        if isinstance(outcome, Delivered):
            rejected = min(max(outcome.rejected, 0), spans)
            with self._account_lock:
                self.rejected += rejected
                self.delivered += spans - rejected
                self.reader.acknowledge()
            if outcome.message or rejected:
                self._warn(f"the backend rejected {rejected} of {spans} spans: {outcome.message}")
        else:
            with self._account_lock:
                self.refused += spans
                self.reader.acknowledge()
            self._warn(
                f"the backend refused a request ({outcome.reason}); its {spans} spans are dropped"
            )
        self._failures = 0
        self._next_attempt = 0.0
        return True

    def _delay(self, outcome: Retry) -> float:
        longest = min(_FIRST_DELAY * float(1 << min(self._failures - 1, 16)), _LONGEST_DELAY)
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        return max(delay, min(outcome.after or 0.0, _LONGEST_RETRY_AFTER))

    def _warn(self, sentence: str) -> None:
        self._faults.warn(
            f"exporter.{self.exporter.name}", f"exporter {self.exporter.name!r}: {sentence}"
        )
