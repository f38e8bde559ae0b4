"""How many readers a worker lets in at a time: a storm of them is spread, before any of them costs anything.

Pure: the clock is given. A bucket of places fills with time; where it is empty a reader is told when its turn is, each
another one, so that those who were put off come back as evenly as they can be taken.
"""

from __future__ import annotations

BURST = 1.0  # seconds' worth of places that the bucket holds: a small storm is let in at once
LONGEST = 30.0  # seconds that a reader is put off, at most


class Admission:
    """A bucket of places, `rate` a second."""

    def __init__(self, rate: float) -> None:
        self._each = 1.0 / rate
        self._taken_until = float("-inf")  # the instant up to which the places are taken
        self._promised_until = float("-inf")  # and up to which they are taken or promised

    def wait(self, now: float) -> float:
        """Take a place, 0.0; where there is none, the seconds after which to come back."""
        taken = max(self._taken_until, now - BURST) + self._each
        if taken <= now:
            self._taken_until = taken
            return 0.0
        self._promised_until = min(max(self._promised_until, now) + self._each, now + LONGEST)
        return self._promised_until - now
