"""Turns limit how many surfaces are made at a time, and how many wait to be made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ..errors import Unavailable
from ..store.store import StoreError

MAKING = 4  # that have a turn at a time
WAITING = 256  # that wait for one; more are refused
MADE_WITHIN = 20.0  # seconds for a surface to get its turn and to be made


class Turns:
    """Turns are counted in `queued` from `enter` until `leave`; between the two `turn` is one."""

    def __init__(self) -> None:
        self.queued = 0
        self._room = asyncio.Semaphore(MAKING)

    def enter(self) -> None:
        """Join the line. Raises Unavailable where it is full."""
        if self.queued >= MAKING + WAITING:
            raise Unavailable("Too many pages are being made; retry later.")
        self.queued += 1

    def leave(self) -> None:
        """Leave the line, whatever became of the turn."""
        self.queued -= 1

    @asynccontextmanager
    async def turn(self, check: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Have a turn, for what is left of MADE_WITHIN. Raises StoreError where the time is over.

        Who had to wait runs `check` first: where the store went away meanwhile it raises StoreError. Else each that
        waits would use up its own turn to find that out.
        """
        try:
            async with asyncio.timeout(MADE_WITHIN):
                has_waited = self._room.locked()
                async with self._room:
                    if has_waited:
                        await check()
                    yield
        except TimeoutError:
            raise StoreError(f"not made within {MADE_WITHIN:.0f} s") from None
