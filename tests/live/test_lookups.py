"""A flood of unknown names costs the store a bounded number of looks, and lets in those who ask for a stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from pushserver.errors import Deleted, NotFound, Unavailable, deleted
from pushserver.live import lookups
from pushserver.live.lookups import LOOKS, SHARERS, WAITING, Lookups

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

    async def newest(self) -> list[str]:
        self.asked.append("newest")
        return sorted(self.names)


Make = Callable[[Shelf], Lookups]


@pytest.fixture
def lookups_of() -> Iterator[Make]:
    """Make lookups, which end with the test."""
    with ExitStack() as stack:

        def make(shelf: Shelf) -> Lookups:
            return stack.enter_context(closing(Lookups(exists=shelf.exists, newest=shelf.newest)))

        yield make


async def is_there(looks: Lookups, name: str) -> bool:
    async with asyncio.timeout(LIMIT):
        try:
            await looks.look_up(name)
        except NotFound:
            return False
        return True


async def test_a_name_that_exists_is_looked_up_once(lookups_of: Make) -> None:
    shelf = Shelf("storm")
    looks = lookups_of(shelf)
    assert [await is_there(looks, "storm") for _ in range(3)] == [True] * 3
    assert shelf.asked == ["storm"]
    looks.forget("storm")
    shelf.names.clear()
    assert not await is_there(looks, "storm")


async def test_a_name_that_did_not_exist_is_looked_up_again(lookups_of: Make) -> None:
    shelf = Shelf()
    looks = lookups_of(shelf)
    assert not await is_there(looks, "storm")
    shelf.names.add("storm")
    assert await is_there(looks, "storm")


async def test_those_who_ask_for_the_same_unknown_name_share_a_look(lookups_of: Make) -> None:
    shelf = Shelf()
    looks = lookups_of(shelf)
    shelf.gate.clear()
    asking = [asyncio.create_task(is_there(looks, "nothing")) for _ in range(1_000)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the one whose question began the look
    shelf.gate.set()
    assert not any(await asyncio.gather(*asking[1:]))
    assert shelf.asked == ["nothing"]


async def outcomes(tasks: list[asyncio.Task[None]], expected: int) -> Counter[type]:
    """The exceptions of the tasks that end, once as many have; the others are cancelled."""
    async with asyncio.timeout(LIMIT):
        while sum(task.done() for task in tasks) < expected:
            await asyncio.sleep(0)
    done = [type(task.exception()) for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    return Counter(done)


async def test_a_flood_of_names_waits_in_a_bounded_line(lookups_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    shelf = Shelf()
    looks = lookups_of(shelf)
    flood = [asyncio.create_task(looks.look_up(f"nothing-{number}")) for number in range(2_000)]
    counts = await outcomes(flood, 2_000 - WAITING)
    assert counts == {NotFound: LOOKS, Unavailable: 2_000 - LOOKS - WAITING}
    assert len([name for name in shelf.asked if name != "newest"]) == LOOKS


async def test_a_flood_of_one_name_waits_in_a_bounded_line_too(
    lookups_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    looks = lookups_of(Shelf())
    for _ in range(LOOKS):
        assert not await is_there(looks, "nothing")
    flood = [asyncio.create_task(looks.look_up("nothing")) for _ in range(1_000)]
    assert await outcomes(flood, 1_000 - SHARERS) == {Unavailable: 1_000 - SHARERS}


async def test_a_flood_has_the_newest_streams_learned_once_in_a_while(
    lookups_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    monkeypatch.setattr(lookups, "LEARNED_EVERY", LIMIT)
    shelf = Shelf("storm", "flood")
    looks = lookups_of(shelf)
    flood = [asyncio.create_task(looks.look_up(f"nothing-{number}")) for number in range(500)]
    await outcomes(flood, 500 - WAITING)
    assert await is_there(looks, "storm")
    assert await is_there(looks, "flood")
    assert shelf.asked.count("newest") == 1
    assert "storm" not in shelf.asked


async def test_one_flooded_name_leaves_the_next_look_to_another(
    lookups_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "PERIOD", 0.05)
    shelf = Shelf("storm")
    looks = lookups_of(shelf)
    for _ in range(LOOKS):
        assert not await is_there(looks, "nothing")
    flood = [asyncio.create_task(is_there(looks, "nothing")) for _ in range(SHARERS)]
    await asyncio.sleep(0)
    assert await is_there(looks, "storm")
    assert shelf.asked[LOOKS:] == ["nothing", "storm"]
    assert not any(await asyncio.gather(*flood))


async def test_names_that_exist_use_up_nothing(lookups_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    names = [f"storm-{number}" for number in range(4 * LOOKS)]
    looks = lookups_of(Shelf(*names))
    for name in names:
        assert await is_there(looks, name)


async def test_a_store_that_is_away_uses_up_nothing(lookups_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", LIMIT)
    looks = lookups_of(Shelf("storm"))
    for _ in range(2 * LOOKS):
        with pytest.raises(OSError, match="away"):
            await looks.look_up("broken")
    assert await is_there(looks, "storm")


async def test_the_memory_of_names_is_bounded(lookups_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "KNOWN", 2)
    shelf = Shelf("a", "b", "c")
    looks = lookups_of(shelf)
    for name in ("a", "b", "a", "c", "a", "b"):  # b is forgotten for c
        assert await is_there(looks, name)
    assert shelf.asked == ["a", "b", "c", "b"]


async def test_readers_of_a_deleted_stream_share_one_look(lookups_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PERIOD", 1e6)
    looked: list[str] = []

    async def exists(name: str) -> bool:
        looked.append(name)
        raise deleted(name, "2026-01-01T00:00:00.000Z")

    looks = Lookups(exists=exists, newest=Shelf().newest)
    for _ in range(3 * LOOKS):
        with pytest.raises(Deleted):
            await looks.look_up("storm")
    assert looked == ["storm"]


async def test_whoever_waits_for_a_look_that_is_ended_is_refused() -> None:
    """As where a task of the hub has failed: nobody cancelled the request, which has to be answered."""
    shelf = Shelf("storm")
    shelf.gate.clear()
    looks = Lookups(exists=shelf.exists, newest=shelf.newest)
    asking = [asyncio.create_task(looks.look_up("storm")) for _ in range(2)]
    async with asyncio.timeout(LIMIT):
        while not shelf.asked:
            await asyncio.sleep(0)
    looks.close()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 2


async def test_a_reader_who_leaves_does_not_end_the_look_of_the_others(lookups_of: Make) -> None:
    shelf = Shelf("storm")
    shelf.gate.clear()
    looks = lookups_of(shelf)
    leaving, staying = (asyncio.create_task(is_there(looks, "storm")) for _ in range(2))
    async with asyncio.timeout(LIMIT):
        while not shelf.asked:
            await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    shelf.gate.set()
    assert await staying
