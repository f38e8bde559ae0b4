"""Lines of the log that would come again and again: each is logged once, and what follows is counted.

A store that is away fails a hundred times a second, and a script with a wrong key tries for days. Neither may fill a
disk or hide other lines.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

REASONS = 3  # of one trouble that are logged; each further one is counted
KEYS = 1_024  # of a tally that are told apart; those beyond count together
OTHERS = "others"  # by which a tally names those
PERIOD = 60.0  # seconds between two lines about one key


class Trouble:
    """Trouble logs that something fails, and that it works again: a line each, with the number of failures.

    Several may fail, each with a key; it works again when all of them do. Another reason is worth another line.
    """

    def __init__(self, logger: logging.Logger, again: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._again = again
        self._clock = clock
        self._failing: set[str] = set()
        self._reasons: set[str] = set()
        self._failures = 0
        self._since = 0.0

    def failed(self, message: str, *args: object, reason: object = "", key: str = "") -> None:
        """Count a failure; log the message if it is the first one, or for a new reason."""
        if not self._failing:
            self._failures, self._since = 0, self._clock()
            self._reasons.clear()
        self._failing.add(key)
        self._failures += 1
        said = str(reason)
        if said not in self._reasons and len(self._reasons) < REASONS:
            self._reasons.add(said)
            self._logger.warning(message, *args)

    def over(self, key: str = "") -> None:
        """Note that it works; log that once all do."""
        if not self._failing:  # the usual case
            return
        self._failing.discard(key)
        if not self._failing:
            seconds = self._clock() - self._since
            self._logger.info("%s, after %d failures in %.1f s", self._again, self._failures, seconds)


class Tally:
    """Tally logs the first of many equal things at once, and every minute how many came since, by a key.

    `later` calls a function after so many seconds; by default the event loop does.
    """

    def __init__(
        self, logger: logging.Logger, again: str, *, later: Callable[[float, Callable[[], None]], object] | None = None
    ) -> None:
        self._logger = logger
        self._again = again
        self._later = later
        self._counts: dict[str, int] = {}  # since the last line, by key

    def note(self, key: str, message: str, *args: object) -> None:
        """Count one; log the message if its key had none for a minute."""
        if key not in self._counts and len(self._counts) >= KEYS:
            key = OTHERS
        if key in self._counts:
            self._counts[key] += 1
            return
        self._counts[key] = 0
        self._logger.warning(message, *args)
        self._look_later(key)

    def _look_later(self, key: str) -> None:
        later = self._later or asyncio.get_running_loop().call_later
        later(PERIOD, lambda: self._look(key))

    def _look(self, key: str) -> None:
        """Log what came since the last line; forget a key of which nothing did."""
        count = self._counts[key]
        if not count:
            del self._counts[key]
            return
        self._counts[key] = 0
        self._logger.warning("%s %s: %d more in %.0f s", self._again, key, count, PERIOD)
        self._look_later(key)
