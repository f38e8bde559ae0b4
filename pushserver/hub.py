"""The streams that this worker's readers follow: from the tails to the feeds, and the passes over them.

A stream is followed while someone reads it, and for two heartbeats longer. Whatever cannot be told to be whole
is closed: its readers come back with their cursors, and are answered from the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from . import frames, model, render
from .errors import Close, NotFound, Unavailable
from .feed import BrokenChain, Feed, Reader
from .frames import Format, Frame, Notice
from .log import Log, Resumed, Snapshot
from .model import Cursor, Event
from .settings import Settings
from .tail import Tail

logger = logging.getLogger(__name__)

STRETCH = 0.0003  # seconds of a pass before other work gets its turn
RETRY_MS = 1_000  # over which readers who are sent away spread their return
IDLE_BEATS = 2  # heartbeats for which a stream without readers is still followed


class Channel:
    """A followed stream: its feed, its page as of the feed's head, and who uses it."""

    __slots__ = ("_passed", "feed", "idle", "page", "passing", "stream", "users")

    def __init__(self, stream: str, feed: Feed, page: dict[str, Any]) -> None:
        self.stream = stream
        self.feed = feed
        self.page = page
        self.users = 0
        self.idle = 0
        self.passing = False
        self._passed = asyncio.Event()

    def pass_ended(self) -> None:
        """Tell those who wait for a pass."""
        self._passed.set()
        self._passed = asyncio.Event()

    async def until_given(self, n: int) -> None:
        """Wait until every reader that could take it has been given event `n`."""
        while self.feed.given < n:
            await self._passed.wait()


