"""Lookups ask the store whether a stream exists, so seldom that a flood of unknown names costs other readers nothing.

A name that exists is looked up once and known from then on. A name that does not exist uses one of LOOKS places for a
second. Whoever asks for the same name meanwhile shares its look, and other names wait their turn in a short line. When
the line is full, the streams that changed last are learned from the store: most readers come for one of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from .. import metrics
from ..errors import Deleted, NotFound, Unavailable
from ..log_throttle import Trouble
from ..store.store import StoreError

logger = logging.getLogger(__name__)

LOOKS = 50  # names a second that turn out not to exist
WAITING = 50  # names that wait for a look
SHARERS = 20  # readers who wait for the same look to begin; each has a connection open meanwhile
KNOWN = 10_000  # names of streams that exist; the least recently used one makes room for another
PERIOD = 1.0  # seconds
LEARNED_EVERY = 5.0  # seconds


class Lookups:
    """Lookups knows which streams exist. `exists` and `newest` ask the store; they raise StoreError."""

    def __init__(
        self, *, exists: Callable[[str], Awaitable[bool]], newest: Callable[[], Awaitable[Iterable[str]]]
    ) -> None:
        self._exists = exists
        self._newest = newest
        self._known: OrderedDict[str, None] = OrderedDict()
        self._deleted: dict[str, Deleted] = {}  # for a PERIOD after a look
        self._looks: dict[str, asyncio.Task[bool]] = {}  # under way or waiting, by name
        self._sharers: dict[str, int] = {}  # of each look that has not begun
        self._places = asyncio.Semaphore(LOOKS)  # it serves those who wait in the order of their coming
        self._trouble = Trouble(logger, "the list of the newest streams is read again")
        self._learning: asyncio.Task[None] | None = None

    async def look_up(self, name: str) -> None:
        """Return where a stream exists.

        Raises NotFound, Deleted, StoreError, Unavailable where too many names are unknown or `close` ends the look.
        """
        if name in self._known:
            self._known.move_to_end(name)
            return
        if name in self._deleted:  # all its readers ask at once
            raise self._deleted[name].with_traceback(None)
        self._check_line(name)
        task = self._looks.get(name) or self._begin(name)
        await asyncio.wait([task])  # a reader that disconnects must not cancel the look of the others
        if task.cancelled():  # its result would be a CancelledError, as if the request were cancelled
            raise Unavailable("This worker stops; retry later.")
        if not task.result():
            raise NotFound(f"There is no stream {name}.")

    def forget(self, name: str) -> None:
        """Ask the store again for a name: its stream was deleted."""
        self._known.pop(name, None)

    def close(self) -> None:
        """End the looks that are under way."""
        for task in (*self._looks.values(), *([self._learning] if self._learning else [])):
            task.cancel()

    def _know(self, names: Iterable[str]) -> None:
        for name in names:
            self._known[name] = None
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def _check_line(self, name: str) -> None:
        """Raises Unavailable where there is no room to wait for a look."""
        is_full = name not in self._looks and len(self._looks) >= LOOKS + WAITING
        if is_full and (self._learning is None or self._learning.done()):
            self._learning = asyncio.get_running_loop().create_task(self._learn())
        if is_full or (self._places.locked() and self._sharers.get(name, 0) >= SHARERS):
            metrics.LIMITED.inc("unknown_streams")
            raise Unavailable("Too many unknown streams are asked for at once; retry later.")
        if name in self._sharers:
            self._sharers[name] += 1

    def _begin(self, name: str) -> asyncio.Task[bool]:
        self._sharers[name] = 1
        task = self._looks[name] = asyncio.get_running_loop().create_task(self._look(name))
        task.add_done_callback(lambda task: self._end(name, task))
        return task

    def _end(self, name: str, task: asyncio.Task[bool]) -> None:
        del self._looks[name]
        if not task.cancelled():
            task.exception()  # else asyncio logs it where nobody waits for it any more

    async def _look(self, name: str) -> bool:
        await self._places.acquire()
        del self._sharers[name]
        try:
            is_there = await self._exists(name)
        except Deleted as deleted:
            self._deleted[name] = deleted
            asyncio.get_running_loop().call_later(PERIOD, self._release, name)
            raise
        except BaseException:
            self._places.release()
            raise
        if is_there:
            self._places.release()
            self._know([name])
        else:
            asyncio.get_running_loop().call_later(PERIOD, self._places.release)
        return is_there

    def _release(self, name: str) -> None:
        """Give back the place of a look at a deleted stream."""
        self._deleted.pop(name, None)
        self._places.release()

    async def _learn(self) -> None:
        """Learn the streams that changed last, and rest, so that a flood asks for them seldom."""
        try:
            self._know(await self._newest())
            self._trouble.over()
        except StoreError as error:
            words = "the list of the newest streams could not be read: %s; readers of streams not in memory may get 503"
            self._trouble.failed(words, error, reason=error)
        await asyncio.sleep(LEARNED_EVERY)
