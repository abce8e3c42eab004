from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from apmkit.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def apmkit(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "apmkit", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"apmkit {metadata.version('apmkit')}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["demo", "--requests", "0"], ["demo", "--requests", "many"]],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: apmkit" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["cachetools", "fastapi", "rich", "uvicorn"])
def test_a_missing_package_is_told_with_the_command_that_brings_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("apmkit.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("apmkit.cli.demo", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        f"apmkit: the demo needs the package {package}, which is not installed:"
        " pip install 'apmkit[demo]'\n"
    )


class _Missing:
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        del path, target
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_demo_shows_what_the_agent_saw() -> None:
    done = apmkit("demo", "--requests", "300")
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    for part in (
        "300/300",
        "GET /products/{product_id}/delivery",
        "equal to the client's",
        "Cache hit rate",
        "─ ask the carrier",
        "µs of CPU time a request",
        "created = delivered + rejected + dropped + pending",
        "/metrics",
    ):
        assert part in done.stdout


def test_a_setting_that_cannot_be_used_is_told_in_a_sentence() -> None:
    done = apmkit("demo", APMKIT_TRACE_BUDGET="lots")
    assert done.returncode == 2
    assert done.stderr.startswith("apmkit: trace_budget (variable APMKIT_TRACE_BUDGET) is 'lots';")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is a POSIX signal here")
def test_the_shop_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "apmkit", "demo", "--requests", "20", "--keep"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "until Ctrl-C" in line)
            found = re.search(r"http://\S+/metrics", line)
            assert found is not None
            with urllib.request.urlopen(found.group(), timeout=10) as response:  # noqa: S310 - our own
                exposition = response.read().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
    assert "http_server_request_duration_seconds_count" in exposition
    assert list(tmp_path.iterdir()) == []
