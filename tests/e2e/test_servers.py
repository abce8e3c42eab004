"""A missing server program skips on a laptop and fails in CI."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from tests.e2e import servers

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_program_skips_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is neither on PATH nor in"):
        servers.require("no-such-program")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is neither on PATH nor in"):
        servers.require("no-such-program")


def test_a_program_is_found_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "apmkit" / "bin" / "built-here"
    program.parent.mkdir(parents=True)
    program.touch()
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert servers.require("built-here") == str(program)
