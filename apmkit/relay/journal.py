"""Where kept traces wait for their exporters: append here, read there, acknowledge.

This one lives in memory. Appending takes no lock, because a trace may end anywhere: in a
signal handler, in `__del__`, in a callback of the garbage collector.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias


Record: TypeAlias = "tuple[bytes, int]"
"""An encoded trace and the number of its spans."""


class Reader(Protocol):
    """One exporter's place in the journal.

    Attributes:
        appended: spans appended since the reader was made.
        overflowed: spans that were dropped because nobody read them in time.
    """

    @property
    def appended(self) -> int:
        """Spans appended since the reader was made."""
        ...

    @property
    def overflowed(self) -> int:
        """Spans dropped because nobody read them in time."""
        ...

    @property
    def pending(self) -> int:
        """Spans appended and neither acknowledged nor dropped."""
        ...

    def read(self, max_bytes: int) -> list[Record]:
        """Return the oldest unacknowledged records; the same again until they are acknowledged."""
        ...

    def acknowledge(self) -> None:
        """Forget the records that `read` returned last."""
        ...


class Journal(Protocol):
    """Takes records from the hot path and hands them to readers."""

    def append(self, payload: bytes, spans: int) -> None:
        """Add a record; safe from any thread and from any kind of callback."""
        ...

    def reader(self) -> Reader:
        """Return a new reader, which sees what is appended from now on."""
        ...


class MemoryReader:
    """A reader's queue, bounded in bytes; the oldest records make room for new ones."""

    def __init__(self, max_bytes: int) -> None:
        self._queue: deque[Record] = deque()
        self._unacknowledged: list[Record] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._acknowledged = 0
        self.appended = 0
        self.overflowed = 0

    @property
    def pending(self) -> int:
        """Spans appended and neither acknowledged nor dropped."""
        return self.appended - self._acknowledged - self.overflowed

    def append(self, record: Record) -> None:
        """Add a record, and drop the oldest while there are more bytes than allowed."""
        payload, spans = record
        self.appended += spans
        # Taken first: a call between reading and writing the number would let threads in between.
        size = len(payload)
        self._bytes += size
        self._queue.append(record)
        while self._bytes > self._max_bytes:
            try:
                oldest = self._queue.popleft()
            except IndexError:  # the reader was faster
                return
            size = len(oldest[0])
            self._bytes -= size
            self.overflowed += oldest[1]

    def read(self, max_bytes: int) -> list[Record]:
        """Return up to `max_bytes` of the oldest records, at least one if there is any."""
        batch = self._unacknowledged
        size = sum(len(payload) for payload, _ in batch)
        while not batch or size < max_bytes:
            try:
                record = self._queue.popleft()
            except IndexError:
                break
            size += len(record[0])
            batch.append(record)
        return batch

    def acknowledge(self) -> None:
        """Forget the records that `read` returned last."""
        size = sum(len(payload) for payload, _ in self._unacknowledged)
        self._bytes -= size
        spans = sum(spans for _, spans in self._unacknowledged)
        self._acknowledged += spans
        self._unacknowledged = []


class MemoryJournal:
    """A journal without a file.

    Args:
        max_bytes: what each reader may hold.
    """

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._readers: list[MemoryReader] = []

    def append(self, payload: bytes, spans: int) -> None:
        """Add a record for every reader."""
        record = payload, spans
        for reader in self._readers:
            reader.append(record)

    def reader(self) -> MemoryReader:
        """Return a new reader, which sees what is appended from now on."""
        reader = MemoryReader(self._max_bytes)
        self._readers.append(reader)
        return reader
