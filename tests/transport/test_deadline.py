"""A deadline ends at its time, whatever was set before it, and never after it was forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pushserver.transport.deadline import Deadline

from ..support.server import LIMIT

pytestmark = pytest.mark.anyio
SOON, LATER = 0.01, 0.05  # seconds


async def passed(seconds: float) -> None:
    """Wait until another deadline, which was set now, is over."""
    over = asyncio.Event()
    Deadline().set(seconds, over.set)
    async with asyncio.timeout(LIMIT):
        await over.wait()


@pytest.mark.parametrize(("first", "second"), [(SOON, LATER), (LATER, SOON), (LIMIT, SOON), (SOON, SOON)])
async def test_the_last_one_that_was_set_is_called_once(first: float, second: float) -> None:
    deadline, over = Deadline(), asyncio.Event()
    called: list[str] = []

    def end() -> None:
        called.append("second")
        over.set()

    deadline.set(first, lambda: called.append("first"))
    deadline.set(second, end)
    assert deadline.is_set
    async with asyncio.timeout(LIMIT):
        await over.wait()
    await passed(LATER)
    assert called == ["second"]
    assert not deadline.is_set


@pytest.mark.parametrize("forget", [Deadline.end, Deadline.close])
async def test_one_that_was_forgotten_is_not_called_and_the_next_one_is(forget: Callable[[Deadline], None]) -> None:
    deadline = Deadline()
    called: list[int] = []
    for number in range(3):
        deadline.set(SOON, lambda number=number: called.append(number))  # type: ignore[misc]
        if number < 2:
            forget(deadline)
            assert not deadline.is_set
    await passed(LATER)
    assert called == [2]


async def test_many_time_limits_are_one_timer() -> None:
    deadline = Deadline()
    deadline.set(LIMIT, lambda: None)
    timer = deadline._timer
    for _ in range(100):
        deadline.end()
        deadline.set(LIMIT, lambda: None)
    assert deadline._timer is timer
    deadline.close()
    assert timer is not None
    assert timer.cancelled()
