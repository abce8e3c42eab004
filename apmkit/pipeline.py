"""From the settings to running exporters: finds them, starts their threads, keeps accounts."""

from __future__ import annotations

import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from apmkit.config import Settings, SettingsError
from apmkit.record import clock
from apmkit.relay import snapshot, wire, worker
from apmkit.relay.delivery import Delivery
from apmkit.relay.export import ExporterContext
from apmkit.relay.journal import MemoryJournal
from apmkit.relay.relay import Relay
from apmkit.relay.wire_metrics import encode_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apmkit.instrument.asgi_types import Application
    from apmkit.record.faults import Faults
    from apmkit.record.metrics import Metrics
    from apmkit.record.tracer import TracerProvider
    from apmkit.relay.export import Exporter
    from apmkit.relay.worker import Worker

_METRICS_SHARE = 0.25

_READINGS = 1_000
"""How often an account is read again while a trace is on its way from one place to the next."""


class Pipeline:
    """What takes kept traces and readings of metrics out of the process.

    Args:
        settings: names the exporters.
        given: exporters that the application has made itself.
        metrics: what is read.
        faults: counts what goes wrong.

    Raises:
        SettingsError: if an exporter's name is not installed, or its settings are wrong.
    """

    def __init__(
        self, settings: Settings, given: Sequence[Exporter], metrics: Metrics, faults: Faults
    ) -> None:
        self._settings = settings
        self._given = [_checked(exporter) for exporter in given]
        self._metrics = metrics
        self._faults = faults
        self._start_time = time.time_ns()
        self._workers: list[Worker] = []
        self._senders: list[Callable[[float], None]] = []
        self._stopping = False
        self._provider: TracerProvider
        self._open()

    def _open(self) -> None:
        self._exporters = [*self._make_exporters(), *self._given]
        journal = MemoryJournal()
        resource = wire.resource_prefix(self._settings.resource)
        self._deliveries = [
            Delivery(exporter, journal.reader(), resource, self._faults)
            for exporter in self._exporters
            if "traces" in getattr(exporter, "signals", ())
        ]
        self.relay = Relay(journal if self._deliveries else None, self._faults)

    def _make_exporters(self) -> list[Any]:
        found = {entry.name: entry for entry in entry_points(group="apmkit.exporter")}
        context = ExporterContext(
            resource=self._settings.resource,
            endpoint=self._settings.otlp_endpoint,
            collect=self.collect,
            warn=lambda sentence: self._faults.warn("exporter", sentence),
        )
        made = []
        for name in self._settings.exporters:
            if name not in found:
                message = f"exporters: {name!r} is not installed; it may be one of {sorted(found)}"
                raise SettingsError(message)
            try:
                made.append(found[name].load()(context))
            except (ValueError, RuntimeError) as error:
                raise SettingsError(str(error)) from error
        return made

    def watch(self, provider: TracerProvider) -> None:
        """Take this provider's spans into the accounts, and these into the metrics."""
        self._provider = provider
        spans = self._metrics.gauge(
            "apmkit.spans", "{span}", "Spans by exporter and what became of them."
        )

        def observe() -> None:
            for name, account in self.accounts().items():
                for outcome in ("created", "delivered", "rejected", "pending"):
                    spans.set(
                        account[outcome], {"apmkit.exporter": name, "apmkit.outcome": outcome}
                    )
                for reason, number in account["dropped"].items():
                    labels = {
                        "apmkit.exporter": name,
                        "apmkit.outcome": "dropped",
                        "apmkit.reason": reason,
                    }
                    spans.set(number, labels)

        self._metrics.observe_with(observe)

    def endpoints(self) -> dict[str, Application]:
        """Return the exporters that answer HTTP requests, by path."""
        path = self._settings.metrics_path
        answering = [exporter for exporter in self._exporters if hasattr(exporter, "asgi")]
        return {path: answering[0].asgi} if path and answering else {}

    def collect(self, pause: Callable[[], None] | None = None) -> snapshot.Snapshot:
        """Read all metrics."""
        return snapshot.take(self._metrics, self._start_time, pause)

    def start(self) -> None:
        """Start the threads."""
        self._stopping = False
        self._workers.append(worker.chores(self._provider, self.relay, self._faults))
        self._workers += [
            worker.traces(delivery, self._is_stopping) for delivery in self._deliveries
        ]
        for exporter in self._exporters:
            if "metrics" in getattr(exporter, "signals", ()):
                thread, send = worker.metrics(
                    exporter,
                    self._settings.metric_export_interval,
                    self._encode_metrics,
                    self._faults,
                )
                self._workers.append(thread)
                self._senders.append(send)

    def flush(self, timeout: float) -> bool:
        """Deliver what is pending within `timeout` seconds; return whether all is delivered."""
        deadline = time.monotonic() + timeout
        # A backend that takes all the time for its traces leaves the last metrics a share.
        traces_deadline = deadline - (timeout * _METRICS_SHARE if self._senders else 0.0)
        self.relay.encode_large()
        done = True
        for delivery in self._deliveries:
            # A backend that is known to be down is not waited for.
            done &= delivery.flush(
                0.0 if delivery.breaker_open else traces_deadline - time.monotonic()
            )
        for send in self._senders:
            send(max(deadline - time.monotonic(), 0.0))
        return done

    def stop(self, timeout: float) -> None:
        """Deliver what is pending within `timeout` seconds and end the threads."""
        deadline = time.monotonic() + timeout
        self._stopping = True
        self.flush(timeout * 0.75)
        for thread in self._workers:
            thread.stop(deadline - time.monotonic())
        self._workers.clear()
        self._senders.clear()
        for exporter in self._exporters:
            self._close(exporter)
        self._faults.report()

    def _close(self, exporter: Exporter) -> None:
        try:
            exporter.close()
        except Exception as error:  # noqa: BLE001 - anybody's exporter may raise anything
            self._faults.internal(f"exporter.{exporter.name}", error)

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Return what became of the spans, for each exporter of traces."""
        return {delivery.exporter.name: self._account(delivery) for delivery in self._deliveries}

    def _account(self, delivery: Delivery) -> dict[str, Any]:
        provider, relay = self._provider, self.relay
        account: dict[str, Any] = {}
        # A span on its way from the hot path to the journal is in neither for a few microseconds;
        # then read again. The numbers come from different places, so this cannot hide a loss.
        for _ in range(_READINGS):
            created = provider.unsampled + provider.over_limit + relay.kept
            unencoded, waiting = relay.unencoded, relay.waiting
            at = delivery.account()
            dropped = {
                "sampling": provider.unsampled,
                "trace_limit": provider.over_limit,
                "encoding": unencoded,
                "journal_full": at.overflowed,
                "refused": at.refused,
            }
            account = {
                "created": created,
                "delivered": at.delivered,
                "rejected": at.rejected,
                "dropped": dropped,
                "pending": at.pending + waiting,
            }
            whole = at.delivered + at.rejected + sum(dropped.values()) + at.pending + waiting
            if created == whole == provider.unsampled + provider.over_limit + relay.kept:
                break
            clock.give_way()
        return account

    def renew_after_fork(self) -> None:
        """Forget the parent's threads, connections and spans."""
        self._workers.clear()
        self._senders.clear()
        self._start_time = time.time_ns()
        self._settings = self._settings.for_this_process()
        self._open()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _encode_metrics(self) -> bytes:
        return encode_metrics(self.collect(clock.give_way), self._settings.resource)


def _checked(exporter: Exporter) -> Exporter:
    answers = hasattr(exporter, "asgi")
    sends = hasattr(exporter, "export") and hasattr(exporter, "signals")
    if not (hasattr(exporter, "name") and hasattr(exporter, "close") and (answers or sends)):
        raise SettingsError(
            f"exporters has an object of {type(exporter).__name__}; it may hold names and objects"
            " with the methods of apmkit.relay.export.Exporter or Endpoint"
        )
    return exporter
