"""Lookups ask the store whether a stream exists, so seldom that a flood of unknown names costs other readers nothing.

A name that exists is looked up once and known from then on. A name that does not exist uses one of LOOKS places for a
second; whoever asks for the same name meanwhile shares its look, and other names wait their turn in a short line.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from .. import metrics
from ..errors import NotFound, Unavailable

LOOKS = 50  # names a second that turn out not to exist
WAITING = 50  # names that wait for a look
KNOWN = 10_000  # names of streams that exist; the least recently used one makes room for another
PERIOD = 1.0  # seconds


class Lookups:
    """Lookups knows which streams exist. `exists` asks the store; it raises StoreError."""

    def __init__(self, exists: Callable[[str], Awaitable[bool]]) -> None:
        self._exists = exists
        self._known: OrderedDict[str, None] = OrderedDict()
        self._looks: dict[str, asyncio.Task[bool]] = {}  # under way or waiting, by name
        self._places = asyncio.Semaphore(LOOKS)  # it serves those who wait in the order of their coming

    async def look_up(self, name: str) -> None:
        """Return where a stream exists. Raises NotFound, StoreError, Unavailable where too many names are unknown."""
        if name in self._known:
            self._known.move_to_end(name)
            return
        task = self._looks.get(name) or self._begin(name)
        if not await asyncio.shield(task):  # a reader that disconnects must not cancel the look of the others
            raise NotFound(f"There is no stream {name}.")

    def forget(self, name: str) -> None:
        """Ask the store again for a name: its stream was deleted."""
        self._known.pop(name, None)

    def _begin(self, name: str) -> asyncio.Task[bool]:
        if len(self._looks) >= LOOKS + WAITING:
            metrics.LIMITED.labels("unknown_streams").inc()
            raise Unavailable("Too many unknown streams are asked for at once; retry later.")
        task = self._looks[name] = asyncio.get_running_loop().create_task(self._look(name))
        task.add_done_callback(lambda task: self._end(name, task))
        return task

    def _end(self, name: str, task: asyncio.Task[bool]) -> None:
        del self._looks[name]
        if not task.cancelled():
            task.exception()  # else asyncio logs it where nobody waits for it any more

    async def _look(self, name: str) -> bool:
        await self._places.acquire()
        try:
            is_there = await self._exists(name)
        except BaseException:
            self._places.release()
            raise
        if not is_there:
            asyncio.get_running_loop().call_later(PERIOD, self._places.release)
            return False
        self._places.release()
        self._known[name] = None
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return True
