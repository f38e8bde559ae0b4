"""A tail reads the logs of one partition as they grow: one connection that blocks on every stream followed there.

    IDLE --follow()--> CONNECTING --connected, verified--> READING --unfollowed all--> IDLE
                           ^                                  |
                           '----------- LOST <----error-------'

LOST waits a little longer each time, with jitter, then connects again. The id of the last event that was read stays
concrete across a reconnect, so no event between two reads is skipped; `verify` finds events that the store lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from .. import metrics
from ..log_throttle import Trouble
from ..model import Event, now, partition_of
from ..store.log import Log
from ..store.store import StoreError
from ..store.tail import BLOCK_MS, TailConnection
from ..stretch import Stretch

logger = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MOST = 0.1, 2.0  # seconds
VERIFIED_EVERY = 5.0  # seconds; a log that was rolled back may go on with lower ids, which a read does not return
READ_AGAIN = "all tails are read again"
SLICE = 8  # events of a stream that are delivered in one piece
SILENCE = 10.0  # seconds without an answer from the store after which a tail is unsound


class TailState(Enum):
    """The state of a tail, as in the diagram above."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READING = "reading"
    LOST = "lost"


class Tail:
    """Tail reads the followed streams of one partition and delivers their events in order. `run` is its only task.

    `deliver` is called with a stream's name and its next events; `verify` with the id up to which each stream's log was
    read, by name. `trouble` is that of all tails of a worker.
    """

    def __init__(
        self,
        log: Log,
        partition: int,
        *,
        deliver: Callable[[str, list[Event]], None],
        verify: Callable[[Mapping[str, str]], Awaitable[None]],
        trouble: Trouble | None = None,
    ) -> None:
        self._trouble = trouble or Trouble(logger, READ_AGAIN)
        self.state = TailState.IDLE
        self._log = log
        self._partition = partition
        self._deliver = deliver
        self._verify = verify
        self._after: dict[str, str] = {}  # Redis id of the last event that was read, by stream
        self._reading: dict[str, str] | None = None  # the ids that the read under way began with
        self._connection: TailConnection | None = None  # the one that is being read
        self._followed = asyncio.Event()
        self._answered_at = 0.0
        self._spoke_at = 0.0  # as `_answered_at`, also after the connection was lost
        self.heard_at = 0  # when the store last answered a read, in milliseconds since 1970
        self._verified_at = 0.0
        self._lost_at: int | None = (
            None  # the first failure since the store last answered a read, in milliseconds since 1970
        )
        self._delay = RETRY_FIRST  # until the next connection, where this one is lost

    def is_sound(self) -> bool:
        """Whether the followed streams are being read, and were verified within SILENCE."""
        at = asyncio.get_running_loop().time()
        return self.state is TailState.IDLE or at - min(self._answered_at, self._verified_at) < SILENCE

    @property
    def stale_since(self) -> int | None:
        """The instant since which the logs have not been read, in milliseconds since 1970; None while they are read."""
        return self._lost_at if self.state in (TailState.CONNECTING, TailState.LOST) else None

    def silence(self) -> float:
        """The seconds since the store last answered; 0 where nothing is to be read."""
        if self.state is TailState.IDLE:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - self._spoke_at)

    async def follow(self, stream: str, after: str) -> None:
        """Read a stream from the event after this Redis id on; a read without the stream is interrupted."""
        if not self._after:
            self._lost_at = None  # else the stream would be stale since a failure before it, maybe hours ago
        self._after[stream] = after
        self._followed.set()
        # One interruption may not do: if it reaches the server before the read does, the read blocks right after it.
        # So it is repeated until a read names the stream. A read that is not interrupted ends after BLOCK_MS.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BLOCK_MS / 1000
        while self._reading is not None and stream not in self._reading and loop.time() < deadline:
            assert self._connection is not None, "a read is under way"
            await self._connection.unblock()

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream, from the next read on."""
        self._after.pop(stream, None)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if not self._after:
                self.state = TailState.IDLE
                self._trouble.over(str(self._partition))
                self._followed.clear()
                await self._followed.wait()
                # Else the tail would be unsound before its first read: it was idle for longer than SILENCE.
                self._answered_at = self._verified_at = self._spoke_at = asyncio.get_running_loop().time()
            try:
                self.state = TailState.CONNECTING
                connection = await self._log.open_tail(self._partition)
                try:
                    await self._verify_all()
                    self.state = TailState.READING
                    await self._read(connection)
                finally:
                    self._reading = None
                    await connection.close()
            except (StoreError, OSError) as error:
                self.state = TailState.LOST
                metrics.TAILS_LOST.inc()
                self._answered_at = float("-inf")
                self._lost_at = self._lost_at or now()
                words = (
                    "tail lost: %s; partition %d is read again within %.1f s; other lost partitions may have no line"
                )
                wait, self._delay = self._delay, min(self._delay * 2, RETRY_MOST)
                self._trouble.failed(words, error, self._partition, wait, reason=error, key=str(self._partition))
                await asyncio.sleep(random.uniform(0, wait))

    async def _verify_all(self) -> None:
        await self._verify(dict(self._after))
        self._verified_at = asyncio.get_running_loop().time()

    async def _read(self, connection: TailConnection) -> None:
        loop = asyncio.get_running_loop()
        self._connection = connection
        self._answered_at = loop.time()
        while self._after:
            reading = self._reading = dict(self._after)
            answer = await connection.read(reading)
            self._reading = None
            self._answered_at = self._spoke_at = loop.time()
            # Not once it is connected: a store that refuses each read would be asked at once, and logged each time.
            self._delay = RETRY_FIRST
            self._lost_at = None
            self._trouble.over(str(self._partition))
            self.heard_at = now()
            if self._answered_at - self._verified_at > VERIFIED_EVERY:
                await self._verify_all()
            stretch = Stretch()
            for stream, last, events in answer:
                await self._deliver_slices(stream, reading[stream], last, events, stretch)

    async def _deliver_slices(self, stream: str, after: str, last: str, events: list[Event], stretch: Stretch) -> None:
        """Deliver what a read returned of one stream, a slice at a time: withdrawals take long."""
        for start in range(0, max(1, len(events)), SLICE):
            # A stream that was unfollowed meanwhile, or followed from another id, would get events out of order.
            if self._after.get(stream) != after:
                return
            part = events[start : start + SLICE]
            after = self._after[stream] = last if start + SLICE >= len(events) else part[-1].cursor.id
            self._deliver(stream, part)
            await stretch.rest()


class Tails:
    """Tails are the tails of all partitions: they follow a stream on the partition that has its log."""

    def __init__(
        self,
        log: Log,
        *,
        deliver: Callable[[str, list[Event]], None],
        verify: Callable[[Mapping[str, str]], Awaitable[None]],
    ) -> None:
        trouble = Trouble(logger, READ_AGAIN)
        self._tails = [
            Tail(log, partition, deliver=deliver, verify=verify, trouble=trouble)
            for partition in range(log.store.partitions)
        ]

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for tail in self._tails:
                tasks.create_task(tail.run())

    def is_sound(self) -> bool:
        """Whether every followed partition is being read."""
        return all(tail.is_sound() for tail in self._tails)

    def measure(self) -> None:
        """Set the metrics of the tails."""
        states = Counter(tail.state for tail in self._tails)
        for state in TailState:
            metrics.TAILS.set(states[state], state.value)
        metrics.TAIL_SILENCE.set(max(tail.silence() for tail in self._tails))

    async def follow(self, stream: str, after: str) -> None:
        """Read a stream from the event after this Redis id on."""
        await self._of(stream).follow(stream, after)

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream."""
        self._of(stream).unfollow(stream)

    def stale_since(self, stream: str) -> int | None:
        """The instant since which a stream's log has not been read, in milliseconds since 1970; None while it is."""
        return self._of(stream).stale_since

    def heard_at(self, stream: str) -> int:
        """When the store last answered a read of a stream's log, in milliseconds since 1970; 0 if it never did."""
        return self._of(stream).heard_at

    def _of(self, stream: str) -> Tail:
        return self._tails[partition_of(stream, len(self._tails))]
