"""Make the picture of `apmkit demo` that README and the home page show: run this file."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from apmkit.cli import demo

PICTURE = Path(__file__).parent / "assets" / "demo.svg"
WIDTH = 112  # columns
REQUESTS = 2_000


def main() -> int:
    """Run the demo and draw what it prints; return its exit code."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH,
        force_terminal=True,
        force_interactive=False,
        highlight=False,
    )
    code = demo.run(requests=REQUESTS, keep=False, console=console)
    if code == 0:
        drawing = console.export_svg(title="apmkit demo", theme=MONOKAI, unique_id="demo")
        # No fonts from other hosts: a reader's own monospace font does.
        PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
