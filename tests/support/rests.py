"""Rests of long work: whether it lets the event loop do other work between its steps."""

from __future__ import annotations

import asyncio


class Rests:
    """Rests stands for the class of stretches, each of which is over at once, and counts where others came in."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, seconds: float = 0.0) -> Rests:
        """Begin a stretch."""
        return self

    async def rest(self) -> None:
        """Let others in."""
        await asyncio.sleep(0)
        self.count += 1
