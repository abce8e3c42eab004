"""What goes wrong inside the agent: counted at once, logged later, hidden from the application."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from apmkit.record import clock

if TYPE_CHECKING:
    from apmkit.record.metrics import Metrics

logger = logging.getLogger("apmkit")

_MINUTE = 60_000_000_000


class Faults:
    """Counts internal errors and malformed input by place; logs each place once a minute.

    Nothing is logged on the application's stack, because a logging handler may itself be what
    is being recorded: `report` is called by the agent's own thread.

    Attributes:
        reraise: raise internal errors instead of hiding them; apmkit's own tests set it.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.reraise = False
        self._errors = metrics.counter(
            "apmkit.internal.errors", "{error}", "Errors inside the agent."
        )
        self._malformed = metrics.counter(
            "apmkit.malformed.input", "{input}", "Request parts that the agent could not read."
        )
        self._waiting: deque[tuple[str, str, BaseException | None]] = deque(maxlen=64)
        self._logged: dict[str, int] = {}

    def internal(self, place: str, error: Exception) -> None:
        """Count an error inside the agent, to be logged by and by."""
        self._errors.add(1, {"apmkit.place": place})
        self._waiting.append(
            (place, f"apmkit failed in {place}; the application is not affected", error)
        )
        if self.reraise:
            raise error

    def malformed(self, what: str) -> None:
        """Count a part of a request that is not what its standard says."""
        self._malformed.add(1, {"apmkit.input": what})

    def warn(self, place: str, sentence: str) -> None:
        """Have a sentence logged, at most once a minute for each place."""
        self._waiting.append((place, sentence, None))

    def report(self) -> None:
        """Log what has come up, each place once a minute."""
        while self._waiting:
            place, sentence, error = self._waiting.popleft()
            now = clock.now()
            last = self._logged.get(place)
            if last is None or now - last >= _MINUTE:
                self._logged[place] = now
                logger.warning("%s", sentence, exc_info=error)
