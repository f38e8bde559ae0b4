"""A reader begins from the ring if its cursor is there, else from the log, else with a snapshot.

It receives all that it missed or a snapshot, never a part. Readers who ask for the same at the same time share one read
of the store and one encoding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from ..errors import Unavailable
from ..model import Cursor
from ..store.log import Log, Resumed, Snapshot
from ..stretch import in_stretches
from ..wire.frames import Coding, EventFrame, Format, Frame, Notice, SnapshotFrame
from .stream import LiveStream

T = TypeVar("T")


class Start(NamedTuple):
    """Start is where a reader joins: a position in the ring, the event before it, and the frames that come first."""

    position: int
    cursor: Cursor
    first: Sequence[Frame]


class LogDiffers(Exception):
    """The log has another event at a place where the ring has one of its own."""


class LogGone(Unavailable):
    """The stream's log no longer exists."""


class SharedReads:
    """SharedReads lets tasks that want the same read of the store share one: a storm of readers costs one read."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def read(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the read under way for a key; without one, `read` begins it."""
        task: asyncio.Task[T] | None = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.get_running_loop().create_task(read())
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return await asyncio.shield(task)  # a reader that disconnects must not cancel the read of the others


class Resumption:
    """Resumption finds the start of each reader who joins a stream of this worker.

    `page_entries` are in a snapshot; a reader who missed more than `replay_events` or `replay_bytes` gets a snapshot.
    `heartbeat` is the seconds between two head frames.
    """

    def __init__(self, log: Log, *, page_entries: int, replay_events: int, replay_bytes: int, heartbeat: float) -> None:
        self._log = log
        self._page_entries = page_entries
        self._replay_events = replay_events
        self._replay_bytes = replay_bytes
        self._heartbeat = heartbeat
        self._reads = SharedReads()

    async def start(
        self, stream: LiveStream, format: Format, cursor: Cursor | None, coding: Coding = Coding.MESSAGE
    ) -> Start | None:
        """The start of a reader with this cursor, whose snapshot is made in its variant.

        None where a withdrawal came during the read, which must be repeated. Raises LogDiffers, LogGone, Unavailable,
        StoreError.
        """
        if cursor and (start := self._from_ring(stream, cursor)):
            return start
        resumed, missed = await self._replay(stream, cursor, format)
        # Entries that are shown already would stay in the language and the zone of before.
        is_remade = format is Format.HTML and any(event.remakes_page for event in resumed.events)
        if cursor and resumed.reason is None and not is_remade:
            last = resumed.events[-1].cursor if resumed.events else cursor
            position = _position(stream, last, resumed.n + len(resumed.events))
            if position >= stream.ring.start and not stream.ring.withdraws_after(position):
                stream.ring.recall(missed)
                if start := self._from_ring(stream, cursor):
                    return start
                if position < stream.ring.start:  # other frames had to leave, so that the recalled ones have room
                    return None
                return Start(position, last, [self._hello(stream, resumed.n), *missed])
        return await self._from_snapshot(stream, format, coding, resumed.reason or ("page" if is_remade else "too_far"))

    async def _from_snapshot(self, stream: LiveStream, format: Format, coding: Coding, reason: str) -> Start | None:
        snapshot, frame = stream.latest_snapshot() or await self._latest_snapshot(stream)
        await self._reads.read((frame, format, coding), lambda: in_stretches(frame.steps(format, coding)))
        position = _position(stream, snapshot.cursor, snapshot.n)
        if position < stream.ring.start:
            raise Unavailable("The stream moves faster than it can be read.")
        if stream.ring.withdraws_after(position):  # the snapshot shows a text that was withdrawn after it
            return None
        return Start(position, snapshot.cursor, [self._hello(stream, snapshot.n, reason), frame])

    async def _latest_snapshot(self, stream: LiveStream) -> tuple[Snapshot, SnapshotFrame]:
        snapshot, frame = await self.snapshot(stream)
        stream.keep_snapshot(snapshot, frame)
        return snapshot, frame

    async def snapshot(self, stream: LiveStream) -> tuple[Snapshot, SnapshotFrame]:
        """The stream as the store has it, and as a frame. Raises LogGone, StoreError."""

        async def read() -> tuple[Snapshot, SnapshotFrame]:
            snapshot = await self._log.snapshot(stream.name, limit=self._page_entries)
            if snapshot is None:
                raise LogGone(f"The log of stream {stream.name} no longer exists.")
            return snapshot, stream.snapshot_frame(snapshot)

        return await self._reads.read(stream.name, read)

    async def _replay(
        self, stream: LiveStream, cursor: Cursor | None, format: Format
    ) -> tuple[Resumed, Sequence[EventFrame]]:
        """The log's events after a cursor, as frames."""
        if cursor is None:
            return Resumed("no_cursor", 0, []), ()
        if cursor.epoch != stream.ring.head.epoch:
            return Resumed("epoch", 0, []), ()
        most = self._replay_events
        if format is Format.HTML:  # rendering more events than a page has entries costs more than rendering the page
            most = min(most, self._page_entries)

        async def read() -> tuple[Resumed, Sequence[EventFrame]]:
            resumed = await self._log.resume(stream.name, cursor, limit=most, limit_bytes=self._replay_bytes)
            return resumed, [stream.event_frame(event) for event in resumed.events]

        return await self._reads.read((stream.name, cursor, most), read)

    def _from_ring(self, stream: LiveStream, cursor: Cursor) -> Start | None:
        """The start after a cursor that the ring reaches back to."""
        position = stream.ring.seek(cursor)
        if position is None:
            return None
        return Start(position, cursor, [self._hello(stream, stream.ring.n_at(position))])

    def _hello(self, stream: LiveStream, start: int, reason: str | None = None) -> Notice:
        return stream.hello(start, reason, self._heartbeat)


def _position(stream: LiveStream, cursor: Cursor, n: int) -> int:
    """The position in the ring after the log's event `n`. Raises LogDiffers where the ring has another event there."""
    ring = stream.ring
    position = ring.position_of(n)
    if (cursor.epoch != ring.head.epoch or ring.start <= position <= ring.end) and ring.seek(cursor) != position:
        raise LogDiffers
    return position
