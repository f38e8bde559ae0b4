"""The streams that this worker's readers follow: from the tails to the feeds, and the passes over them.

A stream is followed while someone reads it, and for two heartbeats longer. Whatever cannot be told to be whole
is closed: its readers come back with their cursors, and are answered from the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from .. import metrics, model
from ..errors import NotFound, Unavailable
from ..model import Cursor, Event
from ..settings import Settings
from ..store.log import Log
from ..store.store import StoreError
from ..wire import frames
from ..wire.codes import Close
from . import healing
from .fanout import SWEEPS, BrokenChain, Feed, Reader, State
from .resume import AtOdds, LogGone, Opening, Openings
from .stream import Channel, report
from .tail import Tail

logger = logging.getLogger(__name__)

STRETCH = 0.001  # seconds of a pass before other work gets its turn
REST = 1.0  # times what a pass took until the next one begins: what comes meanwhile goes out in the same writes
REST_MOST = 0.02  # seconds
RETRY_MS = 1_000  # over which readers who are sent away spread their return
MEND_AGAIN = 0.5  # seconds, at most, until what could not be put right is tried again
ROUNDS = 3  # of healing, at most, where the store loses more meanwhile
IDLE_BEATS = 2  # heartbeats for which a stream without readers is still followed


class Hub:
    """Every followed stream of this worker. `run` owns the tails, the heartbeat and the sweeps."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._channels: dict[str, Channel] = {}
        self._opening = [asyncio.Lock() for _ in range(log.store.partitions)]
        self._tails = [
            Tail(log, partition, deliver=self._deliver, verify=self._verify)
            for partition in range(log.store.partitions)
        ]
        self._drained = asyncio.Event()
        self._errands: set[asyncio.Task[None]] = set()
        self._openings = Openings(log, settings)
        self.readers = 0
        self._slow = 0  # readers whom this worker cut off
        self.draining = False

    async def run(self) -> None:
        """Tail, beat and sweep until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for tail in self._tails:
                tasks.create_task(tail.run())
            tasks.create_task(self._beat())
            tasks.create_task(self._sweep())

    def is_sound(self) -> bool:
        """Whether every followed partition is being read."""
        return all(tail.is_sound() for tail in self._tails)

    # --- readers

    async def enter(self, stream: str) -> Channel:
        """A stream's channel, in which a reader has a place until `leave`.

        Raises NotFound, Unavailable when full, StoreError.
        """
        if self.draining or self.readers >= self._settings.readers:
            raise Unavailable("This worker takes no more readers.", retry_after=2)
        self.readers += 1
        metrics.READERS.inc()
        try:
            channel = await self._open(stream)
        except BaseException:
            self._count_out()
            raise
        channel.users += 1
        return channel

    def leave(self, channel: Channel) -> None:
        """Give a place back."""
        channel.users -= 1
        self._count_out()

    @asynccontextmanager
    async def follow(self, stream: str) -> AsyncIterator[Channel]:
        """A stream's channel, with a place in it. Raises as `enter` does."""
        channel = await self.enter(stream)
        try:
            yield channel
        finally:
            self.leave(channel)

    def _count_out(self) -> None:
        self.readers -= 1
        metrics.READERS.dec()
        if not self.readers:
            self._drained.set()

    async def welcome(self, channel: Channel, reader: Reader, cursor: Cursor | None) -> None:
        """Let a reader join, or send it away where that cannot be."""
        try:
            await self.join(channel, reader, cursor)
        except (Unavailable, StoreError):
            if reader.state is not State.CLOSED:
                self._turn_away(reader, Close.OVERLOADED, "store")

    async def join(self, channel: Channel, reader: Reader, cursor: Cursor | None) -> None:
        """Start a reader: `hello`, all it missed or a snapshot, then what comes. Raises Unavailable, StoreError."""
        for _ in range(2):
            if channel.mending:
                await asyncio.wait([channel.mending])
            try:
                opening = await self._openings.of(channel, reader.format, cursor)
            except AtOdds:
                self._mend_soon(channel, "the log has another event in its place")
                continue
            except LogGone:
                self._drop(channel, "its log is gone")
                raise
            if opening is not None:
                self._enter(channel, reader, opening)
                return
        raise Unavailable("The stream is being put right.")

    def _enter(self, channel: Channel, reader: Reader, opening: Opening) -> None:
        """Let a reader in; unless it, the stream or the worker has gone while it was answered."""
        if reader.state is State.CLOSED:
            return
        if self.draining:
            self._turn_away(reader, Close.RESTART, "drain")
        elif self._channels.get(channel.stream) is not channel:
            self._turn_away(reader, Close.RESTART, "resync")
        else:
            channel.feed.join(reader, *opening)

    async def report(self, stream: str, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """What this worker knows of an entry's event: see `Channel.report`; `idle` where nobody here follows it."""
        channel = self._channels.get(stream)
        return await channel.report(entry_id, n, wait=wait) if channel else report("idle")

    # --- streams

    async def _open(self, stream: str) -> Channel:
        number = model.partition_of(stream, self._log.store.partitions)
        async with self._opening[number]:
            channel = self._channels.get(stream)
            if channel is None:
                snapshot = await self._log.snapshot(stream, limit=0)
                if snapshot is None:
                    raise NotFound(f"There is no stream {stream}.")
                settings = self._settings
                feed = Feed(
                    snapshot.cursor,
                    snapshot.n,
                    ring_events=settings.ring_events,
                    ring_bytes=settings.ring_bytes,
                    closed=self._note_closed,
                )
                channel = Channel(stream, feed, snapshot.page)
                self._channels[stream] = channel
                await self._tails[number].follow(stream, snapshot.cursor.id)
            return channel

    def _close(self, channel: Channel) -> None:
        self._tail_of(channel).unfollow(channel.stream)
        self._channels.pop(channel.stream, None)

    def _tail_of(self, channel: Channel) -> Tail:
        return self._tails[model.partition_of(channel.stream, self._log.store.partitions)]

    def _errand(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it soon. It ends by itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    def _drop(self, channel: Channel, why: str) -> None:
        """Give a stream up: every reader comes back with its cursor, and is told what became of it."""
        if self._channels.get(channel.stream) is channel:
            logger.warning("stream %s is followed anew: %s", channel.stream, why)
            self._close(channel)
            self._errand(_in_turns(channel.feed.drop_all(Close.RESTART, frames.bye("resync", RETRY_MS))))

    # --- when the log is not what it was

    async def _verify(self, read_to: Mapping[str, str]) -> None:
        """Are the logs, read up to these redis ids, still those that the feeds were filled from? Raises StoreError."""
        followed = [channel for stream in read_to if (channel := self._channels.get(stream))]
        heads = [(channel.stream, channel.feed.head, read_to[channel.stream]) for channel in followed]
        for number in await self._log.missing(heads):
            channel = followed[number]
            if channel.feed.head == heads[number][1]:
                self._mend_soon(channel, "the log does not go on from the feed's last event")
            if channel.mending:
                await asyncio.wait([channel.mending])

    def _mend_soon(self, channel: Channel, why: str) -> None:
        if channel.mending is None and self._channels.get(channel.stream) is channel:
            self._tail_of(channel).unfollow(channel.stream)
            channel.mending = self._errand(self._mend(channel, why))

    async def _mend(self, channel: Channel, why: str) -> None:
        """Make the feed what the log is, heal what was lost, and tell every reader. Readers stay."""
        logger.warning("stream %s is put right: %s", channel.stream, why)
        try:
            await self._put_right(channel)
            await self._read_on(channel)
        except LogGone:
            self._drop(channel, "its log is gone")
        except (StoreError, Unavailable) as error:
            # What is held here may be all that is left of it: it stays until it is healed. Whoever finds it out next,
            # the tail with its next event or look, begins again.
            logger.warning("stream %s could not be put right yet: %r", channel.stream, error)
            await asyncio.sleep(random.uniform(0, MEND_AGAIN))
            with suppress(StoreError):  # the tail reads it by its next read
                await self._read_on(channel)
        except Exception as error:  # a bug of ours; left here, nobody would read the stream any more
            logger.exception("stream %s could not be put right", channel.stream)
            self._drop(channel, repr(error))
        finally:
            channel.mending = None

    async def _put_right(self, channel: Channel) -> None:
        """Begin the feed anew with what the log is, as far as that can be healed. Raises StoreError, Unavailable."""
        reason = (await self._log.resume(channel.stream, channel.feed.head, limit=1, limit_bytes=1)).reason
        if reason in (None, "too_far"):  # nothing was lost, something was missed: it is read again
            return
        # Of another life of the log nothing is put back: who began it anew may have meant to.
        events = channel.held(self._settings.ring_events) if reason == "rollback" else []
        for _ in range(ROUNDS):
            healed = await healing.heal(self._log, channel.stream, events, publish=self._settings.heal)
            snapshot, view = await self._openings.snapshot(channel)
            if not await healing.fell_back(self._log, channel.stream, healed):
                break
        healing.count(channel.stream, str(reason), healed)
        channel.page, channel.past = snapshot.page, healed.held
        reset = frames.reset(str(reason), sorted({event.entry_id for event in healed.left} - {""}))
        channel.feed.restart(snapshot.cursor, snapshot.n, [reset, view])
        self._begin_pass(channel)

    async def _read_on(self, channel: Channel) -> None:
        """Have the tail go on from the feed's last event, unless the stream was given up. Raises StoreError."""
        if self._channels.get(channel.stream) is channel:
            await self._tail_of(channel).follow(channel.stream, channel.feed.head.id)

    # --- events

    def _deliver(self, stream: str, events: list[Event]) -> None:
        channel = self._channels.get(stream)
        if channel is None:
            return
        try:
            for event in events:
                channel.take(event)
        except BrokenChain as error:
            self._mend_soon(channel, str(error))
        self._begin_pass(channel)

    def _begin_pass(self, channel: Channel) -> None:
        """Have a pass soon, unless one is under way: a rest after the last one, which is over when little happens."""
        if not channel.passing:
            loop = asyncio.get_running_loop()
            channel.passing = True
            channel.began_at = max(channel.rests_until, loop.time())
            loop.call_at(channel.began_at, self._pass, channel)

    def _pass(self, channel: Channel) -> None:
        """A stretch of a pass."""
        loop = asyncio.get_running_loop()
        try:
            goes_on = channel.feed.run(loop.time, loop.time() + STRETCH)
        except Exception as error:  # a bug of ours; left here, it would stop the stream without a word
            logger.exception("a pass over %s failed", channel.stream)
            self._drop(channel, repr(error))
            return
        if goes_on:
            loop.call_soon(self._pass, channel)
            return
        now = loop.time()
        channel.passing = False
        channel.rests_until = now + min(REST * (now - channel.began_at), REST_MOST)
        channel.pass_ended()
        if channel.feed.waits:
            self._begin_pass(channel)

    # --- time

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            at = model.instant(model.now())
            for channel in tuple(self._channels.values()):
                feed = channel.feed
                if channel.page["state"] == "ended":
                    await _in_turns(feed.dismiss(Close.ENDED))
                stale_since = self._tail_of(channel).stale_since
                stale = model.instant(stale_since) if stale_since else None
                beat = frames.heartbeat(feed.head, feed.n, readers=feed.readers, at=at, stale=stale)
                await _in_turns(feed.beat(beat))
                channel.shown = None
                channel.idle = 0 if channel.users else channel.idle + 1
                if channel.idle > IDLE_BEATS and not channel.mending:
                    self._close(channel)

    async def _sweep(self) -> None:
        """Cut off who takes nothing, and say how many were too slow since the last time."""
        told = 0
        while True:
            await asyncio.sleep(self._settings.patience / SWEEPS)
            for channel in tuple(self._channels.values()):
                await _in_turns(channel.feed.sweep())
            if self._slow > told:
                logger.warning("cut off %d readers that were too slow; %d so far", self._slow - told, self._slow)
            told = self._slow

    def _turn_away(self, reader: Reader, code: Close, why: str) -> None:
        """Close a reader who is in no feed yet."""
        self._note_closed(code)
        reader.close(code, frames.bye(why, RETRY_MS))

    def _note_closed(self, code: Close) -> None:
        metrics.CLOSED.labels(str(code.value)).inc()
        self._slow += code is Close.TOO_SLOW

    async def drain(self) -> None:
        """Send every reader away, to come back elsewhere, and wait until they have left."""
        self.draining = True
        for channel in tuple(self._channels.values()):
            await _in_turns(channel.feed.drop_all(Close.RESTART, frames.bye("drain", RETRY_MS)))
        if self.readers:
            self._drained.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain):
                    await self._drained.wait()


async def _in_turns(steps: Iterator[None]) -> None:
    """Take the steps in stretches, between which other work gets its turn."""
    loop = asyncio.get_running_loop()
    over = loop.time() + STRETCH
    for _ in steps:
        if loop.time() >= over:
            await asyncio.sleep(0)
            over = loop.time() + STRETCH
