"""The journal in memory: nothing is lost uncounted."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit.relay.journal import MemoryJournal, MemoryReader

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def payloads(reader: MemoryReader, max_bytes: int = 10**9) -> list[bytes]:
    return [payload for payload, _ in reader.read(max_bytes)]


def test_records_come_back_in_order_until_they_are_acknowledged() -> None:
    journal = MemoryJournal()
    reader = journal.reader()
    journal.append(b"a", 1)
    journal.append(b"b", 2)
    assert payloads(reader) == payloads(reader) == [b"a", b"b"]
    assert reader.pending == 3
    reader.acknowledge()
    assert payloads(reader) == []
    assert (reader.pending, reader.appended, reader.overflowed) == (0, 3, 0)


def test_a_reading_takes_up_what_came_since() -> None:
    journal = MemoryJournal()
    reader = journal.reader()
    journal.append(b"a", 1)
    assert payloads(reader) == [b"a"]
    journal.append(b"b", 1)
    assert payloads(reader) == [b"a", b"b"]


def test_a_reading_is_bounded_and_holds_at_least_one_record() -> None:
    journal = MemoryJournal()
    reader = journal.reader()
    for letter in (b"aaaa", b"bbbb", b"cccc"):
        journal.append(letter, 1)
    assert payloads(reader, 1) == [b"aaaa"]
    assert payloads(reader, 5) == [b"aaaa", b"bbbb"]
    reader.acknowledge()
    assert payloads(reader) == [b"cccc"]


def test_a_record_larger_than_a_reading_is_read_alone() -> None:
    journal = MemoryJournal()
    reader = journal.reader()
    journal.append(b"x" * 1_000, 5)
    journal.append(b"y", 1)
    assert payloads(reader, 10) == [b"x" * 1_000]


def test_the_oldest_make_room_and_are_counted() -> None:
    journal = MemoryJournal(max_bytes=10)
    reader = journal.reader()
    for number in range(5):
        journal.append(bytes([number]) * 4, number + 1)
    assert payloads(reader) == [b"\x03" * 4, b"\x04" * 4]
    assert (reader.appended, reader.overflowed, reader.pending) == (15, 6, 9)


def test_a_record_that_is_larger_than_the_journal_is_counted_as_dropped() -> None:
    journal = MemoryJournal(max_bytes=10)
    reader = journal.reader()
    journal.append(b"x" * 11, 7)
    assert (reader.pending, reader.overflowed) == (0, 7)
    journal.append(b"small", 1)
    assert payloads(reader) == [b"small"]


def test_what_is_being_sent_is_not_dropped() -> None:
    journal = MemoryJournal(max_bytes=10)
    reader = journal.reader()
    journal.append(b"a" * 8, 1)
    assert payloads(reader) == [b"a" * 8]
    journal.append(b"b" * 8, 1)
    assert payloads(reader) == [b"a" * 8]
    assert reader.overflowed == 1
    reader.acknowledge()
    journal.append(b"c" * 8, 1)
    assert payloads(reader) == [b"c" * 8]


def test_each_reader_has_a_place_of_its_own() -> None:
    journal = MemoryJournal()
    first = journal.reader()
    journal.append(b"a", 1)
    second = journal.reader()
    journal.append(b"b", 1)
    assert payloads(first) == [b"a", b"b"]
    first.acknowledge()
    assert payloads(second) == [b"b"]
    assert (first.appended, second.appended) == (2, 1)


def test_a_journal_without_readers_takes_records_too() -> None:
    journal = MemoryJournal()
    journal.append(b"a", 1)
    assert payloads(journal.reader()) == []


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 30), st.integers(1, 5)),
        st.tuples(st.just("read"), st.integers(1, 60), st.just(0)),
        st.tuples(st.just("acknowledge"), st.just(0), st.just(0)),
    )
)


@given(steps)
def test_the_account_holds_after_every_step(steps: list[tuple[str, int, int]]) -> None:
    journal = MemoryJournal(max_bytes=50)
    reader = journal.reader()
    acknowledged = in_hand = 0
    for step, size, spans in steps:
        if step == "append":
            journal.append(b"x" * size, spans)
        elif step == "read":
            in_hand = sum(count for _, count in reader.read(size))
        else:
            acknowledged += in_hand
            in_hand = 0
            reader.acknowledge()
        assert reader.appended == acknowledged + reader.overflowed + reader.pending
        assert reader._bytes == sum(len(p) for p, _ in (*reader._queue, *reader._unacknowledged))


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_that_append_and_read_together_lose_nothing() -> None:
    journal = MemoryJournal(max_bytes=500)
    reader = journal.reader()
    delivered = 0

    def write() -> None:
        for _ in range(3_000):
            journal.append(b"x" * 10, 1)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or reader.pending:
        batch = reader.read(200)
        delivered += len(batch)
        reader.acknowledge()
    assert reader.appended == 12_000 == delivered + reader.overflowed
    assert reader._bytes == 0
