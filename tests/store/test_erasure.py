"""An erasure takes a withdrawn text out of every record and file, and changes nothing that a reader could notice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from pushserver.errors import Conflict, Deleted, NotFound
from pushserver.model import Cursor
from pushserver.store import erasure
from pushserver.store.deletion import Deletions
from pushserver.store.embedded import embedded
from pushserver.store.erasure import Erasures
from pushserver.store.log import Appended, Log
from pushserver.store.store import StoreError

from ..support.logs import add_foreign, execute, log_key, log_on, put, records, texts_of, withdraw

pytestmark = pytest.mark.anyio

SECRET = "secret-a1b2c3d4"


async def withdrawn(log: Log, stream: str, *, around: int = 2, key: str = "key") -> tuple[str, list[Appended]]:
    """An entry with two revisions, withdrawn, among others; its id, and every answer."""
    answers = [await log.append(put(stream, f"before {number}")) for number in range(around)]
    first = await log.append(put(stream, f"{SECRET} one", key=key))
    answers += [first, await log.append(put(stream, f"{SECRET} two", id=first.entry_id, rev=2))]
    answers += [await log.append(put(stream, f"between {number}")) for number in range(around)]
    gone = withdraw(stream, first.entry_id, 2)
    state = {**gone.state, "rev": 3, "headline": f"{SECRET} two"}
    answers.append(await log.append(gone._replace(rev=3, replaces=2, state=state, data={**gone.data, "rev": 3})))
    answers += [await log.append(put(stream, f"after {number}")) for number in range(around)]
    return first.entry_id, answers


async def described(store: aioredis.Redis, stream: str) -> dict[str, Any]:
    """What a log is, but for how it lies in memory."""
    info = await store.xinfo_stream(log_key(stream))
    names = ("length", "last-generated-id", "entries-added", "max-deleted-entry-id", "recorded-first-entry-id")
    return {name: info[name] for name in names}


async def test_no_value_has_the_text_and_readers_notice_nothing(log: Log, store: aioredis.Redis, stream: str) -> None:
    await add_foreign(store, stream)
    id, answers = await withdrawn(log, stream)
    assert SECRET in await texts_of(store)
    cursors = [answer.cursor for answer in answers]
    before = await described(store, stream), await records(store, stream), await reads(log, stream, cursors)
    erased = await Erasures(log).erase(stream, id)
    assert (erased.files, erased.durability.level) == (True, "disk")
    assert SECRET not in await texts_of(store)
    assert await described(store, stream) == before[0]
    assert await reads(log, stream, cursors) == before[2]
    changed = [(old, new) for old, new in zip(before[1], await records(store, stream), strict=True) if old != new]
    assert [(old["t"], new["t"], new["i"]) for old, new in changed] == [("entry.put", "entry.withdraw", "")] * 2
    for old, new in changed:
        assert {**old, "t": "", "d": "", "i": ""} == {**new, "t": "", "d": "", "i": ""}
    assert await store.keys(f"*{stream}:log*") == [log_key(stream).encode()]
    assert await store.ttl(log_key(stream)) == -1
    assert (await log.append(put(stream, "next"))).n == answers[-1].n + 1


async def reads(log: Log, stream: str, cursors: list[Cursor]) -> list[Any]:
    """What readers with these cursors get, and whether a worker that has them misses anything."""
    resumed = [await log.resume(stream, cursor, limit=100, limit_bytes=10**6) for cursor in cursors]
    assert all(each.reason is None for each in resumed)
    return [resumed, await log.missing([(stream, cursor, cursor.id) for cursor in cursors])]


async def test_the_mark_says_since_when_and_has_no_headline(log: Log, stream: str) -> None:
    id, _ = await withdrawn(log, stream)
    erasures = Erasures(log)
    first = await erasures.erase(stream, id)
    _, mark = await log.entry(stream, id)
    assert mark is not None
    assert (mark.get("erased_at"), "headline" in mark) == (first.at, False)
    assert await erasures.erase(stream, id) == first


async def test_only_a_withdrawn_entry_is_erased(log: Log, stream: str) -> None:
    erasures, id = Erasures(log), (await log.append(put(stream))).entry_id
    with pytest.raises(Conflict):
        await erasures.erase(stream, id)
    with pytest.raises(NotFound):
        await erasures.erase(stream, "none")
    await Deletions(log).delete(stream)
    with pytest.raises(Deleted):
        await erasures.erase(stream, id)


class Interrupted(Erasures):
    """Interrupted has something happen between the steps of an erasure."""

    def __init__(self, log: Log, *between: Callable[[], Awaitable[object]]) -> None:
        super().__init__(log)
        self._between = list(between)

    async def _step(self, keys: list[str], arguments: list[Any]) -> Any:
        answer = await super()._step(keys, arguments)
        if answer[0] == [b"more"] and self._between:
            await self._between.pop(0)()
        return answer


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "STEP_RECORDS", 20)


@pytest.mark.usefixtures("small_steps")
async def test_what_is_published_and_trimmed_meanwhile_is_as_it_is(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    id, answers = await withdrawn(log, stream, around=30)

    async def publish() -> None:
        answers.append(await log.append(put(stream, "meanwhile")))

    async def trim() -> None:
        await store.xtrim(log_key(stream), maxlen=80, approximate=False)

    await Interrupted(log, publish, trim, publish).erase(stream, id)
    stored = await records(store, stream)
    assert [record["id"] for record in stored][-2:] == [answer.cursor.id for answer in answers[-2:]]
    assert SECRET not in repr(stored)
    cursor = Cursor(stored[0]["e"], stored[0]["id"], stored[0]["u"])
    assert (await log.resume(stream, cursor, limit=100, limit_bytes=10**6)).reason is None


@pytest.mark.usefixtures("small_steps")
async def test_two_erasures_at_a_time_bring_nothing_back(log: Log, store: aioredis.Redis, stream: str) -> None:
    one, _ = await withdrawn(log, stream, around=30)
    other, _ = await withdrawn(log, stream, around=30, key="other")
    await Interrupted(log, lambda: Erasures(log).erase(stream, other)).erase(stream, one)
    assert SECRET not in repr(await records(store, stream))
    assert await store.keys(f"*{stream}:log*") == [log_key(stream).encode()]


@pytest.mark.usefixtures("small_steps")
async def test_a_copy_that_is_lost_or_harmed_is_made_again(log: Log, store: aioredis.Redis, stream: str) -> None:
    id, answers = await withdrawn(log, stream, around=50)
    count = len(answers)

    async def lose() -> None:
        (copy,) = await store.keys(f"*{stream}:log:*")
        assert await store.ttl(copy) > 0
        await store.unlink(copy)

    async def harm() -> None:
        await execute(store, "XDEL", log_key(stream), answers[0].cursor.id)

    await Interrupted(log, lose, harm).erase(stream, id)
    stored = await records(store, stream)
    assert len(stored) == count - 1
    assert SECRET not in repr(stored)


@pytest.mark.usefixtures("small_steps")
async def test_a_stream_that_is_deleted_meanwhile_stays_deleted(log: Log, store: aioredis.Redis, stream: str) -> None:
    id, _ = await withdrawn(log, stream, around=30)
    with pytest.raises(NotFound):
        await Interrupted(log, lambda: Deletions(log).delete(stream)).erase(stream, id)
    assert await store.keys(f"*:{stream}:*") == [log_key(stream, "deleted").encode()]


async def test_no_file_of_an_embedded_store_has_the_text(tmp_path: Path, stream: str) -> None:
    data = tmp_path / "data"

    def has_text(path: Path) -> bool:
        try:
            return path.is_file() and SECRET.encode() in path.read_bytes()
        except FileNotFoundError:  # removed meanwhile
            return False

    def files_with_text() -> list[Path]:
        return [path for path in data.rglob("*") if has_text(path)]

    async with embedded(data) as url, log_on(url) as log, aioredis.Redis.from_url(url) as store:
        await log.store.check()
        await store.config_set("rdbcompression", "no")  # else a text could hide in what is compressed
        id, _ = await withdrawn(log, stream)
        await store.bgrewriteaof()  # of another's: what it writes has the text
        assert files_with_text()
        erased = await Erasures(log).erase(stream, id)
        assert erased.files
        async with asyncio.timeout(60):
            while files_with_text():  # the store removes its former files beside its other work
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("small_steps")
async def test_a_store_that_is_killed_in_the_middle_has_the_log_as_it_was(tmp_path: Path, stream: str) -> None:
    data = tmp_path / "data"
    async with embedded(data) as url, log_on(url) as log:
        await log.store.check()
        id, answers = await withdrawn(log, stream, around=30)
        cursors = [answer.cursor for answer in answers]
        before = await reads(log, stream, cursors)

        async def kill() -> None:
            os.kill(int((data / "valkey.pid").read_text()), signal.SIGKILL)

        with suppress(StoreError):  # else the next step found the store again
            await Interrupted(log, kill).erase(stream, id)
        async with asyncio.timeout(60):
            while True:
                with suppress(StoreError):
                    assert await reads(log, stream, cursors) == before
                    break
                await asyncio.sleep(0.05)
        await Erasures(log).erase(stream, id)
        assert await reads(log, stream, cursors) == before
        async with aioredis.Redis.from_url(url) as store:
            assert SECRET not in repr(await records(store, stream))
