"""A back-off is how long a server waits before it starts a worker in the place of one that ended. Pure."""

from __future__ import annotations

STABLE = 60.0  # seconds after which an end is not counted with those before it
BACK_OFF, MOST_BACK_OFF = 1.0, 30.0  # seconds before the third worker in a row starts, doubled for each one after it


class BackOff:
    """BackOff is how long to wait before the next worker starts: not at all for the first end, longer for each next."""

    def __init__(self) -> None:
        self._ends = 0

    def next(self, lived: float) -> float:
        """The seconds to wait after the end of a worker that lived so many seconds."""
        if lived >= STABLE:
            self._ends = 0
        self._ends += 1
        return 0.0 if self._ends == 1 else min(BACK_OFF * 2.0 ** min(self._ends - 2, 16), MOST_BACK_OFF)
