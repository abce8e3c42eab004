"""Identifiers never repeat, whatever the application does with `random` or with processes."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from apmkit.record.identifiers import random_bits

if TYPE_CHECKING:
    from collections.abc import Callable


def test_seeding_the_random_module_repeats_nothing() -> None:
    random.seed(7)
    first = random_bits(128)
    random.seed(7)
    assert random_bits(128) != first


def test_many_identifiers_are_all_different() -> None:
    assert len({random_bits(64) for _ in range(10_000)}) == 10_000


def _in_child(produce: Callable[[], bytes]) -> bytes:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, produce())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as stream:
        return stream.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_repeats_no_identifier_of_its_parent_or_siblings() -> None:
    def produce() -> bytes:
        return b"".join(random_bits(128).to_bytes(16, "big") for _ in range(100))

    runs = [_in_child(produce), _in_child(produce), produce()]
    found = {run[at : at + 16] for run in runs for at in range(0, 1_600, 16)}
    assert len(found) == 300
