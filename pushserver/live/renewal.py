"""A renewal sends the readers of a stream a snapshot when its page has another language, direction or zone.

Every entry looks different then. The store is read once for all readers of the worker, and nobody connects anew.
"""

from __future__ import annotations

import asyncio
import logging
import random

from ..errors import Unavailable
from ..store.store import StoreError
from ..wire import frames
from .resume import Resumption
from .stream import LiveStream

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two renewals of a stream: each sends the whole page to every reader
RETRY_WITHIN = 0.5  # seconds until a renewal that failed is tried again
CATCH_UP = 5.0  # seconds for the ring to reach the event of a snapshot


class Renewals:
    """Renewals are the streams of a worker that are being renewed. `memory_events` are kept for healing."""

    def __init__(self, resumption: Resumption, *, memory_events: int) -> None:
        self._resumption = resumption
        self._memory_events = memory_events
        self._tasks: dict[LiveStream, asyncio.Task[None]] = {}
        self._due: set[LiveStream] = set()  # whose page changed so after their last snapshot

    def renew(self, stream: LiveStream) -> None:
        """Renew a stream now, or after a pause if it has just been renewed."""
        self._due.add(stream)
        if stream not in self._tasks:
            self._tasks[stream] = asyncio.get_running_loop().create_task(self._renew(stream))

    async def _renew(self, stream: LiveStream) -> None:
        try:
            while stream.is_open and stream in self._due:
                self._due.discard(stream)
                try:
                    async with asyncio.timeout(CATCH_UP):
                        is_renewed = await self._restart(stream)
                    (self._due.discard if is_renewed else self._due.add)(stream)
                    await asyncio.sleep(PAUSE)
                except (StoreError, Unavailable, TimeoutError) as error:
                    words = (
                        "stream %s: its page has another language, direction or time zone, and its readers have not "
                        "got the new snapshot yet, will be retried: %r"
                    )
                    logger.warning(words, stream.name, error)
                    self._due.add(stream)
                    await asyncio.sleep(random.uniform(0, RETRY_WITHIN))
        finally:
            self._due.discard(stream)
            del self._tasks[stream]

    async def _restart(self, stream: LiveStream) -> bool:
        """Restart a stream from a snapshot, and go on with the events after it.

        Returns whether the stream is renewed: none of those events asks for another snapshot.
        """
        snapshot, frame = await self._resumption.snapshot(stream)
        await stream.until_delivered(snapshot.n)
        if not stream.is_open or stream.ring.seek(snapshot.cursor) is None:  # it was closed, or began anew by itself
            return True
        events = stream.recent_events(self._memory_events)
        stream.restart(
            snapshot, [frames.reset("page", ()), frame], [event for event in events if event.n <= snapshot.n]
        )
        later = [event for event in reversed(events) if event.n > snapshot.n]
        for event in later:
            stream.append(event)
        stream.begin_pass()
        return not any(event.remakes_page for event in later)
