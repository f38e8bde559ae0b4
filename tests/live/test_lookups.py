"""A flood of unknown names costs the store a bounded number of looks, and lets in those who ask for a stream."""

from __future__ import annotations

import asyncio

import pytest

from pushserver.errors import NotFound, Unavailable
from pushserver.live import lookups
from pushserver.live.lookups import LOOKS, WAITING, Lookups

pytestmark = pytest.mark.anyio

LIMIT = 90.0  # seconds


class Shelf:
    """The names that a store has. It answers a look once `gate` is open."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def exists(self, name: str) -> bool:
        self.asked.append(name)
        await self.gate.wait()
        if name == "broken":
            raise OSError("the store is away")
        return name in self.names


async def is_there(looks: Lookups, name: str) -> bool:
    async with asyncio.timeout(LIMIT):
        try:
            await looks.look_up(name)
        except NotFound:
            return False
        return True


async def test_a_name_that_exists_is_looked_up_once() -> None:
    shelf = Shelf("storm")
    looks = Lookups(shelf.exists)
    assert [await is_there(looks, "storm") for _ in range(3)] == [True] * 3
    assert shelf.asked == ["storm"]
    looks.forget("storm")
    shelf.names.clear()
    assert not await is_there(looks, "storm")


async def test_a_name_that_did_not_exist_is_looked_up_again() -> None:
    shelf = Shelf()
    looks = Lookups(shelf.exists)
    assert not await is_there(looks, "storm")
    shelf.names.add("storm")
    assert await is_there(looks, "storm")


async def test_those_who_ask_for_the_same_unknown_name_share_a_look() -> None:
    shelf = Shelf()
    looks = Lookups(shelf.exists)
    shelf.gate.clear()
    asking = [asyncio.create_task(is_there(looks, "nothing")) for _ in range(1_000)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the one whose question began the look
    shelf.gate.set()
    assert not any(await asyncio.gather(*asking[1:]))
    assert shelf.asked == ["nothing"]


async def test_a_flood_of_names_waits_in_a_bounded_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    shelf = Shelf()
    looks = Lookups(shelf.exists)
    flood = [asyncio.create_task(looks.look_up(f"nothing-{number}")) for number in range(2_000)]
    done, _ = await asyncio.wait(flood, timeout=0)
    while len(done) < 2_000 - WAITING:
        done, waiting = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT)
    refusals = [type(task.exception()) for task in done]
    assert (refusals.count(NotFound), refusals.count(Unavailable)) == (LOOKS, 2_000 - LOOKS - WAITING)
    assert len(shelf.asked) == LOOKS
    for task in waiting:
        task.cancel()


async def test_one_flooded_name_leaves_the_next_look_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", 0.05)
    shelf = Shelf("storm")
    looks = Lookups(shelf.exists)
    for _ in range(LOOKS):
        assert not await is_there(looks, "nothing")
    flood = [asyncio.create_task(is_there(looks, "nothing")) for _ in range(1_000)]
    await asyncio.sleep(0)
    assert await is_there(looks, "storm")
    assert shelf.asked[LOOKS:] == ["nothing", "storm"]
    assert not any(await asyncio.gather(*flood))


async def test_names_that_exist_use_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    names = [f"storm-{number}" for number in range(4 * LOOKS)]
    looks = Lookups(Shelf(*names).exists)
    for name in names:
        assert await is_there(looks, name)


async def test_a_store_that_is_away_uses_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    looks = Lookups(Shelf("storm").exists)
    for _ in range(2 * LOOKS):
        with pytest.raises(OSError, match="away"):
            await looks.look_up("broken")
    assert await is_there(looks, "storm")


async def test_the_memory_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "KNOWN", 2)
    shelf = Shelf("a", "b", "c")
    looks = Lookups(shelf.exists)
    for name in ("a", "b", "a", "c", "a", "b"):  # b is forgotten for c
        assert await is_there(looks, name)
    assert shelf.asked == ["a", "b", "c", "b"]
