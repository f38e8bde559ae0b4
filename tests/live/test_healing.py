"""Events that the store lost are published again, and readers are reset where they cannot be."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from pushserver import metrics, model
from pushserver.errors import Deleted
from pushserver.live import healing
from pushserver.live.hub import Hub
from pushserver.live.reader import ReaderState
from pushserver.model import Append
from pushserver.store.deletion import Deletions
from pushserver.store.embedded import embedded
from pushserver.store.log import Appended, Log
from pushserver.wire.codes import Close

from ..support.hubs import BEAT, LIMIT, append, append_and_read, delete_log, reading, running, until_reset
from ..support.logs import log_key, log_on
from ..support.server import entry_append

pytestmark = pytest.mark.anyio


async def test_readers_of_a_log_that_begins_anew_are_reset_and_stay(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    old = (await append(log, stream)).cursor
    async with reading(hub, stream) as reader, reading(hub, stream, old) as other:
        await delete_log(store_url, stream)
        new = await append(log, stream)
        for each in (reader, other):
            reset, snapshot = await until_reset(each)
            assert (reset["reason"], snapshot["cursor"]) == ("epoch", str(new.cursor))
        await append(log, stream)
        for each in (reader, other):
            await each.until_read(2)
            assert each.numbers() == [2]
    async with reading(hub, stream, old) as again:
        assert (again.frames[0]["epoch"], again.frames[0]["reason"]) == (new.cursor.epoch, "epoch")
        assert new.cursor.epoch != old.epoch


@pytest.mark.parametrize("found_by", ["the next event", "the next connection", "a look now and then"])
async def test_a_lost_event_is_healed_and_readers_are_reset(
    hub: Hub, log: Log, store_url: str, stream: str, found_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1 if found_by == "a look now and then" else 60)
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        lost = await append_and_read(log, stream, reader, 2)
        await lose(store, stream, lost)
        match found_by:
            case "the next event":
                assert (await append(log, stream, "after")).n == lost.n
            case "the next connection":
                for client in await store.client_list():
                    if client["cmd"] == "xread":
                        await store.client_kill_filter(_id=client["id"])
        reset, snapshot = await until_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        assert {(entry["id"], entry["rev"]) for entry in snapshot["entries"]} >= {(lost.entry_id, 1)}
        await append(log, stream, "last")
        await reader.until(lambda: reader.numbers()[-1] == snapshot["n"] + 1)
        assert reader.state is ReaderState.OPEN
    async with reading(hub, stream, lost.cursor) as away:
        assert (away.frames[0]["complete"], away.frames[0]["reason"]) == (False, "rollback")
        assert lost.entry_id in [entry["id"] for entry in away.frames[1]["entries"]]


async def test_what_is_not_to_be_healed_is_named(log: Log, store_url: str, stream: str) -> None:
    first = await append(log, stream, "first")
    async with running(log, heal=False) as hub, reading(hub, stream, first.cursor) as reader:
        lost = await append_and_read(log, stream, reader, 2)
        async with aioredis.Redis.from_url(store_url) as store:
            await lose(store, stream, lost)
        await append(log, stream, "after")
        reset, snapshot = await until_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [lost.entry_id])
        assert lost.entry_id not in [entry["id"] for entry in snapshot["entries"]]


async def test_a_correction_is_healed_where_the_one_before_it_is_lost_too(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    first = await append(log, stream, "first")
    await log.append(entry_append(stream, "second", id=first.entry_id, rev=2))
    async with reading(hub, stream) as reader, aioredis.Redis.from_url(store_url) as store:
        await log.append(entry_append(stream, "third", id=first.entry_id, rev=3))
        await reader.until_read(3)
        await lose_corrections(store, stream, first)
        await append(log, stream, "after")
        reset, snapshot = await until_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        entries = {entry["id"]: (entry["rev"], entry["headline"]) for entry in snapshot["entries"]}
        assert entries[first.entry_id] == (3, "third")


async def test_a_correction_is_healed_while_others_publish_older_ones(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher comes in between, after the one who heals has seen what is there."""
    first = await append(log, stream, "first")
    for rev in range(2, 5):
        await log.append(entry_append(stream, str(rev), id=first.entry_id, rev=rev))
    current_rev = healing._current_rev

    async def overtaken(log: Log, append: Append) -> int:
        current = await current_rev(log, append)
        if current < 3:
            await log.append(entry_append(stream, "other", id=first.entry_id, rev=current + 1))
        return current

    monkeypatch.setattr(healing, "_current_rev", overtaken)
    async with reading(hub, stream) as reader, aioredis.Redis.from_url(store_url) as store:
        last = await log.append(entry_append(stream, "last", id=first.entry_id, rev=5))
        await reader.until_read(5)
        await lose_corrections(store, stream, first)
        await append(log, stream, "after")
        reset, snapshot = await until_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        assert {entry["id"]: entry["rev"] for entry in snapshot["entries"]}[last.entry_id] == 5


