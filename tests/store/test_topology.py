"""Stores of one server, of several under Sentinels, of a cluster: which server has a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pushserver import model
from pushserver.access.keystore import KeyStore
from pushserver.errors import Unavailable
from pushserver.store.listing import Listing
from pushserver.store.log import Log
from pushserver.store.store import Store, StoreError
from pushserver.store.topology import LAST_SLOT, Cluster, Sentinels, Single, View, owners, topology_of

from ..support.answers import answering
from ..support.logs import log_key
from ..support.server import entry_append, until
from ..support.stores import NAME, REDIS, Server, cluster, watched

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
        assert {name for name, _ in await Listing(log).streams()} >= set(names)
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


# --- Sentinels that differ


async def located(store: Store) -> str:
    """The URL of the primary, as it is located now."""
    await store.locate()
    return (await store.node("{p00}:x")).url


STORES = [
    pytest.param("", id="valkey"),
    pytest.param(
        REDIS, id="redis", marks=[pytest.mark.full, pytest.mark.skipif(not REDIS, reason="redis is not installed")]
    ),
]


@pytest.mark.parametrize("binary", STORES)
async def test_a_failover_that_one_sentinel_does_not_show_is_followed(
    tmp_path: Path, stream: str, binary: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The Sentinel that leads it shows the old primary while a replica cannot follow the new one."""
    with watched(tmp_path, replicas=2, failover_timeout_ms=180_000, binary=binary) as pair:
        pair.let_nobody_follow()
        leader = pair.sentinels[0]  # the first one of the URL
        async with store_on(pair.url) as store:
            leader.ask("SENTINEL", "FAILOVER", NAME)
            pair.until_failed_over()
            state: Any = leader.client.sentinel_master(NAME, return_responses=True)
            assert state["port"] == pair.primary.port
            (promoted,) = [replica for replica in pair.replicas if replica.ask("ROLE")[0] == "master"]
            assert await located(store) == f"redis://worker:worker@127.0.0.1:{promoted.port}/0"
            assert (await log_of(store).append(entry_append(stream, "After"))).n == 1
            assert promoted.ask("XLEN", log_key(stream)) == 1
            promoted.ask("REPLICAOF", "127.0.0.1", pair.primary.port)  # behind the Sentinels' back
            with pytest.raises(StoreError, match="says that it is a replica"):
                await store.locate()
    assert "Unclosed" not in caplog.text


async def test_a_primary_that_is_left_under_replicas_leaves_no_connection_open(tmp_path: Path, stream: str) -> None:
    """A publish that is on its way then looks for its script first."""
    with watched(tmp_path) as pair:
        store = Store(pair.url, partitions=16, replicas=1)
        await store.check()
        pair.primary.freeze()
        publishes = [asyncio.create_task(log_of(store).append(entry_append(stream, "Never"))) for _ in range(5)]
        while not all(connection.is_connected for connection in await _in_use(store, len(publishes))):
            await asyncio.sleep(0)
        (node,) = await store.primaries()
        await node.close()
        for publish in publishes:
            with pytest.raises(Unavailable):
                await publish
        assert not node.redis.connection_pool._in_use_connections  # each was given back
        await store.close()


async def _in_use(store: Store, count: int) -> list[Any]:
    """The connections of a primary that requests have, once there are so many."""
    (node,) = await store.primaries()
    while len(connections := node.redis.connection_pool._in_use_connections) < count:
        await asyncio.sleep(0)
    return list(connections)


class Said(NamedTuple):
    """One Sentinel of a fake panel: its epoch, and the port that it names."""

    epoch: int
    port: int


@asynccontextmanager
async def sentinels(*said: Said | None, roles: dict[int, str] | None = None) -> AsyncIterator[Sentinels]:
    """Sentinels that say so, None for one that is silent; and servers that tell these roles, by the port named."""
    async with AsyncExitStack() as stack:
        ports: dict[int, int] = {}
        for port, role in (roles or {}).items():
            ports[port] = await stack.enter_async_context(answering({"ROLE": [role, "0", []]}))
        urls = {}
        for place, one in enumerate(said):
            answers = one and {
                "SENTINEL MASTER": ["name", "live", "port", "1", "config-epoch", str(one.epoch)],
                "SENTINEL GET-MASTER-ADDR-BY-NAME": ["127.0.0.1", str(ports.get(one.port, one.port))],
            }
            urls[str(place)] = f"redis://127.0.0.1:{await stack.enter_async_context(answering(answers))}"
        names = {f"127.0.0.1:{real}": port for port, real in ports.items()}
        topology = Sentinels(urls, "live", lambda address: f"redis://{address}?db={names.get(address, 0)}")
        stack.push_async_callback(topology.close)
        yield topology


