"""The hub keeps the streams that this worker's readers follow, and who is here.

A stream is followed while it has readers, and for two heartbeats longer. A stream that cannot be shown to be whole is
closed: its readers reconnect with their cursors, and are answered from the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from .. import metrics, model
from ..errors import Deleted, NotFound, Unavailable
from ..model import Cursor, Event
from ..store.listing import Listing
from ..store.log import Log, Snapshot
from ..wire import frames
from ..wire.accounts import Account
from ..wire.codes import Close
from ..wire.frames import Notice
from .arrivals import RETRY_MS, Arrivals
from .census import Census
from .drain import BETWEEN, Departures, Drain, Phase
from .fanout import Fanout
from .healing import LOG_GONE, Healer
from .heartbeat import Heartbeat
from .lookups import Lookups
from .memory_bound import Memory
from .options import HubOptions
from .passes import Passes
from .renewal import Renewals
from .resume import Resumption
from .ring import BrokenChain, Ring
from .slow_readers import SWEEPS, slowest
from .stream import LiveStream, OnLoss, report
from .tail import Tails

logger = logging.getLogger(__name__)

RENEWED_EVERY = 1.0  # seconds between two looks for readers at the end of their lifetime
Kind = tuple[str, str]  # of a reader: one of `metrics.KINDS`
PUBLIC_SOCKET: Kind = ("websocket", "public")


class Hub:
    """Hub is this worker's followed streams and their readers. `run` runs the tails, the heartbeat and the sweeps."""

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
        self._healer = Healer(
            log,
            self._tails,
            self._resumption,
            publish=options.heal,
            memory_events=options.ring_events,
            give_up=self._give_up,
            delete=self._delete,
        )
        self._heartbeat = Heartbeat(
            options.heartbeat,
            self._streams,
            self._tails,
            Census(log.store) if options.show_readers else None,
            close_idle=self._close_idle,
        )
        self._renewals = Renewals(self._resumption, memory_events=options.ring_events)
        self.arrivals = Arrivals(
            self._resumption,
            self._healer,
            options,
            on_drop=self._count_dropped,
            give_up=self._give_up,
            delete=self._delete,
        )
        self.leaving = asyncio.Event()  # set when they begin to be: answers that wait for something end, too
        self._farewells: set[asyncio.Task[None]] = set()  # the loop alone would let the collector take them
        self._too_slow = 0  # readers that this worker closed because they took nothing
        self.passes = Passes()
        self.readers = 0
        self.draining = False  # the worker is not ready: others are to be asked

    async def run(self) -> None:
        """Tail, beat and sweep until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tails.run())
                tasks.create_task(self._heartbeat.run())
                tasks.create_task(self._sweep())
                if self._options.lifetime:
                    tasks.create_task(self._renew())
        finally:
            self._lookups.close()

    def is_sound(self) -> bool:
        """Whether every followed partition is being read."""
        return self._tails.is_sound()

    # --- readers

    async def look_up(self, name: str) -> None:
        """Check that a reader could enter a stream now; the store is asked only for a name that is not known.

        Raises NotFound, Unavailable when the worker is full or stops, StoreError.
        """
        self._check_room()
        if name not in self._streams:
            await self._lookups.look_up(name)

    async def enter(self, name: str, kind: Kind = PUBLIC_SOCKET) -> LiveStream:
        """A stream in which a reader of a kind now has a place, until `leave`.

        Raises NotFound, Unavailable when the worker is full or stops, StoreError.
        """
        self._check_room()
        self.readers += 1
        try:
            stream = await self._open(name)
        except BaseException:
            self.readers -= 1
            raise
        stream.enter()
        metrics.READERS.add(*kind)
        return stream

    def leave(self, stream: LiveStream, kind: Kind = PUBLIC_SOCKET) -> None:
        """Give a reader's place back."""
        stream.leave()
        self.readers -= 1
        metrics.READERS.add(*kind, by=-1)

    @asynccontextmanager
    async def follow(self, name: str, kind: Kind = PUBLIC_SOCKET) -> AsyncIterator[LiveStream]:
        """A stream with a place in it. Raises as `enter` does."""
        stream = await self.enter(name, kind)
        try:
            yield stream
        finally:
            self.leave(stream, kind)

    @property
    def has_room(self) -> bool:
        """Whether the worker takes one more reader."""
        return self.readers < self._options.readers

    def _check_room(self) -> None:
        if not self.arrivals.are_open or not self.has_room:
            metrics.LIMITED.inc("readers")
            raise Unavailable("This worker takes no more readers.", retry_after=2)

    def _count_dropped(self, code: Close, farewell: Notice | None) -> None:
        reason = farewell.reason if farewell is not None and code is Close.RESTART else ""
        metrics.CLOSED.inc(reason or code.name.lower())
        self._too_slow += code is Close.TOO_SLOW

    async def report(self, name: str, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """This worker's report on an entry's event, as `LiveStream.report`; `idle` if it does not follow the stream."""
        stream = self._streams.get(name)
        return await stream.report(entry_id, n, wait=wait) if stream else report("idle")

    # --- what an operator sees

    def measure(self) -> None:
        """Set the metrics of what this worker follows and reads now."""
        metrics.FULL.set(self._options.readers)
        metrics.SLOW.set(sum(stream.fanout.paused for stream in self._streams.values()))
        metrics.STREAMS.set(len(self._streams))
        metrics.RINGS.set(self._memory.bytes)
        metrics.RINGS_LIMIT.set(self._options.rings_bytes)
        self._tails.measure()

    def slowest(self) -> list[dict[str, Any]]:
        """The slowest readers, as `live.slow_readers` has them."""
        return slowest(self._streams.values(), self._options.patience / SWEEPS)

    # --- streams

    async def _open(self, name: str) -> LiveStream:
        """The followed stream of a name. Raises NotFound, Deleted, StoreError."""
        if stream := self._streams.get(name):  # without the lock: others may wait for the store behind it
            return stream
        async with self._opening[model.partition_of(name, len(self._opening))]:
            stream = self._streams.get(name)
            if stream is None:
                snapshot = await self._first_look(name)
                stream = self._streams[name] = self._live(name, snapshot)
                await self._tails.follow(name, snapshot.cursor.id)
            return stream

    async def _first_look(self, name: str) -> Snapshot:
        """A stream without its entries, before it is followed. Raises as `_open` does."""
        try:
            snapshot = await self._log.snapshot(name, limit=0)
            if snapshot is None:
                raise NotFound(f"There is no stream {name}.")
        except (NotFound, Deleted):
            self._lookups.forget(name)
            raise
        return snapshot

    async def _exists(self, name: str) -> bool:
        return await self._log.snapshot(name, limit=0) is not None

    async def _newest(self) -> list[str]:
        return [name for name, _ in await Listing(self._log).streams()]

    def _live(self, name: str, snapshot: Snapshot) -> LiveStream:
        ring = Ring(
            snapshot.cursor,
            snapshot.n,
            max_events=self._options.ring_events,
            max_bytes=self._options.ring_bytes,
            account=Account(self._memory),
        )
        partition = model.partition_of(name, self._log.store.partitions)
        fanout = Fanout(ring, on_drop=self._count_dropped, on_written=partial(self._count_written, partition))
        return LiveStream(name, fanout, snapshot.page, give_up=self._give_up, memory=self._memory, passes=self.passes)

    def _count_written(self, partition: int, event: Event) -> None:
        """Count how late an event was written, by the store's clock. That of this machine may be behind it."""
        late = model.now() + self._log.store.ahead_ms[partition] - event.stored_at
        metrics.LAG.observe(max(0.0, late / 1_000))

    def _close(self, stream: LiveStream) -> None:
        """Stop following a stream."""
        self._tails.unfollow(stream.name)
        self._streams.pop(stream.name, None)
        stream.close()

    def _close_idle(self, stream: LiveStream) -> None:
        if stream.is_open and not self._healer.is_recovering(stream):
            self._close(stream)

    def _give_up(self, stream: LiveStream, why: str) -> None:
        """Close a stream and its readers: they reconnect with their cursors, and are answered from the log."""
        if stream.is_open:
            logger.warning("stream %s: its readers are sent to reconnect: %s", stream.name, why)
            if why == LOG_GONE:
                metrics.RESETS.inc("empty")
            self._dismiss(stream, Close.RESTART, "resync")

    async def delete(self, name: str, epoch: str) -> int:
        """Close the readers of a stream that was deleted, and forget it; how many readers there were.

        A stream of another epoch has begun after that, and stays.
        """
        self._lookups.forget(name)
        stream = self._streams.get(name)
        if stream is None or stream.ring.head.epoch != epoch:
            return 0
        readers = stream.fanout.readers
        await asyncio.shield(self._delete(stream))
        return readers

    def _delete(self, stream: LiveStream) -> asyncio.Future[None]:
        logger.info("stream %s: deleted; its readers are closed", stream.name)
        return self._dismiss(stream, Close.ENDED, "deleted")

    def _dismiss(self, stream: LiveStream, code: Close, why: str) -> asyncio.Future[None]:
        """Stop following a stream, and close its readers; they are closed when the future is done."""
        if stream.is_open:
            self._close(stream)
        farewell = stream.drop_all(code, frames.bye(why, RETRY_MS))
        task = asyncio.get_running_loop().create_task(farewell)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
        return task

    # --- those who keep what they made of a stream

    async def watch(self, name: str, on_loss: OnLoss) -> None:
        """Follow a stream, and call `on_loss` as `LiveStream.watch` does. Raises NotFound, StoreError."""
        (await self._open(name)).watch(on_loss)

    def unwatch(self, name: str, on_loss: OnLoss) -> None:
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
        """Send every reader away as a drain says that has begun; return when they have left.

        `admit` admits readers who come meanwhile: requests that have reached this worker, while new ones go to another.
        """
        loop = asyncio.get_running_loop()
        while drain.step(loop.time(), requests=0) is Phase.NOTICE:
            await asyncio.sleep(BETWEEN)
        self.arrivals.are_open = admit
        self.arrivals.departures = departures = Departures.of([stream.fanout for stream in self._streams.values()])
        self.leaving.set()
        while not drain.has_left(loop.time(), self.readers):
            for fanout, reader in departures.next(drain.due(loop.time(), len(departures))):
                if reader.place >= 0:
                    fanout.drop(reader, Close.RESTART, frames.bye("drain", own_retry_ms()))
            await asyncio.sleep(BETWEEN)
        self.arrivals.are_open = False


def own_retry_ms() -> int:
    """The time of one reader to come back within, in milliseconds."""
    return random.randint(RETRY_MS // 2, RETRY_MS)
