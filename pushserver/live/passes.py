"""Passes of the fan-out that are under way in a worker. Work that can wait lets them go first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

PASSES_LIMIT = 0.05  # seconds that other work waits for passes


class Passes:
    """Passes are the passes that are under way in a worker. Work that can wait lets them go first."""

    def __init__(self) -> None:
        self._under_way: set[object] = set()
        self._over = asyncio.Event()
        self._over.set()

    def begin(self, stream: object) -> None:
        """Note that a stream's pass is under way; a second call changes nothing."""
        self._under_way.add(stream)
        self._over.clear()

    def end(self, stream: object) -> None:
        """Note that it is over."""
        self._under_way.discard(stream)
        if not self._under_way:
            self._over.set()

    async def over(self) -> None:
        """Let the event loop run, and wait until no pass is under way, PASSES_LIMIT seconds at most."""
        await asyncio.sleep(0)
        if self._under_way:
            with suppress(TimeoutError):
                async with asyncio.timeout(PASSES_LIMIT):
                    await self._over.wait()
