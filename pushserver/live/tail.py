"""The tail of one partition: one connection that blocks on the logs of every stream followed there.

    IDLE --follow()--> CONNECTING --connected, verified--> READING --unfollowed all--> IDLE
                           ^                                  |
                           '----------- LOST <----error-------'

LOST waits a little longer each time, with jitter, then connects again. Ids that were read stay concrete across it, so
nothing between two reads is skipped; what a connection may have missed for good is found by `verify`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from .. import metrics
from ..model import Event, now
from ..store.log import BLOCK_MS, Log, TailConnection
from ..store.store import StoreError

logger = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MOST = 0.1, 2.0  # seconds
VERIFIED_EVERY = 5.0  # seconds; a log that was rolled back may go on with lower ids, which no read would show
SILENCE = 10.0  # seconds without an answer after which a tail is not to be relied on


class State(Enum):
    IDLE = "idle"
    CONNECTING = "connecting"
    READING = "reading"
    LOST = "lost"


class Tail:
    """Reads the followed streams of a partition and hands their events on, in order. `run` is its only task."""

    def __init__(
        self,
        log: Log,
        partition: int,
        *,
        deliver: Callable[[str, list[Event]], None],
        verify: Callable[[Mapping[str, str]], Awaitable[None]],
    ) -> None:
        self.state = State.IDLE
        self._log = log
        self._partition = partition
        self._deliver = deliver
        self._verify = verify
        self._after: dict[str, str] = {}  # stream -> redis id of its last event that was read
        self._asked: dict[str, str] | None = None  # what the read that is under way was asked for
        self._connection: TailConnection | None = None  # that is being read
        self._followed = asyncio.Event()
        self._answered_at = 0.0
        self._verified_at = 0.0
        self.stale_since: int | None = None  # milliseconds since 1970; while it is not known what the logs hold

    def is_sound(self) -> bool:
        """Whether what it follows is being read, and was verified of late."""
        at = asyncio.get_running_loop().time()
        return self.state is State.IDLE or at - min(self._answered_at, self._verified_at) < SILENCE

    async def follow(self, stream: str, after: str) -> None:
        """Read a stream from the event after this redis id on; interrupts the read that goes on without it."""
        self._after[stream] = after
        self._followed.set()
        # The read may be on its way to the server when this arrives there, and block right after: so until it is seen
        # to ask for the stream. A read that is not interrupted ends by itself after BLOCK_MS.
        deadline = asyncio.get_running_loop().time() + BLOCK_MS / 1000
        while self._asked is not None and stream not in self._asked and asyncio.get_running_loop().time() < deadline:
            assert self._connection is not None, "a read is under way"
            await self._connection.unblock()

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream, from the next read on."""
        self._after.pop(stream, None)

    async def run(self) -> None:
        """Read until cancelled."""
        delay = RETRY_FIRST
        while True:
            if not self._after:
                self.state = State.IDLE
                self._followed.clear()
                await self._followed.wait()
                # It has until SILENCE to begin.
                self._answered_at = self._verified_at = asyncio.get_running_loop().time()
            try:
                self.state = State.CONNECTING
                connection = await self._log.open_tail(self._partition)
                try:
                    await self._verify_all()
                    self.state = State.READING
                    self.stale_since = None
                    delay = RETRY_FIRST
                    await self._read(connection)
                finally:
                    self._asked = None
                    await connection.close()
            except (StoreError, OSError) as error:
                self.state = State.LOST
                metrics.TAILS_LOST.inc()
                self._answered_at = float("-inf")
                self.stale_since = self.stale_since or now()
                logger.warning("tail lost: %s; again in %.1f s at most", error, delay)
                await asyncio.sleep(random.uniform(0, delay))
                delay = min(delay * 2, RETRY_MOST)

    async def _verify_all(self) -> None:
        await self._verify(dict(self._after))
        self._verified_at = asyncio.get_running_loop().time()

    async def _read(self, connection: TailConnection) -> None:
        loop = asyncio.get_running_loop()
        self._connection = connection
        self._answered_at = loop.time()
        while self._after:
            asked = self._asked = dict(self._after)
            answer = await connection.read(asked)
            self._asked = None
            self._answered_at = loop.time()
            if self._answered_at - self._verified_at > VERIFIED_EVERY:
                await self._verify_all()
            for stream, last, events in answer:
                # What was unfollowed meanwhile, or followed anew from elsewhere, is not what this read was asked for.
                if self._after.get(stream) == asked[stream]:
                    self._after[stream] = last
                    self._deliver(stream, events)
