"""The heartbeat writes a `head` frame to every reader, so that both ends see that a quiet connection lives.

With each one the readers of all workers are counted, and a stream that nobody reads any longer is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from .. import model
from .census import Census
from .stream import LiveStream
from .tail import Tails

IDLE_BEATS = 2  # heartbeats for which a stream without readers is still followed


class Heartbeat:
    """Heartbeat beats for the followed streams of a worker, every `interval` seconds.

    `close_idle` is called with a stream that had no reader for more than IDLE_BEATS heartbeats. `census` counts the
    readers of all workers; it is None where they are not shown.
    """

    def __init__(
        self,
        interval: float,
        streams: Mapping[str, LiveStream],
        tails: Tails,
        census: Census | None,
        *,
        close_idle: Callable[[LiveStream], None],
    ) -> None:
        self._interval = interval
        self._streams = streams
        self._tails = tails
        self._census = census
        self._close_idle = close_idle

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if self._census is not None:
                await self._census.take({name: stream.fanout.readers for name, stream in self._streams.items()})
            at = model.instant(model.now())
            for stream in tuple(self._streams.values()):
                await self._beat(stream, at)

    async def _beat(self, stream: LiveStream, at: str) -> None:
        stale_since = self._tails.stale_since(stream.name)
        everywhere = self._census.readers(stream.name, stream.fanout.readers) if self._census else None
        await stream.beat(at, model.instant(stale_since) if stale_since else None, everywhere)
        if stream.idle_beats > IDLE_BEATS:
            self._close_idle(stream)
