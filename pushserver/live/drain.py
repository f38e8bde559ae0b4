"""A drain is the way in which a worker stops: in this order, each step with a limit.

    SERVING --begin--> NOTICE     not ready, and still accepting: balancers notice it          `delay` seconds
                         |
                         v
                       LEAVING    readers are sent away evenly, in random order                `window` seconds,
                         |                                                                     or until none is left
                       finish     once no worker of the server has readers
                         v
                       FINISHING  requests that came before it end, new connections are refused   FINISH seconds,
                         |                                                                     or until none is left
                         v
                       OVER       what is left gets a refusal, and is cut

The delay is always waited out: without readers a balancer sends publishers all the same. `hurry` ends all waiting, and
keeps the order. The store ends after the last worker.

This module is pure: it has no task and no I/O, and is given the clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a supervisor, which has no readers, asks how long a drain takes
    from .fanout import Fanout
    from .reader import Reader

CLOSE_WAIT = 2.0  # seconds beyond the window for the last readers to answer their close; then they are cut
FINISH = 5.0  # seconds for requests that are under way
HURRIED = 0.5  # seconds for each of the two in a drain that is hurried
BETWEEN = 0.02  # seconds between two looks at a drain


class Phase(Enum):
    """The phases of a drain, in their order."""

    SERVING = auto()
    NOTICE = auto()
    LEAVING = auto()
    FINISHING = auto()
    OVER = auto()


class Drain:
    """Drain says in which phase a worker is, and how many of its readers should have been sent away.

    Instants are in seconds of the caller's clock.
    """

    def __init__(self, *, window: float, delay: float = 0.0) -> None:
        self.phase = Phase.SERVING
        self._delay = delay
        self._window = window
        self._close_wait, self._finish = CLOSE_WAIT, FINISH
        self._since = 0.0  # when the phase began

    def begin(self, at: float) -> None:
        """Begin; a second call changes nothing."""
        if self.phase is Phase.SERVING:
            self._enter(Phase.NOTICE, at)

    def skip_delay(self) -> None:
        """Wait for no balancer: another worker has taken over."""
        self._delay = 0.0

    def hurry(self, at: float) -> None:
        """Begin, and wait as little as the order of the phases allows."""
        self.begin(at)
        self._delay = self._window = 0.0
        self._close_wait = self._finish = HURRIED

    def step(self, at: float, *, requests: int) -> Phase:
        """Return the phase at this instant, with so many requests left. It moves by one phase at most."""
        waited = at - self._since
        if self.phase is Phase.NOTICE and waited >= self._delay:
            self._enter(Phase.LEAVING, at)
        elif self.phase is Phase.FINISHING and (not requests or waited >= self._finish):
            self._enter(Phase.OVER, at)
        return self.phase

    def has_left(self, at: float, readers: int) -> bool:
        """Whether none of the readers is left in LEAVING, or the last ones have had their time."""
        return not readers or self.leaving_for(at) == 0.0

    def leaving_for(self, at: float) -> float:
        """The seconds that LEAVING takes at most from this instant on."""
        return max(0.0, self._since + self._window + self._close_wait - at)

    def finish(self, at: float) -> None:
        """End LEAVING: the readers of all workers have left."""
        if self.phase is Phase.LEAVING:
            self._enter(Phase.FINISHING, at)

    def due(self, at: float, readers: int) -> int:
        """Return how many of so many readers should have been sent away at this instant of LEAVING."""
        waited = at - self._since
        return readers if waited >= self._window else math.ceil(readers * waited / self._window)

    def _enter(self, phase: Phase, at: float) -> None:
        self.phase, self._since = phase, at


def longest_leaving(delay: float, window: float) -> float:
    """The seconds from the begin of a drain until its readers have left, at most."""
    return delay + window + CLOSE_WAIT


def longest(delay: float, window: float) -> float:
    """The seconds that a drain takes at most."""
    return longest_leaving(delay, window) + FINISH


class Departures:
    """Departures are the readers of a worker in the random order in which they are sent away.

    A shuffled order mixes streams, and readers who came together.
    """

    def __init__(self) -> None:
        self._readers: list[tuple[Fanout, Reader]] = []
        self._sent = 0

    @classmethod
    def of(cls, fanouts: Iterable[Fanout]) -> Departures:
        """The readers of these, as they are now."""
        departures = cls()
        for fanout in fanouts:
            for reader in fanout.all_readers():
                departures.add(fanout, reader)
        return departures

    def __len__(self) -> int:
        return len(self._readers)

    def add(self, fanout: Fanout, reader: Reader) -> None:
        """Add a reader at a random place among those who are yet to leave."""
        self._readers.append((fanout, reader))
        place, last = random.randint(self._sent, len(self._readers) - 1), len(self._readers) - 1
        self._readers[place], self._readers[last] = self._readers[last], self._readers[place]

    def next(self, due: int) -> list[tuple[Fanout, Reader]]:
        """Return the readers up to number `due` who were not returned before; they may have left by themselves."""
        readers = self._readers[self._sent : due]
        self._sent = max(self._sent, due)
        return readers
