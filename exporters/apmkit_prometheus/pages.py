"""Makes pages off the event loop, one at a time, in slices that leave the loop its turn."""

from __future__ import annotations

import os
import threading
import time
import zlib
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics

from apmkit_prometheus.collector import SnapshotCollector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

    from apmkit.relay.export import ExporterContext

SLICE = 0.0003
"""Seconds of work after which the next sample waits."""

GAP = 0.00005
"""Seconds to wait: with none, the same thread takes CPython's interpreter lock again at once."""


BATCH = 256
"""Samples that are written at a time."""

_END = b"# EOF\n"
_GZIP_FORMAT = 31


class Format(NamedTuple):
    """What a page is: OpenMetrics or text, compressed or not."""

    openmetrics: bool
    gzip: bool


class Pages:
    """Scrapes of one format that arrive while it is being made share the page."""

    def __init__(self, context: ExporterContext) -> None:
        """Start no thread yet: the process may fork before the first scrape."""
        self._context = context
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._pending: dict[Format, Future[list[bytes]]] = {}

    def get(self, wanted: Format) -> Future[list[bytes]]:
        """Return the page of the format, as soon as it is there."""
        if self._process != os.getpid():
            # A fork copies the locks as they were held and not the threads that hold them.
            self._reset()
        with self._guard:
            pending = self._pending.get(wanted)
            if pending is not None:
                return pending
            page: Future[list[bytes]] = Future()
            thread = threading.Thread(
                target=self._make, args=(wanted, page), name="apmkit scrape", daemon=True
            )
            thread.start()
            self._pending[wanted] = page
        return page

    def _make(self, wanted: Format, page: Future[list[bytes]]) -> None:
        try:
            with self._turn:
                made = render(self._context, wanted)
        except BaseException as error:  # noqa: BLE001 - goes to whoever waits for the page
            self._forget(wanted)
            page.set_exception(error)
        else:
            self._forget(wanted)
            page.set_result(made)

    def _forget(self, wanted: Format) -> None:
        with self._guard:
            del self._pending[wanted]


class Pace:
    """Called between pieces of work, sleeps whenever a slice is over."""

    def __init__(self) -> None:
        """Begin a slice."""
        self._began = time.perf_counter()

    def __call__(self) -> None:
        """Give way if it is time to."""
        if time.perf_counter() - self._began > SLICE:
            time.sleep(GAP)
            self._began = time.perf_counter()


def render(context: ExporterContext, wanted: Format) -> list[bytes]:
    """Return the page of a fresh snapshot, in pieces."""
    pieces = _pieces(SnapshotCollector(context, Pace()), wanted)
    if not wanted.gzip:
        return list(pieces)
    compressor = zlib.compressobj(level=1, wbits=_GZIP_FORMAT)
    return [*map(compressor.compress, pieces), compressor.flush()]


def _pieces(collector: SnapshotCollector, wanted: Format) -> Iterator[bytes]:
    """Yield the page in pieces of `BATCH` samples: joining a large page would hold the lock."""
    generate = openmetrics.generate_latest if wanted.openmetrics else exposition.generate_latest

    def text(family: Metric) -> bytes:
        # Names are in the classic character set; escaping them would find nothing, slowly.
        page: bytes = generate(_Only(family), openmetrics.ALLOWUTF8)
        return page.removesuffix(_END)

    for family in collector.collect():
        samples = iter(family.samples)
        family.samples = []
        header = text(family)
        yield header
        while True:
            # Still lazy: the pauses between samples come while the text is written.
            family.samples = cast("list[Sample]", islice(samples, BATCH))
            piece = text(family).removeprefix(header)
            if not piece:
                break
            yield piece
    if wanted.openmetrics:
        yield _END


class _Only:
    """A collector of one metric."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]
