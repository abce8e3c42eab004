"""What the package exports, and the types of it."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import apmkit

ROOT = Path(__file__).resolve().parents[2]


def test_the_exported_names_are_these() -> None:
    assert apmkit.__all__ == ["Agent", "Middleware", "SettingsError", "instrument"]
    for name in apmkit.__all__:
        assert getattr(apmkit, name).__doc__, name


def test_the_public_methods_of_an_agent_are_these() -> None:
    public = {name for name in vars(apmkit.Agent) if not name.startswith("_")}
    assert public == {
        "asgi",
        "cache_call",
        "counter",
        "db_call",
        "flush",
        "gauge",
        "histogram",
        "record",
        "renew_after_fork",
        "span",
        "start",
        "stats",
        "stop",
        "traced",
        "wrap",
    }


def test_the_types_are_for_others_too() -> None:
    assert resources.files("apmkit").joinpath("py.typed").is_file()


def test_a_strict_type_checker_agrees_with_the_api() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/typing/public_api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