async def test_readers_of_a_stream_that_cannot_be_recovered_are_sent_to_reconnect(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong there: a stream that nobody reads any more would look like one on which nothing happens."""
    first = await append(log, stream, "first")

    async def fails(*arguments: Any, **options: Any) -> None:
        raise KeyError("at")

    monkeypatch.setattr(healing, "heal", fails)
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        lost = await append_and_read(log, stream, reader, 2)
        await lose(store, stream, lost)
        await append(log, stream, "after")
        await reader.until_closed()
        assert reader.code is Close.RESTART


async def test_a_log_that_is_gone_is_counted_and_its_readers_are_sent_to_reconnect(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody emptied the store: no event is left to be healed, and an operator has to hear of it."""
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1)
    first = await append(log, stream, "first")
    before = metrics.RESETS.value("empty")
    async with reading(hub, stream, first.cursor) as reader:
        await delete_log(store_url, stream)
        await reader.until_closed()
        assert reader.code is Close.RESTART
    assert metrics.RESETS.value("empty") == before + 1


async def test_what_cannot_be_healed_yet_is_healed_later(
    tmp_path: Path, stream: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes no writes when the loss is found out: who has the event keeps it, and tells nobody yet."""
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as redis, log_on(url) as log:
        first = await append(log, stream, "first")
        async with running(log) as hub, reading(hub, stream, first.cursor) as reader:
            lost = await append_and_read(log, stream, reader, 2)
            await lose(redis, stream, lost)
            await redis.config_set("maxmemory", "1")
            monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1)  # else it is not found out before 5 s
            async with asyncio.timeout(LIMIT):
                while "recovery failed, will be retried" not in caplog.text:
                    await asyncio.sleep(BEAT)
            assert reader.kinds() == ["hello", "entry.put"]
            await redis.config_set("maxmemory", "0")
            reset, snapshot = await until_reset(reader)
            assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
            assert lost.entry_id in [entry["id"] for entry in snapshot["entries"]]


async def test_an_event_is_read_whose_id_is_below_what_else_was_in_the_log(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that is no event took the tail past the last event; it is lost, and the clock is behind."""
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1)
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        skipped = metrics.SKIPPED.value()
        before = await store.dump(log_key(stream)) or b""
        await store.xadd(log_key(stream), {"what": "x"}, id=f"{model.now() + 10**6}-0")
        async with asyncio.timeout(LIMIT):
            while metrics.SKIPPED.value() == skipped:
                await asyncio.sleep(BEAT)
        await store.restore(log_key(stream), 0, before, replace=True)
        await append(log, stream, "second")
        await reader.until_read(2)
        assert reader.kinds() == ["hello", "entry.put"]


async def test_what_the_next_failover_loses_is_healed_too(hub: Hub, log: Log, store_url: str, stream: str) -> None:
    """It goes back further than the first one; the stream was restarted with the events that one had left."""
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        saved = await save(store, stream)
        before, lost = [await append_and_read(log, stream, reader, n) for n in (2, 3)]
        await lose(store, stream, lost)
        await append(log, stream, "after")
        await until_reset(reader)
        await restore(store, stream, saved)
        await append(log, stream, "after all")
        await reader.until(lambda: reader.kinds().count("reset") == 2)
        reset, snapshot = await until_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        assert {before.entry_id, lost.entry_id} <= {entry["id"] for entry in snapshot["entries"]}


