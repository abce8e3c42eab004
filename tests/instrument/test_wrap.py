from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from apmkit.instrument.wrap import wrap

if TYPE_CHECKING:
    from tests.instrument.conftest import Recording


class AsyncConnection:
    """As psycopg's async connection, for which there is no wrapper."""

    def cursor(self) -> None: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def close(self) -> None: ...


class Store:
    """To be wrapped as an instance, not as a class."""

    def get(self) -> None: ...

    def set(self) -> None: ...

    def delete(self) -> None: ...


@pytest.mark.parametrize("client", [object(), 7, "text", None, AsyncConnection(), Store, ()])
def test_what_cannot_be_wrapped_says_what_can(recording: Recording, client: object) -> None:
    with pytest.raises(TypeError, match=r"wrap a PEP 249 connection.* redis.*cachetools.*db_call"):
        wrap(client, recording.provider, recording.metrics)


def test_wrapping_imports_no_library() -> None:
    program = (
        "import sys, apmkit.instrument.wrap\n"
        "libraries = {'aiosqlite', 'cachetools', 'redis', 'sqlglot'}\n"
        "assert not libraries & set(sys.modules), libraries & set(sys.modules)\n"
        "from apmkit.instrument.wrap import wrap\n"
        "try:\n"
        "    wrap(object(), None, None)\n"
        "except TypeError:\n"
        "    assert not libraries & set(sys.modules), libraries & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
