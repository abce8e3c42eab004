"""Prints traces as they are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from apmkit.relay.export import Delivered, Outcome, Refused, decode_traces
from apmkit_console.tree import render

if TYPE_CHECKING:
    from apmkit.relay.export import Signal


class ConsoleExporter:
    """Prints every trace to a stream, in colours if that is a terminal."""

    name = "console"
    signals: frozenset[Signal] = frozenset({"traces"})

    def __init__(self, stream: TextIO) -> None:
        """Print nothing yet."""
        self._stream = stream

    def export(self, signal: Signal, request: bytes, timeout: float) -> Outcome:
        """Print the traces of `request`."""
        del signal, timeout
        try:
            text = render(decode_traces(request), colour=self._stream.isatty())
        except ValueError as error:
            return Refused(str(error))
        # A terminal that cannot show the lines of the tree shows question marks.
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()
        return Delivered()

    def close(self) -> None:
        """Leave the stream open: it belongs to the application."""
