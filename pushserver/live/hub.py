"""The hub keeps the streams that this worker's readers follow, and who is here.

A stream is followed while it has readers, and for two heartbeats longer. A stream that cannot be shown to be whole is
closed: its readers reconnect with their cursors, and are answered from the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from .. import metrics, model
from ..errors import NotFound, Unavailable
from ..model import Cursor, Event
from ..settings import Settings
from ..store.log import Log, Snapshot
from ..store.store import StoreError
from ..wire import frames
from ..wire.codes import Close
from ..wire.frames import Batch
from ..wire.memory import Account
from .census import Census
from .drain import BETWEEN, Departures, Drain, Phase
from .fanout import SWEEPS, Fanout
from .healing import Healer
from .lookups import Lookups
from .memory import Memory
from .reader import Reader, ReaderState
from .renewal import Renewals
from .resume import LogDiffers, LogGone, Resumption, Start
from .ring import BrokenChain, Ring
from .stream import LiveStream, Passes, report
from .tail import Tails

logger = logging.getLogger(__name__)

RELOAD_MS = 60_000  # milliseconds over which pages of another build are loaded anew
RETRY_MS = 1_000  # milliseconds over which readers who are sent away spread their return
RENEWED_EVERY = 1.0  # seconds between two looks for readers at the end of their lifetime
JITTER = 0.2  # of a lifetime: readers stay for 0.8 to 1.2 of it


class HubOptions(NamedTuple):
    """HubOptions are the settings of the same names, as far as the hub and its parts need them."""

    readers: int
    ring_events: int
    ring_bytes: int
    rings_bytes: int
    page_entries: int
    replay_events: int
    replay_bytes: int
    heartbeat: float  # seconds
    patience: float  # seconds
    lifetime: float  # seconds; 0 is without end
    heal: bool
    show_readers: bool

    @classmethod
    def of(cls, settings: Settings) -> HubOptions:
        return cls(*(getattr(settings, name) for name in cls._fields))


class Hub:
    """Hub is this worker's followed streams and their readers. `run` owns the tails, the heartbeat and the sweeps."""

    def __init__(self, log: Log, options: HubOptions) -> None:
        self._log = log
        self._options = options
        self._streams: dict[str, LiveStream] = {}
        self._memory = Memory(options.rings_bytes)
        self._lookups = Lookups(exists=self._exists, newest=self._newest)
        self._opening = [asyncio.Lock() for _ in range(log.store.partitions)]
        self._tails = Tails(log, deliver=self._deliver, verify=self._verify)
        self._resumption = Resumption(
            log,
            page_entries=options.page_entries,
            replay_events=options.replay_events,
            replay_bytes=options.replay_bytes,
            heartbeat=options.heartbeat,
        )
        self._census = Census(log.store) if options.show_readers else None
        self._healer = Healer(
            log,
            self._tails,
            self._resumption,
            publish=options.heal,
            memory_events=options.ring_events,
            give_up=self._give_up,
        )
        self._renewals = Renewals(self._resumption, memory_events=options.ring_events)
        self._admits = True  # new readers
        self._departures: Departures | None = None  # while readers are being sent away
        self.leaving = asyncio.Event()  # set when they begin to be: answers that wait for something end, too
        self._farewells: set[asyncio.Task[None]] = set()  # the loop alone would let the collector take them
        self._too_slow = 0  # readers that this worker closed because they took nothing
        self.passes = Passes()
        self.readers = 0
        self.draining = False  # the worker is not ready: others are to be asked

    async def run(self) -> None:
        """Tail, beat and sweep until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tails.run())
            tasks.create_task(self._beat())
            tasks.create_task(self._sweep())
            if self._options.lifetime:
                tasks.create_task(self._renew())

    def is_sound(self) -> bool:
        """Whether every followed partition is being read."""
        return self._tails.is_sound()

    # --- readers

    async def look_up(self, name: str) -> None:
        """Return where a reader could enter a stream now; the store is asked only for a name that is not known.

        Raises NotFound, Unavailable when the worker is full or stops, StoreError.
        """
        self._check_room()
        if name not in self._streams:
            await self._lookups.look_up(name)

    async def enter(self, name: str) -> LiveStream:
        """A stream in which a reader now has a place, until `leave`.

        Raises NotFound, Unavailable when the worker is full or stops, StoreError.
        """
        self._check_room()
        self.readers += 1
        metrics.READERS.inc()
        try:
            stream = await self._open(name)
        except BaseException:
            self._count_out()
            raise
        stream.enter()
        return stream

    def leave(self, stream: LiveStream) -> None:
        """Give a reader's place back."""
        stream.leave()
        self._count_out()

    @asynccontextmanager
    async def follow(self, name: str) -> AsyncIterator[LiveStream]:
        """A stream with a place in it. Raises as `enter` does."""
        stream = await self.enter(name)
        try:
            yield stream
        finally:
            self.leave(stream)

    def _check_room(self) -> None:
        if not self._admits or self.readers >= self._options.readers:
            raise Unavailable("This worker takes no more readers.", retry_after=2)

    def _count_out(self) -> None:
        self.readers -= 1
        metrics.READERS.dec()

    async def welcome(
        self, stream: LiveStream, reader: Reader, cursor: Cursor | None, *, outdated: bool = False
    ) -> None:
        """Let a reader join, or close it where the store or the stream does not allow that now.

        A reader that is `outdated` is a page that another build made: it learns so, and is to be loaded anew.
        """
        if outdated:
            self._send_to_reload(stream, reader)
            return
        try:
            await self.join(stream, reader, cursor)
        except (Unavailable, StoreError):
            if reader.state is not ReaderState.CLOSED:
                self._turn_away(reader, Close.OVERLOADED, "store")

    async def join(self, stream: LiveStream, reader: Reader, cursor: Cursor | None) -> None:
        """Start a reader: `hello`, all it missed or a snapshot, then live events. Raises Unavailable, StoreError."""
        for _ in range(2):
            await self._healer.wait(stream)
            try:
                start = await self._resumption.start(stream, reader.format, cursor, reader.coding)
            except LogDiffers:
                self._healer.recover(stream, "the log has another event at its place")
                continue
            except LogGone:
                self._give_up(stream, "its log no longer exists")
                raise
            if start is not None:
                self._admit(stream, reader, start)
                return
        raise Unavailable("The stream is recovering from data loss in the store; retry.")

    def _admit(self, stream: LiveStream, reader: Reader, start: Start) -> None:
        """Add a reader to its stream, unless the reader, the stream or the worker has gone while the store was read."""
        if reader.state is ReaderState.CLOSED:
            return
        if not self._admits:
            self._turn_away(reader, Close.RESTART, "drain")
        elif not stream.is_open:
            self._turn_away(reader, Close.RESTART, "resync")
        else:
            reader.renew_at = self._renewal()
            stream.fanout.join(reader, *start)
            if self._departures is not None:
                self._departures.add(stream.fanout, reader)

    def _renewal(self) -> float:
        """When a reader that joins now is to come anew: at random, else those who came together would come so again."""
        lifetime = self._options.lifetime
        return asyncio.get_running_loop().time() + random.uniform(1 - JITTER, 1 + JITTER) * lifetime

    def _send_to_reload(self, stream: LiveStream, reader: Reader) -> None:
        """Say hello to a reader, and when its page is to be loaded anew: at random, else all pages would be at once."""
        if reader.state is not ReaderState.CLOSED:
            hello = stream.hello(stream.ring.n, None, self._options.heartbeat)
            reader.write(Batch([hello], reader.format, reader.coding))
            self._count_dropped(Close.RESTART)
            reader.close(Close.RESTART, frames.bye("build", RETRY_MS, reload_ms=random.randrange(RELOAD_MS)))

    def _turn_away(self, reader: Reader, code: Close, why: str) -> None:
        """Close a reader that has not joined yet."""
        self._count_dropped(code)
        reader.close(code, frames.bye(why, RETRY_MS))

    def _count_dropped(self, code: Close) -> None:
        metrics.CLOSED.labels(str(code.value)).inc()
        self._too_slow += code is Close.TOO_SLOW

    async def report(self, name: str, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """This worker's report on an entry's event, as `LiveStream.report`; `idle` if it does not follow the stream."""
        stream = self._streams.get(name)
        return await stream.report(entry_id, n, wait=wait) if stream else report("idle")

    # --- streams

    async def _open(self, name: str) -> LiveStream:
        """The followed stream of a name. Raises NotFound, StoreError."""
        if stream := self._streams.get(name):  # without the lock: others may wait for the store behind it
            return stream
        async with self._opening[model.partition_of(name, len(self._opening))]:
            stream = self._streams.get(name)
            if stream is None:
                snapshot = await self._log.snapshot(name, limit=0)
                if snapshot is None:
                    self._lookups.forget(name)
                    raise NotFound(f"There is no stream {name}.")
                stream = self._streams[name] = self._live(name, snapshot)
                await self._tails.follow(name, snapshot.cursor.id)
            return stream

    async def _exists(self, name: str) -> bool:
        return await self._log.snapshot(name, limit=0) is not None

    async def _newest(self) -> list[str]:
        return [name for name, _ in await self._log.streams()]

    def _live(self, name: str, snapshot: Snapshot) -> LiveStream:
        ring = Ring(
            snapshot.cursor,
            snapshot.n,
            max_events=self._options.ring_events,
            max_bytes=self._options.ring_bytes,
            account=Account(self._memory),
        )
        fanout = Fanout(ring, on_drop=self._count_dropped)
        return LiveStream(name, fanout, snapshot.page, give_up=self._give_up, memory=self._memory, passes=self.passes)

    def _close(self, stream: LiveStream) -> None:
        """Stop following a stream."""
        self._tails.unfollow(stream.name)
        self._streams.pop(stream.name, None)
        stream.close()

    def _give_up(self, stream: LiveStream, why: str) -> None:
        """Close a stream and its readers: they reconnect with their cursors, and are answered from the log."""
        if stream.is_open:
            logger.warning("stream %s: its readers are sent to reconnect: %s", stream.name, why)
            self._close(stream)
            farewell = stream.drop_all(Close.RESTART, frames.bye("resync", RETRY_MS))
            task = asyncio.get_running_loop().create_task(farewell)
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    # --- those who keep what they made of a stream

    async def watch(self, name: str, on_loss: Callable[[], None]) -> None:
        """Follow a stream, and call `on_loss` as `LiveStream.watch` does. Raises NotFound, StoreError."""
        (await self._open(name)).watch(on_loss)

    def unwatch(self, name: str, on_loss: Callable[[], None]) -> None:
        """End it; a second call changes nothing."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.unwatch(on_loss)

    def current_until(self, name: str, cursor: Cursor) -> int | None:
        """The instant up to which an event is known to be the newest of a stream, in milliseconds since 1970.

        The store was last heard at it. None where a newer event has come, or nobody follows the stream.
        """
        stream = self._streams.get(name)
        if stream is None or stream.ring.head != cursor:
            return None
        return self._tails.heard_at(name)

    # --- the tails

    def _deliver(self, name: str, events: list[Event]) -> None:
        stream = self._streams.get(name)
        if stream is None:
            return
        try:
            for event in events:
                stream.append(event)
            if any(event.remakes_page for event in events):
                self._renewals.renew(stream)
        except BrokenChain as error:
            self._healer.recover(stream, str(error))
        stream.begin_pass()

    async def _verify(self, read_to: Mapping[str, str]) -> None:
        await self._healer.verify([(self._streams[name], id) for name, id in read_to.items() if name in self._streams])

    # --- the clock

    async def _beat(self) -> None:
        """Send heartbeats, and close the streams that nobody reads."""
        while True:
            await asyncio.sleep(self._options.heartbeat)
            if self._census is not None:
                await self._census.take({name: stream.fanout.readers for name, stream in self._streams.items()})
            at = model.instant(model.now())
            for stream in tuple(self._streams.values()):
                stale_since = self._tails.stale_since(stream.name)
                here = stream.fanout.readers
                everywhere = self._census.readers(stream.name, here) if self._census else None
                await stream.beat(at, model.instant(stale_since) if stale_since else None, everywhere)
                if stream.is_idle and stream.is_open and not self._healer.is_recovering(stream):
                    self._close(stream)

    async def _sweep(self) -> None:
        """Close the readers who take nothing, and log how many there were since the last sweep."""
        logged = 0
        while True:
            await asyncio.sleep(self._options.patience / SWEEPS)
            for stream in tuple(self._streams.values()):
                await stream.sweep()
            if closed := self._too_slow - logged:
                logger.warning("cut off %d readers that were too slow; %d so far", closed, self._too_slow)
            logged = self._too_slow

    async def _renew(self) -> None:
        """Send readers away who have been here for their lifetime, so that a balancer may place them anew."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RENEWED_EVERY)
            for stream in tuple(self._streams.values()):
                await stream.renew(loop.time(), lambda: frames.bye("renew", own_retry_ms()))

    async def drain(self, drain: Drain, *, admit: bool = False) -> None:
        """Send every reader away as a drain says that has begun; return when it goes on to its next phase.

        `admit` admits readers who come meanwhile: requests that have reached this worker, while new ones go to another.
        """
        loop = asyncio.get_running_loop()
        while drain.step(loop.time(), readers=self.readers, requests=0) is Phase.NOTICE:
            await asyncio.sleep(BETWEEN)
        self._admits = admit
        self._departures = departures = self._all_readers()
        self.leaving.set()
        while drain.step(loop.time(), readers=self.readers, requests=1) is Phase.LEAVING:
            for fanout, reader in departures.next(drain.due(loop.time(), len(departures))):
                if reader.place >= 0:
                    fanout.drop(reader, Close.RESTART, frames.bye("drain", own_retry_ms()))
            await asyncio.sleep(BETWEEN)
        self._admits = False

    def _all_readers(self) -> Departures:
        departures = Departures()
        for stream in self._streams.values():
            for reader in stream.fanout.all_readers():
                departures.add(stream.fanout, reader)
        return departures


def own_retry_ms() -> int:
    """The time of one reader to come back within, in milliseconds."""
    return random.randint(RETRY_MS // 2, RETRY_MS)
