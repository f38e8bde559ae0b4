"""Heads are the newest events of streams, which many reads learn by one look at the store.

A read shows every publish that was acknowledged before the read began, if it knows the head of the stream as of an
instant after that. So a read waits for a look that begins after the read came. Reads that came meanwhile share it:

    reads      a  b  c     d  e
    looks        [---- a ----]
                              [-- b c d e --]

A worker looks at each partition at most once every INTERVAL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress

from ..model import Deletion, partition_of
from ..store.connection import within
from ..store.log import Head, Log
from ..store.store import StoreError

INTERVAL = 0.003  # seconds between the beginnings of two looks at a partition
LIMIT = 0.5  # seconds for the store to answer; after that it counts as away
AGAIN = 0.5  # seconds after which a store that is away is asked again
AWAITED = 4.5  # seconds for which a store that went away is awaited: with LIMIT as long as a publish waits for it
WAITING = 256  # reads that await it at a time
STREAMS = 256  # in one look
TURN = 16  # readers of a look who go on at once; then live passes have their turn

Found = Head | Deletion | None  # what a look finds of one stream
Futures = list[asyncio.Future[Found]]
Waiting = dict[str, Futures]


class Heads:
    """Heads looks at the newest events of streams. `yield_to` is awaited before the readers of a look go on.

    A stream costs one look however many ask for it.
    """

    def __init__(self, log: Log, *, yield_to: Callable[[], Awaitable[None]]) -> None:
        partitions = log.store.partitions
        self._looks = [Look(log, yield_to) for _ in range(partitions)]
        self._waiting = 0  # reads that await a store that went away

    async def of(self, stream: str) -> Found:
        """The newest event of a stream, or its deletion, at an instant after the call, None for no such stream.

        Raises StoreError.
        """
        return await self.ask(stream)

    def ask(self, stream: str) -> asyncio.Future[Found]:
        """The same as a future, which has a StoreError while the store is away."""
        return self._looks[partition_of(stream, len(self._looks))].ask(stream)

    async def back(self, stream: str, since: float) -> bool:
        """Whether a store that is away answers again: waits for it until it has been away for AWAITED seconds.

        A read that began at `since` on the loop's clock waits no longer than AWAITED after that. False at once where
        the store is not away, so that nothing was waited for, and where WAITING others wait.
        """
        if self._waiting >= WAITING:
            return False
        self._waiting += 1
        try:
            return await self._looks[partition_of(stream, len(self._looks))].back(since)
        finally:
            self._waiting -= 1


class Look:
    """Look asks for the heads of the streams of one partition, for all who wait, again and again while any does."""

    def __init__(self, log: Log, yield_to: Callable[[], Awaitable[None]]) -> None:
        self._log = log
        self._yield_to = yield_to
        self._waiting: Waiting = {}
        self._task: asyncio.Task[None] | None = None
        self._error: StoreError | None = None  # while the store is away: readers do not wait for it to be silent again
        self._begun_at = float("-inf")  # of the last look, seconds on the loop's clock
        self._away_at = 0.0  # when the store went away
        self._is_back = asyncio.Event()  # since then

    def ask(self, stream: str) -> asyncio.Future[Found]:
        """A future of the stream's head at an instant after this call; at once an error while the store is away."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        if self._error is not None:
            # Each raise adds to the traceback of the one error: 1 kB for each load, for as long as the store is away.
            future.set_exception(self._error.with_traceback(None))
            return future
        self._waiting.setdefault(stream, []).append(future)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return future

    async def back(self, since: float) -> bool:
        """As `Heads.back`."""
        if self._error is None:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(since, self._away_at) + AWAITED):
                await self._is_back.wait()
        return self._error is None

    async def _run(self) -> None:
        """Look until nobody waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                rest = self._begun_at + INTERVAL - loop.time()
                if rest > 0:
                    await asyncio.sleep(rest)
                self._begun_at = loop.time()
                await self._look(self._take())
        finally:
            self._task = None

    def _take(self) -> Waiting:
        """The streams of the next look, and who waits for them."""
        if len(self._waiting) <= STREAMS:
            waiting, self._waiting = self._waiting, {}
            return waiting
        return {stream: self._waiting.pop(stream) for stream in list(self._waiting)[:STREAMS]}

    async def _look(self, waiting: Waiting) -> None:
        names = list(waiting)
        try:
            heads = await within(self._log.heads(names), LIMIT)
            await self._deliver(waiting, names, heads)
        except StoreError as error:
            self._error, self._away_at = error, asyncio.get_running_loop().time()
            self._is_back.clear()
            self._fail(waiting, error)
            await self._until_back(names)
        except BaseException:  # the look is ended: nobody waits for ever, and no request is cancelled for it
            self._fail(waiting, StoreError("the look at the store was ended"))
            raise

    def _fail(self, waiting: Waiting, error: StoreError) -> None:
        """Tell all who wait for this look, or for the next one."""
        for future in _open((*waiting.values(), *self._waiting.values())):
            future.set_exception(error)
        self._waiting.clear()

    async def _deliver(self, waiting: Waiting, names: list[str], heads: list[Found]) -> None:
        turn = 0
        for name, head in zip(names, heads, strict=True):
            for future in waiting[name]:
                if turn % TURN == 0:
                    await self._yield_to()
                turn += 1
                if not future.done():  # else its reader has gone
                    future.set_result(head)

    async def _until_back(self, names: list[str]) -> None:
        """Ask the store again and again, until it answers."""
        try:
            while True:
                await asyncio.sleep(AGAIN)
                with suppress(StoreError):
                    await within(self._log.heads(names), LIMIT)
                    return
        finally:  # also after any other error: while the store counts as away, nobody else would ask it
            self._error = None
            self._is_back.set()


def _open(waiting: Iterable[Futures]) -> Iterator[asyncio.Future[Found]]:
    return (future for futures in waiting for future in futures if not future.done())
