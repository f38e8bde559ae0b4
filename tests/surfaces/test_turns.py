"""So many surfaces are made at a time; who had to wait looks whether the store is there, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from pushserver.errors import Unavailable
from pushserver.store.store import StoreError
from pushserver.surfaces import turns as surfaces_turns
from pushserver.surfaces.turns import MAKING, WAITING, Turns

pytestmark = pytest.mark.anyio


def test_a_line_that_is_full_is_refused_until_somebody_leaves() -> None:
    turns = Turns()
    for _ in range(MAKING + WAITING):
        turns.enter()
    with pytest.raises(Unavailable, match="Too many pages are being made"):
        turns.enter()
    turns.leave()
    turns.enter()


async def test_only_who_had_to_wait_looks_whether_the_store_is_there() -> None:
    turns, checked, over = Turns(), 0, asyncio.Event()

    async def check() -> None:
        nonlocal checked
        checked += 1
        raise StoreError("away")

    async def make() -> None:
        async with turns.turn(check):
            await over.wait()

    making = [asyncio.create_task(make()) for _ in range(MAKING + 2)]
    await asyncio.sleep(0)
    over.set()
    outcomes = await asyncio.gather(*making, return_exceptions=True)
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False] * MAKING + [True] * 2
    assert checked == 2


async def test_a_turn_that_does_not_come_or_end_in_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, checks = Turns(), asyncio.Event()

    async def make() -> None:
        async with turns.turn(checks.wait):
            await asyncio.Event().wait()

    monkeypatch.setattr(surfaces_turns, "MADE_WITHIN", 0.01)
    outcomes = await asyncio.gather(*(make() for _ in range(MAKING + 1)), return_exceptions=True)
    assert all(isinstance(outcome, StoreError) for outcome in outcomes), outcomes
    monkeypatch.undo()
    async with turns.turn(checks.wait):  # every place was given back
        pass
