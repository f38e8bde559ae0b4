"""A deletion removes every key of a stream, and its mark keeps the name free for as long as it stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio as aioredis

from pushserver import model
from pushserver.errors import Deleted
from pushserver.store.deletion import Deletions
from pushserver.store.log import Log

from ..support.logs import put, put_page, tag_of, withdraw

pytestmark = pytest.mark.anyio


async def keys_of(store: aioredis.Redis, stream: str) -> set[str]:
    return {name.decode() async for name in store.scan_iter(f"*:{stream}:*")}


async def fill(log: Log, stream: str) -> None:
    """Everything that a stream can have."""
    first = await log.append(put(stream, key="one"))
    await log.append(put(stream, key="two.1"))
    await log.append(put_page(stream, 1))
    await log.append(withdraw(stream, first.entry_id, 2))
    await log.feed_id(stream)


async def test_nothing_of_a_stream_is_left_but_its_mark(log: Log, store: aioredis.Redis, stream: str) -> None:
    await fill(log, stream)
    epoch = (await log.heads([stream]))[0].cursor.epoch  # type: ignore[union-attr]
    deleted = await Deletions(log, gone=60).delete(stream)
    assert deleted is not None
    assert (deleted[0].epoch, deleted[1].level) == (epoch, "disk")
    assert await keys_of(store, stream) == {f"{tag_of(stream)}:{stream}:deleted"}
    assert 50 < await store.ttl(f"{tag_of(stream)}:{stream}:deleted") <= 60
    assert await store.zscore(f"{tag_of(stream)}:streams", stream) is None


async def test_a_deletion_leaves_other_streams_alone(log: Log, store: aioredis.Redis, stream: str) -> None:
    others = [f"{stream}-b", f"a-{stream}"]
    for name in (stream, *others):
        await fill(log, name)
    before = [await keys_of(store, name) for name in others]
    await Deletions(log).delete(stream)
    assert [await keys_of(store, name) for name in others] == before


READS: list[Callable[[Log, str], Awaitable[object]]] = [
    lambda log, stream: log.append(put(stream, key="one")),
    lambda log, stream: log.append(put_page(stream, 1)),
    lambda log, stream: log.snapshot(stream, limit=1),
    lambda log, stream: log.resume(stream, model.Cursor.beginning("0" * 16), limit=1, limit_bytes=1),
    lambda log, stream: log.entry(stream, "x"),
    lambda log, stream: log.contents(stream),
    lambda log, stream: log.feed_id(stream),
]


async def test_while_the_mark_stands_nothing_is_stored_or_read(log: Log, store: aioredis.Redis, stream: str) -> None:
    deletions = Deletions(log)
    await fill(log, stream)
    deleted = await deletions.delete(stream)
    assert deleted is not None
    for read in READS:
        with pytest.raises(Deleted) as refused:
            await read(log, stream)
        assert deleted[0].at in refused.value.faults[0].got
    assert await log.heads([stream]) == [deleted[0]]
    assert len(await keys_of(store, stream)) == 1


async def test_a_mark_that_is_forgotten_leaves_nothing(log: Log, store: aioredis.Redis, stream: str) -> None:
    deletions = Deletions(log)
    await fill(log, stream)
    await deletions.delete(stream)
    await deletions.forget(stream)
    assert await keys_of(store, stream) == set()
    assert (await log.append(put(stream, key="one"))).n == 1


async def test_a_second_deletion_keeps_the_mark_and_removes_what_came(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    """As a worker of an earlier version, which knows no mark, appends to the name."""
    deletions = Deletions(log)
    assert await deletions.delete(stream) is None
    await fill(log, stream)
    first = await deletions.delete(stream)
    await store.xadd(f"{tag_of(stream)}:{stream}:log", {"e": "0" * 16})
    assert await deletions.delete(stream) == first
    assert len(await keys_of(store, stream)) == 1


async def test_only_a_stream_that_ended_long_ago_expires(log: Log, store: aioredis.Redis, stream: str) -> None:
    deletions, page = Deletions(log), put_page(stream, 1)
    partition = model.partition_of(stream, 16)
    await log.append(page)
    later = page.at + 10**6
    assert stream in await deletions.ended(partition, later, start=0, count=10_000)
    assert await deletions.delete(stream, unchanged_since=later) is None
    ended = {**page.state, "rev": 2, "state": "ended"}
    await log.append(page._replace(type="stream.end", rev=2, state=ended, data={"at": page.data["at"], "page": ended}))
    assert await deletions.delete(stream, unchanged_since=page.at - 1) is None
    assert await deletions.delete(stream, unchanged_since=later) is not None
    assert stream not in await deletions.ended(partition, later, start=0, count=10_000)
