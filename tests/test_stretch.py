"""Long work lets the event loop do other work between its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from pushserver.stretch import Stretch, in_stretches


def numbers(count: int, seen: list[int]) -> Generator[None, None, str]:
    for number in range(count):
        seen.append(number)
        yield
    return "done"


@pytest.mark.anyio
async def test_others_come_in_between_steps_where_a_stretch_is_over() -> None:
    seen: list[int] = []

    async def other() -> None:
        for _ in range(3):
            seen.append(-1)
            await asyncio.sleep(0)

    result, _ = await asyncio.gather(in_stretches(numbers(3, seen), 0.0), other())
    assert (result, seen) == ("done", [0, -1, 1, -1, 2, -1])


@pytest.mark.anyio
async def test_nobody_comes_in_before_a_stretch_is_over() -> None:
    seen: list[int] = []
    waiting = asyncio.create_task(in_stretches(numbers(3, seen), 3_600.0))
    await asyncio.sleep(0)
    assert seen == [0, 1, 2]
    assert await waiting == "done"


@pytest.mark.anyio
async def test_steps_of_several_kinds_share_a_stretch() -> None:
    seen: list[int] = []
    stretch = Stretch(0.0)

    async def other() -> None:
        for _ in range(4):
            seen.append(-1)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert [await stretch.take(numbers(2, seen)), await stretch.take(numbers(2, seen))] == ["done", "done"]
    await task
    assert seen == [0, -1, 1, -1, 0, -1, 1, -1]


@pytest.mark.anyio
async def test_a_rest_begins_another_stretch() -> None:
    stretch, turns = Stretch(0.0), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(5):
        await stretch.rest()
    task.cancel()
    assert turns == 5
