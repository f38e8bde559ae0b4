"""Drains that have begun."""

from __future__ import annotations

import asyncio

from pushserver.live.drain import Drain


def begun(*, window: float) -> Drain:
    """A drain whose readers leave over so many seconds."""
    drain = Drain(window=window)
    drain.begin(asyncio.get_running_loop().time())
    return drain


def hurried() -> Drain:
    """A drain that sends all readers away at once."""
    drain = Drain(window=300.0)
    drain.hurry(asyncio.get_running_loop().time())
    return drain
