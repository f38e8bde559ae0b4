"""How a reader begins: from the ring where that reaches back to its cursor, else from the log, else with a snapshot.

All that it missed or none of it: never a part. What one reader costs is had by all who ask for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import Unavailable
from ..model import Cursor
from ..settings import Settings
from ..store.log import Log, Resumed, Snapshot
from ..wire.frames import Format, Frame, Notice, Told, View
from .reads import Reads
from .stream import Channel


class Opening(NamedTuple):
    """Where a reader goes on in the feed, the event before that, and what it is told until there."""

    position: int
    cursor: Cursor
    told: Sequence[Told]


class AtOdds(Exception):
    """The log has another event where the feed has one of its own."""


class LogGone(Unavailable):
    """There is no log any more."""


class Openings:
    """Answers to the readers who come to the streams of this worker."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._reads = Reads()

    async def of(self, channel: Channel, format: Format, cursor: Cursor | None) -> Opening | None:
        """What a reader is told first; None where what was read is overtaken.

        Raises AtOdds, LogGone, Unavailable, StoreError.
        """
        if cursor and (opening := self._within(channel, cursor)):
            return opening
        resumed, missed = await self._resume(channel, cursor, format)
        if cursor and resumed.reason is None:
            last = resumed.events[-1].cursor if resumed.events else cursor
            position = _position(channel, last, resumed.n + len(resumed.events))
            if position >= channel.feed.start and not channel.feed.withdraws_after(position):
                channel.feed.recall(missed)
                alone = Opening(position, last, [self._hello(channel, resumed.n), *missed])
                return self._within(channel, cursor) or alone
        snapshot, view = await self._current(channel)
        position = _position(channel, snapshot.cursor, snapshot.n)
        if position < channel.feed.start:
            raise Unavailable("The stream moves faster than it can be read.")
        if channel.feed.withdraws_after(position):  # what was read holds a text that this worker knows to be withdrawn
            return None
        hello = self._hello(channel, snapshot.n, resumed.reason or "too_far")
        return Opening(position, snapshot.cursor, [hello, view])

    async def snapshot(self, channel: Channel) -> tuple[Snapshot, View]:
        """The stream as it is, and what readers are told of it; one read for all who ask at the same time.

        Raises LogGone, StoreError.
        """

        async def read() -> tuple[Snapshot, View]:
            snapshot = await self._log.snapshot(channel.stream, limit=self._settings.page_entries)
            if snapshot is None:
                raise LogGone("The stream is gone.")
            return snapshot, channel.view(snapshot)

        return await self._reads.share(channel.stream, read)

    async def _current(self, channel: Channel) -> tuple[Snapshot, View]:
        """The stream as of the feed's head; what was read last, while nothing came since."""
        if channel.shown is None or channel.shown[0].cursor != channel.feed.head:
            channel.shown = await self.snapshot(channel)
        return channel.shown

    async def _resume(self, channel: Channel, cursor: Cursor | None, format: Format) -> tuple[Resumed, Sequence[Frame]]:
        """What came after a cursor, as frames; one read, and one encoding, for all who ask at the same time."""
        if cursor is None:
            return Resumed("no_cursor", 0, []), ()
        if cursor.epoch != channel.feed.head.epoch:
            return Resumed("epoch", 0, []), ()
        most = self._settings.replay_events
        if format is Format.HTML:  # to render more events than a page has entries costs more than to render the page
            most = min(most, self._settings.page_entries)

        async def read() -> tuple[Resumed, Sequence[Frame]]:
            limit_bytes = self._settings.replay_bytes
            resumed = await self._log.resume(channel.stream, cursor, limit=most, limit_bytes=limit_bytes)
            return resumed, [channel.frame(event) for event in resumed.events]

        return await self._reads.share((channel.stream, cursor, most), read)

    def _within(self, channel: Channel, cursor: Cursor) -> Opening | None:
        """The opening of a reader whose cursor the ring reaches back to."""
        position = channel.feed.seek(cursor)
        if position is None:
            return None
        return Opening(position, cursor, [self._hello(channel, channel.feed.n_at(position))])

    def _hello(self, channel: Channel, start: int, reason: str | None = None) -> Notice:
        return channel.hello(start, reason, self._settings.heartbeat)


def _position(channel: Channel, cursor: Cursor, n: int) -> int:
    """The place in the feed after an event of the log. Raises AtOdds where the feed has another one there."""
    feed = channel.feed
    position = feed.position_of(n)
    if (cursor.epoch != feed.head.epoch or feed.start <= position <= feed.end) and feed.seek(cursor) != position:
        raise AtOdds
    return position