@pytest.mark.parametrize(
    ("said", "roles", "primary"),
    [
        ([Said(1, 11), Said(1, 11), Said(1, 11)], {11: "master"}, 11),
        ([Said(1, 11), Said(2, 12), Said(1, 11)], {11: "master", 12: "master"}, 12),
        ([Said(2, 11), Said(2, 12), Said(2, 12)], {11: "master", 12: "master"}, 12),
        ([Said(2, 11), Said(2, 11), Said(2, 12)], {11: "slave", 12: "master"}, 12),
        ([None, Said(1, 11), Said(2, 12)], {11: "master", 12: "master"}, 12),
        ([None, None, Said(2, 12)], {12: "master"}, 12),
    ],
    ids=["agreed", "the latest", "the more", "a replica is none", "one is silent", "two are silent"],
)
async def test_sentinels_that_differ(
    said: list[Said | None], roles: dict[int, str], primary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.store.topology.ASK_TIMEOUT", 0.5)
    async with sentinels(*said, roles=roles) as topology:
        (shard,) = await topology.find()
        assert shard.url.endswith(f"?db={primary}")


async def test_a_primary_that_was_replaced_is_not_returned_to_while_the_next_one_is_a_replica_still() -> None:
    async with sentinels(Said(1, 11), Said(2, 12), Said(1, 11), roles={11: "master", 12: "slave"}) as topology:
        with pytest.raises(StoreError, match="says that it is a replica"):
            await topology.find()


# --- nodes of a cluster that differ


def view(*claims: tuple[int, int, int, str], replica: str = "") -> View:
    """A node's view; each claim is its epoch, first and last slot, and the node, which is its address too."""
    return View(replica, frozenset((*claim, claim[3]) for claim in claims), ())


WHOLE = (0, LAST_SLOT)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([view((1, *WHOLE, "a")), view((2, *WHOLE, "b"))], [(*WHOLE, "b")]),
        ([view((2, *WHOLE, "b")), view((1, *WHOLE, "a")), view((1, *WHOLE, "a"))], [(*WHOLE, "b")]),
        ([view((1, *WHOLE, "a")), view((1, *WHOLE, "b")), view((1, *WHOLE, "b"))], [(*WHOLE, "b")]),
        ([view((1, *WHOLE, "a"), (2, 5, 9, "b"))], [(0, 4, "a"), (5, 9, "b"), (10, LAST_SLOT, "a")]),
        ([view((1, 0, 9, "a")), view((1, 20, LAST_SLOT, "c"))], [(0, 9, "a"), (20, LAST_SLOT, "c")]),
        ([view((1, *WHOLE, "a")), view((1, *WHOLE, "a"), replica="a")], []),
        ([view((1, *WHOLE, "a")), view((2, *WHOLE, "b"), replica="b")], []),
        ([view((1, *WHOLE, "a")), view((2, *WHOLE, "b"), replica="a")], [(*WHOLE, "b")]),
        ([], []),
    ],
    ids=["the latest", "not the more", "the more of one epoch", "slots that moved", "a hole", "a replica is none",
         "nor who was before it", "the old primary follows", "nobody answers"],
)  # fmt: skip
def test_views_that_differ(views: list[View], expected: list[tuple[int, int, str]]) -> None:
    assert owners(views) == expected


async def test_a_slot_that_no_server_has_is_named(nodes: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    async with store_on(url_of(nodes)) as store:
        shards = [shard for shard in store._shards if not shard[0] <= 5_061 <= shard[1]]
        with monkeypatch.context() as patch:  # the store closes the connections of all its shards in the end
            patch.setattr(store, "_shards", shards)
            with pytest.raises(StoreError, match="no server has slot 5061, which is that of bar"):
                await store.node("bar")


@pytest.mark.full
async def test_a_failover_that_a_node_does_not_hear_of_is_followed(tmp_path: Path) -> None:
    """Nodes share the cluster's epoch, and one of them goes on naming the old primary, which is frozen."""
    with cluster(tmp_path, replicas=True) as servers:
        async with store_on(url_of(servers)) as store:
            old, promoted = servers[0], servers[3]
            old.freeze()
            promoted.ask("CLUSTER", "FAILOVER", "TAKEOVER")
            until(lambda: _is_primary(promoted))
            await store.locate()
            urls = {node.url for node in await store.primaries()}
            assert f"redis://127.0.0.1:{promoted.port}" in urls
            assert f"redis://127.0.0.1:{old.port}" not in urls


# --- why nobody answers


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"SENTINEL MASTER": "-ERR No such master with that name"}, "it watches no primary of that name"),
        ({"SENTINEL MASTER": "-ERR unknown command 'SENTINEL', with args beginning with: "}, "it is no Sentinel"),
        ({"SENTINEL MASTER": "-NOAUTH Authentication required."}, "it asks for a password, and the URL has none"),
        ({"SENTINEL MASTER": "-NOPERM User x has no permissions to run the 'sentinel|master' command"}, "permissions"),
        (None, "no answer in time|no answer within"),
    ],
)
async def test_the_cause_is_named_where_no_sentinel_answers(
    answers: dict[str, Any] | None, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pushserver.store.topology.ASK_TIMEOUT", 0.2)
    async with answering(answers) as port:
        topology = topology_of(f"redis+sentinel://127.0.0.1:{port}/live")
        for _ in range(2):
            with pytest.raises(StoreError, match=f"'live': 127.0.0.1:{port}: .*({expected})"):
                await topology.find()
        await topology.close()
    assert len(caplog.messages) == 1  # the same is logged once


async def test_a_wrong_password_of_the_sentinels_is_named_and_the_right_one_of_a_user_works(tmp_path: Path) -> None:
    with watched(tmp_path) as pair:
        for sentinel in pair.sentinels:
            sentinel.ask("ACL", "SETUSER", "asker", "on", ">p#s w@rd", "+@connection", "+sentinel")
            sentinel.ask("ACL", "SETUSER", "default", "-sentinel|master")
        for query, expected in [
            ("", "no permissions"),
            ("?sentinel_user=asker&sentinel_password=wrong", "does not accept the user or the password"),
        ]:
            store = Store(pair.url + query, partitions=16)
            with pytest.raises(StoreError, match=expected):
                await store.check()
            await store.close()
        async with store_on(f"{pair.url}?sentinel_user=asker&sentinel_password=p%23s%20w%40rd") as store:
            assert await located(store)
