from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from pushserver import model
from pushserver.errors import Unavailable
from pushserver.store.embedded import embedded
from pushserver.store.listing import Listing
from pushserver.store.log import Log
from pushserver.store.store import Store, StoreError, StoreUnfit

from ..support.logs import execute, log_on, put, records
from ..support.server import entry_append, until
from ..support.stores import Watched, watched

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("watched")) as pair:
        yield pair


async def test_a_store_made_with_other_partitions_is_refused(log: Log, store_url: str) -> None:
    async with log_on(store_url, partitions=8) as other:
        with pytest.raises(StoreUnfit, match=r"16 partitions.*8"):
            await other.store.check()
    await log.store.check()


# --- its format


async def test_a_store_without_a_format_is_used_and_gets_one(tmp_path: Path, stream: str) -> None:
    """As one that a version before it filled."""
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as store, log_on(url) as log:
        first = await log.append(put(stream, "before"))
        assert await store.get("pushserver:format") is None
        await log.store.check()
        assert await store.get("pushserver:format") == b"1.1"
        assert (await log.append(put(stream, "after"))).n == 2
        resumed = await log.resume(stream, first.cursor, limit=10, limit_bytes=10**6)
        assert [event.n for event in resumed.events] == [2]


async def test_a_store_of_a_newer_major_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as store, log_on(url) as log:
        await store.set("pushserver:format", "2.0")
        before = sorted(await store.keys("*"))
        with pytest.raises(StoreUnfit) as refused:
            await log.store.check()
        assert str(refused.value) == (
            "expected a store of format 1, got 2.0, which a newer version of pushserver made: upgrade this server, "
            "or use another store"
        )
        assert sorted(await store.keys("*")) == before


async def test_a_store_whose_format_is_of_another_type_is_refused(store: aioredis.Redis, log_store: Store) -> None:
    await store.delete("pushserver:format")
    await execute(store, "LPUSH", "pushserver:format", "1.0")
    try:
        with pytest.raises(StoreUnfit, match="another type"):
            await log_store.check()
    finally:
        await store.set("pushserver:format", "1.0")


# --- what it promises


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_store_that_evicts_is_refused(tmp_path: Path, policy: str) -> None:
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as store, log_on(url) as log:
        await store.config_set("maxmemory", "100mb")
        await log.store.check()
        await store.config_set("maxmemory-policy", policy)
        with pytest.raises(StoreUnfit, match=policy):
            await log.store.check()


async def test_the_embedded_store_answers_once_it_is_on_disk(log: Log, stream: str) -> None:
    assert (await log.append(put(stream))).durability == ("disk", None)


async def test_durability_is_what_the_store_does_now(tmp_path: Path, stream: str) -> None:
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as store, log_on(url) as log:
        for name, value, expected in [
            ("appendfsync", "everysec", "memory"),
            ("appendfsync", "always", "disk"),
            ("appendonly", "no", "memory"),
        ]:
            await store.config_set(name, value)
            await log.store.ping()
            assert (await log.append(put(stream))).durability == (expected, None)


async def test_a_store_that_is_full_stores_nothing_and_goes_on_when_it_is_not(tmp_path: Path, stream: str) -> None:
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as store, log_on(url) as log:
        await log.append(put(stream))
        before = await records(store, stream), await log.snapshot(stream, limit=10)
        await store.config_set("maxmemory", "1")
        with pytest.raises(Unavailable, match="nothing was stored"):
            await log.append(put(stream, key="key"))
        with pytest.raises(StoreError):  # nor is a worker ready that cannot publish
            await log.store.ping()
        assert (await records(store, stream), await log.snapshot(stream, limit=10)) == before
        await store.config_set("maxmemory", "0")
        assert (await log.append(put(stream, key="key"))).n == 2


async def test_a_store_that_is_gone_is_unavailable(tmp_path: Path, stream: str) -> None:
    async with AsyncExitStack() as stack:
        async with embedded(tmp_path) as url:
            log = await stack.enter_async_context(log_on(url))
            cursor = (await log.append(put(stream))).cursor
        with pytest.raises(Unavailable) as refused:
            await log.append(put(stream, key="key"))
        assert int(refused.value.headers["Retry-After"]) > 0
        for read in (
            log.snapshot(stream, limit=1),
            log.resume(stream, cursor, limit=1, limit_bytes=10**6),
            Listing(log).streams(),
            log.store.ping(),
        ):
            with pytest.raises(StoreError):
                await read
        with pytest.raises(StoreError):
            await log.open_tail(model.partition_of(stream, 16))
        async with embedded(tmp_path):
            assert (await log.append(put(stream, key="key"))).n == 2


async def test_replicas_that_have_it_are_counted_and_those_that_have_not_are_not_claimed(
    pair: Watched, stream: str
) -> None:
    (replica,) = pair.replicas
    store = Store(pair.url, partitions=16, replicas=1)
    try:
        await store.check()
        log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
        append = entry_append(stream, "First", key="key")
        assert (await log.append(append)).durability == ("replica", 1)
        assert store.has_replicas()
        replica.freeze()
        try:
            second = entry_append(stream, "Second", key="second")
            assert (await log.append(second)).durability == ("memory", 0)
            # A repeat writes nothing, and asks nevertheless whether they have it by now.
            assert (await log.append(second)).durability == ("memory", 0)
            await store.ping()
            assert not store.has_replicas()
        finally:
            replica.thaw()
        # WAIT is about the writes of its own connection: without one it does not wait.
        until(lambda: pair.primary.ask("SET", "later", 1) and pair.primary.ask("WAIT", 1, 100) == 1)
        again = await log.append(second)
        assert (again.replayed, again.durability) == (True, ("replica", 1))
        first = await log.first_answer(stream, "key", append.body_hash)
        assert first
        assert first.durability == ("replica", 1)
    finally:
        await store.close()