class Hub:
    """Every followed stream of this worker. `run` owns the tails and the heartbeat."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._channels: dict[str, Channel] = {}
        self._opening = [asyncio.Lock() for _ in range(log.store.partitions)]
        self._tails = [Tail(log, deliver=self._deliver, verify=self._verify) for _ in range(log.store.partitions)]
        self._drained = asyncio.Event()
        self._errands: set[asyncio.Task[None]] = set()
        self.readers = 0
        self.draining = False

    async def run(self) -> None:
        """Tail and beat until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for tail in self._tails:
                tasks.create_task(tail.run())
            tasks.create_task(self._beat())

    def is_sound(self) -> bool:
        """Whether every followed partition is being read."""
        return all(tail.is_sound() for tail in self._tails)

    # --- readers

    @asynccontextmanager
    async def follow(self, stream: str) -> AsyncIterator[Channel]:
        """A stream's channel, for as long as a reader stays. Raises NotFound, Unavailable when full, StoreError."""
        if self.draining or self.readers >= self._settings.readers:
            raise Unavailable("This worker takes no more readers.", retry_after=2)
        self.readers += 1
        try:
            channel = await self._open(stream)
            channel.users += 1
            try:
                yield channel
            finally:
                channel.users -= 1
        finally:
            self.readers -= 1
            if not self.readers:
                self._drained.set()

    async def join(self, channel: Channel, reader: Reader, cursor: Cursor | None) -> None:
        """Start a reader: `hello`, all it missed or a snapshot, then what comes. Raises Unavailable, StoreError."""
        feed = channel.feed
        position = feed.seek(cursor) if cursor else None
        if position is not None:
            self._enter(channel, reader, position, [self._hello(channel, feed.n_at(position))])
            return
        resumed = await self._resume(channel, cursor, reader.format)
        position = feed.position_of(resumed.n + len(resumed.events))
        if resumed.reason is None and position >= feed.start:
            missed = [self._frame(channel, event) for event in resumed.events]
            self._enter(channel, reader, position, [self._hello(channel, resumed.n), *missed])
            return
        snapshot = await self._log.snapshot(channel.stream, limit=self._settings.page_entries)
        if snapshot is None or snapshot.cursor.epoch != feed.head.epoch:
            self._drop(channel, "its log has begun again")
            raise Unavailable("The stream has begun again.")
        position = feed.position_of(snapshot.n)
        if position < feed.start:
            raise Unavailable("The stream moves faster than it can be read.")
        hello = self._hello(channel, snapshot.n, resumed.reason or "too_far")
        self._enter(channel, reader, position, [hello, self._snapshot(snapshot, reader.format)])

    def _enter(self, channel: Channel, reader: Reader, position: int, opening: Sequence[Frame | Notice]) -> None:
        """Let a reader in; unless the stream was given up, or the worker began to leave, while it was answered."""
        if self.draining:
            reader.close(Close.RESTART, frames.bye("drain", RETRY_MS))
        elif self._channels.get(channel.stream) is not channel:
            reader.close(Close.RESTART, frames.bye("resync", RETRY_MS))
        else:
            channel.feed.join(reader, position, opening)

    async def _resume(self, channel: Channel, cursor: Cursor | None, format: Format) -> Resumed:
        if cursor is None:
            return Resumed("no_cursor", 0, [])
        if cursor.epoch != channel.feed.head.epoch:
            return Resumed("epoch", 0, [])
        most = self._settings.replay_events
        if format is Format.HTML:  # to render more events than a page has entries costs more than to render the page
            most = min(most, self._settings.page_entries)
        return await self._log.resume(channel.stream, cursor, limit=most, limit_bytes=self._settings.replay_bytes)

    def _hello(self, channel: Channel, start: int, reason: str | None = None) -> Notice:
        feed = channel.feed
        return frames.hello(
            channel.stream, feed.head, feed.n, start=start, reason=reason, heartbeat=self._settings.heartbeat
        )

    def _snapshot(self, snapshot: Snapshot, format: Format) -> Notice:
        if format is Format.JSON:
            return frames.snapshot(snapshot.cursor, snapshot.n, page=snapshot.page, entries=snapshot.entries)
        older = render.older_link(snapshot.entries) if snapshot.older else None
        parts = render.parts(snapshot.page, snapshot.entries, older=older)
        return frames.snapshot(snapshot.cursor, snapshot.n, page=render.page_head(snapshot.page), parts=parts)

    # --- receipts

    async def report(self, stream: str, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """What this worker knows of an entry's event `n`, or of its newest: {state, readers, behind, late}.

        `state` is `idle` where nobody here follows the stream, `waiting` while the event has not come, `reached` when a
        pass has given it out, `forgotten` when it is not in the ring any more. `late` counts readers by milliseconds.
        """
        channel = self._channels.get(stream)
        if channel is None:
            return _report("idle")
        feed = channel.feed
        if n is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await channel.until_given(n)
            if feed.given < n:
                return _report("waiting", feed.readers, behind=feed.readers)
        frame = next((frame for frame in feed.about(entry_id) if n is None or frame.event.n == n), None)
        if frame is None:
            return _report("forgotten", feed.readers)
        return _report("reached", feed.readers, behind=feed.behind(frame), late=sorted(frame.sent.items()))

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
                    snapshot.cursor, snapshot.n, ring_events=settings.ring_events, ring_bytes=settings.ring_bytes
                )
                channel = Channel(stream, feed, snapshot.page)
                self._channels[stream] = channel
                await self._tails[number].follow(stream, snapshot.cursor.id)
            return channel

    def _close(self, channel: Channel) -> None:
        self._tails[model.partition_of(channel.stream, self._log.store.partitions)].unfollow(channel.stream)
        self._channels.pop(channel.stream, None)

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it soon. It ends by itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _drop(self, channel: Channel, why: str) -> None:
        """Give a stream up: every reader comes back with its cursor, and is told what became of it."""
        if self._channels.get(channel.stream) is channel:
            logger.warning("stream %s is followed anew: %s", channel.stream, why)
            self._close(channel)
            self._errand(_in_turns(channel.feed.drop_all(Close.RESTART, frames.bye("resync", RETRY_MS))))

    async def _verify(self, stream: str) -> None:
        """Is the log still the one that the feed was filled from? Raises StoreError."""
        channel = self._channels.get(stream)
        if channel is not None:
            resumed = await self._log.resume(stream, channel.feed.head, limit=1, limit_bytes=1)
            if resumed.reason not in (None, "too_far"):
                self._drop(channel, f"the store lost what it had acknowledged ({resumed.reason})")

    # --- events

    def _deliver(self, stream: str, events: list[Event]) -> None:
        channel = self._channels.get(stream)
        if channel is None:
            return
        try:
            for event in events:
                channel.page = _page_after(channel.page, event)
                if event.type == "entry.withdraw":
                    channel.feed.withdraw(event.entry_id, partial(self._withdraw, channel, event.data))
                channel.feed.append(self._frame(channel, event))
        except BrokenChain as error:
            self._drop(channel, str(error))
            return
        if not channel.passing:
            channel.passing = True
            asyncio.get_running_loop().call_soon(self._pass, channel)

    def _frame(self, channel: Channel, event: Event) -> Frame:
        return Frame(event, partial(render.frame, event, channel.page))

    def _withdraw(self, channel: Channel, data: bytes, frame: Frame) -> None:
        event = frame.event.withdrawn(data)
        frame.become(event, partial(render.frame, event, channel.page))

    def _pass(self, channel: Channel) -> None:
        """A stretch of a pass. What arrives before the next one goes out joined with what is left."""
        loop = asyncio.get_running_loop()
        over = loop.time() + STRETCH
        try:
            channel.passing = channel.feed.run(lambda: loop.time() >= over)
        except Exception as error:  # a bug of ours; left here, it would stop the stream without a word
            logger.exception("a pass over %s failed", channel.stream)
            self._drop(channel, repr(error))
            return
        if channel.passing:
            loop.call_soon(self._pass, channel)
        else:
            channel.pass_ended()

    # --- time

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            at = model.instant(model.now())
            for channel in tuple(self._channels.values()):
                feed = channel.feed
                if channel.page["state"] == "ended":
                    await _in_turns(feed.drop_all(Close.ENDED))
                await _in_turns(feed.beat(frames.heartbeat(feed.head, feed.n, readers=feed.readers, at=at)))
                channel.idle = 0 if channel.users else channel.idle + 1
                if channel.idle > IDLE_BEATS:
                    self._close(channel)

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


def _report(state: str, readers: int = 0, *, behind: int = 0, late: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    return {"state": state, "readers": readers, "behind": behind, "late": late}


async def _in_turns(steps: Iterator[None]) -> None:
    """Take the steps in stretches, between which other work gets its turn."""
    loop = asyncio.get_running_loop()
    over = loop.time() + STRETCH
    for _ in steps:
        if loop.time() >= over:
            await asyncio.sleep(0)
            over = loop.time() + STRETCH


def _page_after(page: dict[str, Any], event: Event) -> dict[str, Any]:
    """The page as of an event, given the page before it."""
    if event.type in ("page.put", "stream.end"):
        return {**model.loads(event.data)["page"], "updated_at": event.shown_at}
    return {**page, "updated_at": max(page["updated_at"], event.shown_at)}