async def test_what_is_lost_while_it_is_healed_is_healed_too(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store falls back further when the lost event is there again, and before the stream is restarted."""
    first, read = await append(log, stream, "first"), Log.snapshot
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        states = [await save(store, stream)]

        async def late(*arguments: Any, **options: Any) -> Any:
            if states:
                await restore(store, stream, states.pop())
            return await read(*arguments, **options)

        before, lost = [await append_and_read(log, stream, reader, n) for n in (2, 3)]
        monkeypatch.setattr(Log, "snapshot", late)
        await lose(store, stream, lost)
        await append(log, stream, "after")
        _, snapshot = await until_reset(reader)
        assert states == []
        assert {before.entry_id, lost.entry_id} <= {entry["id"] for entry in snapshot["entries"]}


async def test_workers_that_heal_the_same_event_store_it_once(log: Log, store_url: str, stream: str) -> None:
    await append(log, stream, "first")
    async with running(log) as one, running(log) as other, aioredis.Redis.from_url(store_url) as store:
        async with reading(one, stream) as reader, reading(other, stream) as second:
            lost = [await append(log, stream, f"lost {number}") for number in range(3)]
            for each in (reader, second):
                await each.until_read(4)
            for entry in lost:
                await lose(store, stream, entry)
            await append(log, stream, "after")
            for each in (reader, second):
                await each.until(lambda each=each: "reset" in each.kinds())  # type: ignore[misc]
    snapshot = await log.snapshot(stream, limit=10)
    assert snapshot is not None
    headlines = [json.loads(entry)["headline"] for entry in snapshot.entries]
    assert sorted(headlines) == ["after", "first", "lost 0", "lost 1", "lost 2"]


async def test_a_publisher_who_sends_again_what_was_lost_stores_it_once(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    await append(log, stream, "first")
    async with reading(hub, stream) as reader, aioredis.Redis.from_url(store_url) as store:
        request = entry_append(stream, "lost", key="mine", body_hash="b0d7")
        lost = await log.append(request)
        await reader.until_read(2)
        await lose(store, stream, lost)
        await append(log, stream, "after")
        await reader.until(lambda: "reset" in reader.kinds())
        again = await log.append(request)
        assert (again.replayed, again.entry_id) == (True, lost.entry_id)


async def save(store: aioredis.Redis, stream: str) -> dict[bytes, bytes]:
    """All that is stored of a stream."""
    names = [name async for name in store.scan_iter(log_key(stream).removesuffix("log") + "*")]
    return {name: await store.dump(name) or b"" for name in names}


async def restore(store: aioredis.Redis, stream: str, saved: dict[bytes, bytes]) -> None:
    """Go back to what was stored."""
    names = [name async for name in store.scan_iter(log_key(stream).removesuffix("log") + "*")]
    async with store.pipeline(transaction=True) as pipeline:
        pipeline.delete(*names)
        for name, value in saved.items():
            pipeline.restore(name, 0, value)
        await pipeline.execute()


async def lose(store: aioredis.Redis, stream: str, lost: Appended) -> None:
    """Take an entry out of the store, as a failover to a replica that lagged behind does."""
    key = log_key(stream).removesuffix(":log")
    await forget(store, f"{key}:log", lost.cursor.id)
    assert await store.hdel(f"{key}:entries", lost.entry_id) == 1
    assert await store.zrem(f"{key}:order", lost.entry_id) == 1
    await store.delete(*[name async for name in store.scan_iter(f"{key}:idem:*")] or ["none"])


async def forget(store: aioredis.Redis, log: str, *ids: str) -> None:
    """Make a log one that never had these records: one from which they are deleted knows that they were there."""
    records: Any = await store.xrange(log)
    assert {id.decode() for id, _ in records} >= set(ids)
    pipeline = store.pipeline(transaction=True)
    pipeline.delete(log)
    for id, fields in records:
        if id.decode() not in ids:
            pipeline.xadd(log, fields, id=id)
    await pipeline.execute()


async def lose_corrections(store: aioredis.Redis, stream: str, first: Appended) -> None:
    """Take all that came after an entry's first revision out of the store."""
    key = log_key(stream).removesuffix(":log")
    later: Any = await store.xrange(f"{key}:log", f"({first.cursor.id}")
    await forget(store, f"{key}:log", *[id.decode() for id, _ in later])
    await store.hset(f"{key}:entries", first.entry_id, json.dumps({"id": first.entry_id, "rev": 1}))


async def test_a_deleted_stream_is_not_healed_back_by_a_worker_that_nobody_told(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was frozen meanwhile: its ring has every event, and it looks at the log a while later."""
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1)
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        await append_and_read(log, stream, reader, 2)
        await Deletions(log).delete(stream)
        await reader.until_closed()
        assert (reader.code, reader.frames[-1]["reason"]) == (Close.ENDED, "deleted")
        assert [name async for name in store.scan_iter(f"*:{stream}:*")] == [log_key(stream, "deleted").encode()]
    with pytest.raises(Deleted):
        await hub.look_up(stream)


async def test_events_are_not_published_again_into_a_deleted_stream(log: Log, stream: str) -> None:
    lost = [(await log.append(entry_append(stream, "one"))).cursor]
    resumed = await log.resume(stream, model.Cursor.beginning(lost[0].epoch), limit=9, limit_bytes=10**6)
    await Deletions(log).delete(stream)
    with pytest.raises(Deleted):
        await healing.heal(log, stream, resumed.events, publish=True)
