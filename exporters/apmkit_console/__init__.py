"""The terminal: each kept trace as a readable tree of spans."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from apmkit_console.exporter import ConsoleExporter
from apmkit_console.tree import render

if TYPE_CHECKING:
    from apmkit.relay.export import ExporterContext

__all__ = ["ConsoleExporter", "create", "render"]


def create(context: ExporterContext) -> ConsoleExporter:
    """Return the exporter that prints to standard output; it has no settings."""
    del context
    return ConsoleExporter(sys.stdout)
