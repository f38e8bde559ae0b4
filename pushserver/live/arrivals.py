"""Arrivals are the readers who come to a worker's streams: each is started where it left off, or is closed.

A reader that starts gets a hello, what it missed or a snapshot, and then live events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ..errors import Deleted, Unavailable
from ..model import Cursor
from ..store.store import StoreError
from ..wire import frames
from ..wire.codes import Close
from ..wire.frames import Batch, Notice
from .drain import Departures
from .healing import LOG_GONE, Healer
from .options import HubOptions
from .reader import Reader, ReaderState
from .resume import LogDiffers, LogGone, Resumption, Start
from .stream import LiveStream

RELOAD_MS = 60_000  # milliseconds over which pages of another build are loaded anew
RETRY_MS = 1_000  # milliseconds over which readers who are sent away spread their return
JITTER = 0.2  # of a lifetime: readers stay for 0.8 to 1.2 of it


class Arrivals:
    """Arrivals starts the readers who come.

    `on_drop` is called with the close code and the last frame of each reader that is closed instead. `give_up` is
    called with a stream whose log is gone, and the reason; `delete` with one that was deleted.
    """

    def __init__(
        self,
        resumption: Resumption,
        healer: Healer,
        options: HubOptions,
        *,
        on_drop: Callable[[Close, Notice | None], None],
        give_up: Callable[[LiveStream, str], None],
        delete: Callable[[LiveStream], object],
    ) -> None:
        self.are_open = True  # to new readers
        self.departures: Departures | None = None  # while readers are being sent away
        self._resumption = resumption
        self._healer = healer
        self._options = options
        self._on_drop = on_drop
        self._give_up = give_up
        self._delete = delete

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
        except (Deleted, Unavailable, StoreError) as error:
            if reader.state is not ReaderState.CLOSED:
                is_deleted = isinstance(error, Deleted)
                self._turn_away(reader, *((Close.ENDED, "deleted") if is_deleted else (Close.OVERLOADED, "store")))

    async def join(self, stream: LiveStream, reader: Reader, cursor: Cursor | None) -> None:
        """Start a reader: `hello`, all it missed or a snapshot, then live events.

        Raises Deleted, Unavailable, StoreError.
        """
        for _ in range(2):
            await self._healer.wait(stream)
            try:
                start = await self._resumption.start(stream, reader.format, cursor, reader.coding)
            except LogDiffers:
                self._healer.recover(stream, "the log has another event at its place")
                continue
            except LogGone:
                self._give_up(stream, LOG_GONE)
                raise
            except Deleted:
                self._delete(stream)
                raise
            if start is not None:
                self._admit(stream, reader, start)
                return
        raise Unavailable("The stream is recovering from data loss in the store; retry.")

    def _admit(self, stream: LiveStream, reader: Reader, start: Start) -> None:
        """Add a reader to its stream, unless the reader, the stream or the worker has gone while the store was read."""
        if reader.state is ReaderState.CLOSED:
            return
        if not self.are_open:
            self._turn_away(reader, Close.RESTART, "drain")
        elif not stream.is_open:
            self._turn_away(reader, Close.RESTART, "resync")
        else:
            reader.renew_at = self._renewal()
            stream.fanout.join(reader, *start)
            if self.departures is not None:
                self.departures.add(stream.fanout, reader)

    def _renewal(self) -> float:
        """When a reader that joins now is to come anew: at random, else those who came together would come so again."""
        lifetime = self._options.lifetime
        return asyncio.get_running_loop().time() + random.uniform(1 - JITTER, 1 + JITTER) * lifetime

    def _send_to_reload(self, stream: LiveStream, reader: Reader) -> None:
        """Say hello to a reader, and when its page is to be loaded anew: at random, else all pages would be at once."""
        if reader.state is not ReaderState.CLOSED:
            hello = stream.hello(stream.ring.n, None, self._options.heartbeat)
            reader.write(Batch([hello], reader.format, reader.coding))
            farewell = frames.bye("build", RETRY_MS, reload_ms=random.randrange(RELOAD_MS))
            self._on_drop(Close.RESTART, farewell)
            reader.close(Close.RESTART, farewell)

    def _turn_away(self, reader: Reader, code: Close, why: str) -> None:
        """Close a reader that has not joined yet."""
        farewell = frames.bye(why, RETRY_MS)
        self._on_drop(code, farewell)
        reader.close(code, farewell)
