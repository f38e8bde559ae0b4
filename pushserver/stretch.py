"""Long work lets the event loop do other work after each stretch of it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

STRETCH = 0.005  # seconds of the loop's time that work takes in one piece, until it lets others in

T = TypeVar("T")


class Stretch:
    """Stretch measures how long a task has run since it last let the event loop do other work."""

    def __init__(self, seconds: float = STRETCH) -> None:
        self._clock = asyncio.get_running_loop().time
        self._seconds = seconds
        self._over = self._clock() + seconds

    async def rest(self) -> None:
        """Let the event loop do other work if the stretch is over; another one begins then."""
        if self._clock() >= self._over:
            await asyncio.sleep(0)
            self._over = self._clock() + self._seconds

    async def take(self, steps: Generator[None, None, T]) -> T:
        """Take the steps of a generator, and rest after one where the stretch is over. The result is its own."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if self._clock() >= self._over:
                await self.rest()


async def in_stretches(steps: Generator[None, None, T], seconds: float = STRETCH) -> T:
    """Take the steps of a generator in stretches of so many seconds. The result is its own."""
    return await Stretch(seconds).take(steps)
