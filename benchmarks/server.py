"""One row's application behind uvicorn, one worker, until standard input ends."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn

from benchmarks.agents import ROWS

if TYPE_CHECKING:
    import socket


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say where, so that nobody has to poll."""
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        loop = self.config.get_loop_factory()
        protocol = self.config.http_protocol_class
        used = [getattr(part, "__module__", "").split(".")[-1] for part in (loop, protocol)]
        print(json.dumps({"port": port, "used": used}), flush=True)

    def stop_with_standard_input(self) -> None:
        """End in good order: after a signal uvicorn would not return, and nothing be flushed."""
        sys.stdin.read()
        self.should_exit = True


def main() -> None:
    """Serve the row and load named on the command line."""
    row, load, endpoint = sys.argv[1:]
    subject = ROWS[row](load, endpoint)
    server = _Server(uvicorn.Config(subject.app, port=0, log_level="warning"))
    threading.Thread(target=server.stop_with_standard_input, daemon=True).start()
    server.run()
    subject.finish()


if __name__ == "__main__":
    main()
