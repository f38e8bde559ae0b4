"""Stores of one server, of several under Sentinels, of a cluster: which server has a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pushserver import model
from pushserver.access.keystore import KeyStore
from pushserver.store.log import Log
from pushserver.store.store import Store, StoreError
from pushserver.store.topology import Cluster, Sentinels, Single, topology_of

from ..support.server import entry_append, until
from ..support.stores import Server, cluster

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@asynccontextmanager
async def store_on(url: str) -> AsyncIterator[Store]:
    store = Store(url, partitions=16)
    try:
        await store.check()
        yield store
    finally:
        await store.close()


def log_of(store: Store) -> Log:
    return Log(store, log_events=1_000, entry_limit=500, idempotency=60)


def url_of(servers: list[Server]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


# --- the URL


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:6379/0", Single),
        ("rediss://user:secret@store.example:6380/3", Single),
        ("unix:///run/valkey.sock", Single),
        ("redis+sentinel://one:26379,two:26379,[::1]:26379/live", Sentinels),
        ("rediss+sentinel://user:se{cr}et@one:26379/live/2?sentinel_password=other", Sentinels),
        ("redis+cluster://one:6379,two:6379", Cluster),
        ("redis+cluster://user:secret@one:6379/0", Cluster),
    ],
)
async def test_a_url_says_what_the_store_is_made_of(url: str, kind: type) -> None:
    topology = topology_of(url)
    assert type(topology) is kind
    await topology.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:6379", "scheme"),
        ("redis+sentinel://one:26379", "name"),
        ("redis+sentinel://one,two:26379/live", "host:port"),
        ("redis+cluster://one:6379/1", "no database"),
        ("redis+cluster://", "host:port"),
    ],
)
def test_a_url_that_describes_no_store_is_refused(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Store(url, partitions=16)


# --- several servers


async def test_a_cluster_has_each_partition_in_one_place(nodes: list[Server], stream: str) -> None:
    async with store_on(url_of(nodes[:1])) as store:
        spread = await store.primaries()
        assert {node.url for node in spread} == {f"redis://127.0.0.1:{server.port}" for server in nodes}
        assert sorted(number for partitions in spread.values() for number in partitions) == list(range(16))
        log = log_of(store)
        names = [f"{stream}-{number}" for number in range(12)]
        cursors = {name: (await log.append(entry_append(name, "First"))).cursor for name in names}
        assert len({model.partition_of(name, 16) for name in names}) > 3
        for name in names:
            second = await log.append(entry_append(name, "Second"))
            resumed = await log.resume(name, cursors[name], limit=10, limit_bytes=10**6)
            assert [event.cursor for event in resumed.events] == [second.cursor]
        assert {name for name, _ in await log.streams()} >= set(names)
        keys = KeyStore(store)
        await keys.add("k1", {"name": "desk"})
        assert await keys.get("k1") == {"name": "desk"}


async def test_workers_talk_to_each_other_through_a_cluster(nodes: list[Server]) -> None:
    async with store_on(url_of(nodes)) as store, store.channels("{p00}:asked", "{p00}:told:me") as channels:
        assert await store.publish("{p00}:told:me", "hello") == 1
        assert await channels.read() == b"hello"


async def test_a_slot_that_moves_is_followed(nodes: list[Server], stream: str) -> None:
    """What is asked of the server that had it is answered by the one that has it."""
    async with store_on(url_of(nodes)) as store:
        log = log_of(store)
        partition = model.partition_of(stream, 16)
        cursor = (await log.append(entry_append(stream, "Before"))).cursor
        source = await store.node(model.tag(partition))
        there = next(server for server in nodes if source.url.endswith(f":{server.port}"))
        other = next(server for server in nodes if server is not there)
        slot = int(there.ask("CLUSTER", "KEYSLOT", model.tag(partition)))
        tail = await log.open_tail(partition)
        reading = asyncio.create_task(tail.read({stream: cursor.id}))
        moving = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", other.ask("CLUSTER", "MYID"))
        await asyncio.to_thread(there.ask, *moving)
        with pytest.raises(StoreError):  # the tail is told, and looks where the log is now
            while not await reading:
                reading = asyncio.create_task(tail.read({stream: cursor.id}))
        await tail.close()
        second = await log.append(entry_append(stream, "After"))
        assert second.n == 2
        assert (await store.node(model.tag(partition))).url == f"redis://127.0.0.1:{other.port}"
        tail = await log.open_tail(partition)
        ((_, _, events),) = await tail.read({stream: cursor.id})
        assert [event.cursor for event in events] == [second.cursor]
        await tail.close()


async def test_a_cluster_is_found_by_the_nodes_it_named_itself(tmp_path: Path) -> None:
    with cluster(tmp_path, replicas=True) as servers:
        async with store_on(url_of(servers[:1])) as store:
            servers[0].kill()
            until(lambda: servers[1].ask("CLUSTER INFO")["cluster_state"] == "ok" and _is_primary(servers[3]))
            await store.locate()
            assert f"redis://127.0.0.1:{servers[3].port}" in {node.url for node in await store.primaries()}
            await store.ping()


def _is_primary(server: Server) -> bool:
    return bool(server.info("replication")["role"] == "master")


async def test_nothing_is_found_where_no_sentinel_is(unused_url: str) -> None:
    address = unused_url.removeprefix("http://")
    store = Store(f"redis+sentinel://{address}/live", partitions=16)
    with pytest.raises(StoreError, match="live"):
        await store.ping()
    await store.close()
