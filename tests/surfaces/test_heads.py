"""A look shows what was stored before the read asked; reads that came meanwhile share the next one."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pushserver.model import Deletion, partition_of
from pushserver.store.log import Head, Log
from pushserver.store.store import Store, StoreError
from pushserver.surfaces import heads as surfaces_heads
from pushserver.surfaces.heads import STREAMS, Heads

from ..support.server import LIMIT, entry_append
from ..support.stores import Server

pytestmark = pytest.mark.anyio


class CountedLog(Log):
    """A log that notes the streams of each look, and begins a look only when it is let."""

    def __init__(self, log: Log) -> None:
        self.__dict__ |= log.__dict__
        self.looks: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def heads(self, streams: Sequence[str]) -> list[Head | Deletion | None]:
        self.looks.append(list(streams))
        await self.gate.wait()
        return await super().heads(streams)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of a busy machine has as long as it needs."""
    monkeypatch.setattr(surfaces_heads, "LIMIT", LIMIT)


async def no_pass() -> None:
    await asyncio.sleep(0)


async def test_a_read_knows_what_was_stored_before_it(log: Log, stream: str) -> None:
    heads = Heads(log, yield_to=no_pass)
    assert await heads.of(stream) is None
    for number in range(1, 20):
        appended = await log.append(entry_append(stream, f"Entry {number}"))
        assert await heads.of(stream) == Head(appended.cursor, number)


async def test_reads_that_come_during_a_look_share_the_next_one(log: Log, stream: str) -> None:
    counted = CountedLog(log)
    heads = Heads(counted, yield_to=no_pass)
    await log.append(entry_append(stream, "One"))
    counted.gate.clear()
    first = asyncio.create_task(heads.of(stream))
    while not counted.looks:
        await asyncio.sleep(0)
    later = [asyncio.create_task(heads.of(stream)) for _ in range(500)]
    await asyncio.sleep(0)
    appended = await log.append(entry_append(stream, "Two"))
    counted.gate.set()
    await first
    assert {await read for read in later} == {Head(appended.cursor, 2)}
    assert counted.looks == [[stream], [stream]]


async def test_a_reader_who_leaves_takes_nobody_with_it(log: Log, stream: str) -> None:
    heads = Heads(log, yield_to=no_pass)
    await log.append(entry_append(stream, "One"))
    reads = [asyncio.create_task(heads.of(stream)) for _ in range(3)]
    await asyncio.sleep(0)
    reads[1].cancel()
    one, _, three = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(one, Head)
    assert one == three


async def test_a_look_has_so_many_streams_at_most(log: Log) -> None:
    counted = CountedLog(log)
    heads = Heads(counted, yield_to=no_pass)
    names = [f"name-{number}" for number in range(STREAMS * log.store.partitions * 2)]
    assert set(await asyncio.gather(*(heads.of(name) for name in names))) == {None}
    assert max(len(names) for names in counted.looks) <= STREAMS
    assert sorted(name for names in counted.looks for name in names) == sorted(names)


async def test_a_store_that_is_silent_is_away(tmp_path: Path, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Server(tmp_path)) as server:
        store = Store(f"redis://127.0.0.1:{server.port}", partitions=1)
        log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
        heads = Heads(log, yield_to=no_pass)
        appended = await log.append(entry_append(stream, "One"))
        server.freeze()
        monkeypatch.setattr(surfaces_heads, "LIMIT", 0.5)
        results = await asyncio.gather(*(heads.of(stream) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in results), results
        monkeypatch.setattr(surfaces_heads, "AWAITED", 0.0)
        assert not await heads.back(stream, asyncio.get_running_loop().time()), "it has been away for long enough"
        monkeypatch.setattr(surfaces_heads, "AWAITED", LIMIT)
        waiting = asyncio.create_task(heads.back(stream, asyncio.get_running_loop().time()))
        server.thaw()
        assert await waiting
        assert not await heads.back(stream, asyncio.get_running_loop().time()), (
            "it is not away, so that nothing was waited for"
        )
        while isinstance((await asyncio.gather(heads.of(stream), return_exceptions=True))[0], StoreError):
            await asyncio.sleep(0.01)
        assert await heads.of(stream) == Head(appended.cursor, 1)
        await store.close()


class FailingLog(CountedLog):
    """A log whose next looks fail with these errors, first to last."""

    errors: list[Exception]

    async def heads(self, streams: Sequence[str]) -> list[Head | Deletion | None]:
        answer = await super().heads(streams)
        if self.errors:
            raise self.errors.pop(0)
        return answer


async def away(log: Log, stream: str) -> tuple[FailingLog, Heads]:
    """Heads whose first look failed, and the log of which the next ones succeed."""
    failing = FailingLog(log)
    failing.errors = [StoreError("away")]
    heads = Heads(failing, yield_to=no_pass)
    with pytest.raises(StoreError):
        await heads.of(stream)
    return failing, heads


async def test_so_many_reads_await_a_store_at_a_time(log: Log, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surfaces_heads, "WAITING", 1)
    monkeypatch.setattr(surfaces_heads, "AWAITED", LIMIT)
    failing, heads = await away(log, stream)
    failing.gate.clear()
    first = asyncio.create_task(heads.back(stream, asyncio.get_running_loop().time()))
    await asyncio.sleep(0)
    assert not await heads.back(stream, asyncio.get_running_loop().time())
    failing.gate.set()
    assert await first


def end_the_look(heads: Heads, stream: str) -> None:
    """Cancel the task that asks the store about a stream."""
    task = heads._looks[partition_of(stream, len(heads._looks))]._task
    assert task is not None
    task.cancel()


async def test_who_waits_for_a_look_that_is_ended_is_told_of_the_store(log: Log, stream: str) -> None:
    counted = CountedLog(log)
    heads = Heads(counted, yield_to=no_pass)
    counted.gate.clear()
    reading = asyncio.create_task(heads.of(stream))
    while not counted.looks:
        await asyncio.sleep(0)
    later = asyncio.create_task(heads.of(stream))  # it waits for the next look
    await asyncio.sleep(0)
    end_the_look(heads, stream)
    for read in (reading, later):
        with pytest.raises(StoreError):
            await read


async def test_a_store_is_asked_again_whatever_became_of_who_asked_it(
    log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surfaces_heads, "AWAITED", LIMIT)
    _, heads = await away(log, stream)
    back = asyncio.create_task(heads.back(stream, asyncio.get_running_loop().time()))
    await asyncio.sleep(0)
    end_the_look(heads, stream)
    assert await back
    assert await heads.of(stream) is None


async def test_loads_while_a_store_is_away_take_no_memory(
    log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surfaces_heads, "AGAIN", LIMIT)
    _, heads = await away(log, stream)
    lengths = []
    for _ in range(2):
        with pytest.raises(StoreError) as error:
            await heads.of(stream)
        lengths.append(len(list(traceback.walk_tb(error.value.__traceback__))))
    assert lengths[0] == lengths[1]
    end_the_look(heads, stream)
