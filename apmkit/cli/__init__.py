"""The command `apmkit`."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from apmkit.config import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEMO_PACKAGES = ("cachetools", "fastapi", "rich", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows the command's name; by default those of the process.

    Returns:
        The exit code: 0 if all went well, 1 if the demo failed, 2 if it could not be started, 130
        after Ctrl-C.
    """
    parsed = _parser().parse_args(arguments)
    try:
        from apmkit.cli import demo

        return demo.run(requests=parsed.requests, keep=parsed.keep)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _DEMO_PACKAGES:
            raise
        missing = f"the demo needs the package {error.name}, which is not installed"
        return _refuse(f"{missing}: pip install 'apmkit[demo]'")
    except SettingsError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apmkit", description="An in-process APM agent for Python ASGI services."
    )
    version = f"apmkit {metadata.version('apmkit')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="drive a small shop with real requests and show what the agent saw",
        description="Drive a small shop with real requests and show what the agent saw. With"
        " OTEL_EXPORTER_OTLP_ENDPOINT set, its traces and metrics also go there.",
    )
    demo.add_argument(
        "--requests", type=_positive, default=2_000, help="how many requests (default: 2000)"
    )
    demo.add_argument(
        "--keep", action="store_true", help="leave the shop running until Ctrl-C, to look at it"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _refuse(sentence: str) -> int:
    print(f"apmkit: {sentence}", file=sys.stderr)  # noqa: T201 - a command line speaks this way
    return 2
