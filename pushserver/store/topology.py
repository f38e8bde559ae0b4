"""Topology: the servers that a store is made of, and which of them is the primary of a key.

Only Sentinels or the cluster say which server is a primary now: a server that was replaced may not know it yet.

This is our own and not redis-py's. Its Sentinel client believes the first Sentinel that answers: one that was cut off
during a failover still names the former primary, and what is written there is lost when it rejoins as a replica. Its
cluster client likewise takes the slots from the first node that answers. Here every Sentinel, or every node, is asked,
and the epochs, which each failover raises, decide between answers that differ.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, RedisError

from ..errors import shorten
from .address import read_address
from .connection import OPTIONS, Node, hinted, within

logger = logging.getLogger(__name__)

ASK_TIMEOUT = 1.0  # seconds for a Sentinel, or a node of a cluster, to answer which servers are primaries
GRACE = 0.2  # seconds for the others, once more than half of them have answered; and for a primary to tell its role
NODES_ASKED = 16  # at most, beside those that the URL names
LAST_SLOT = 16_383
CAUSES_SHOWN = 5  # servers of which a message says why they do not answer


class Shard(NamedTuple):
    """A shard is the primary, by its URL, of the keys whose slots are `first` to `last`."""

    first: int
    last: int
    url: str


class Topology(Protocol):
    """Topology finds the primaries of a store."""

    async def find(self) -> list[Shard]:
        """Every slot's primary, as it is now; a slot that has none is in no shard. Raises StoreError."""

    async def close(self) -> None: ...


class Single:
    """Single is the topology of one server."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def find(self) -> list[Shard]:
        return [Shard(0, LAST_SLOT, self._url)]

    async def close(self) -> None:
        pass


class Sentinels:
    """Sentinels is the topology of one primary and its replicas: the Sentinel that saw the latest failover counts.

    The address is the one that a Sentinel gives to clients. The Sentinel that leads a failover shows the former primary
    in its own state (SENTINEL MASTER) until every replica follows the new one, or `failover-timeout` is over.
    """

    def __init__(self, urls: Mapping[str, str], name: str, url_of: Callable[[str], str]) -> None:
        self._panel = Panel("Sentinel", urls)
        self._name = name
        self._url_of = url_of  # a primary, by its address
        self._primary: tuple[str, aioredis.Redis] | None = None  # that was asked for its role, by its URL

    async def find(self) -> list[Shard]:
        answers = await self._panel.ask(self._answer)
        if not answers:
            raise ConnectionError(f"no Sentinel answers with the primary of {self._name!r}: {self._panel.causes()}")
        latest = max(epoch for epoch, _ in answers)
        # A lower epoch never counts: its primary was replaced, and may be alive, alone, and lose all that it stores.
        named = Counter(named for epoch, named in answers if epoch == latest)
        for named_address, _ in named.most_common():
            url = self._url_of(named_address)
            if not await self._is_replica(url):
                return [Shard(0, LAST_SLOT, url)]
        raise ConnectionError(f"{', '.join(named)}, which the Sentinels call the primary, says that it is a replica")

    async def _answer(self, client: aioredis.Redis, _: str) -> tuple[int, str]:
        """A Sentinel's epoch, and the address of the primary that it names to clients. Raises StoreError."""
        # The epoch is asked first: a failover between the two questions makes the answer count for less, not for more.
        state = await _execute(client, "SENTINEL", "MASTER", self._name)
        named = await _execute(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        if not named:
            raise ConnectionError(f"it knows no primary of the name {self._name!r}")
        return int(dict(zip(state[::2], state[1::2], strict=True))["config-epoch"]), _address(*named)

    async def _is_replica(self, url: str) -> bool:
        """Whether a server says so itself (ROLE). One that does not answer in time is none: a failover takes longer."""
        if self._primary is None or self._primary[0] != url:
            await self._forget()
            self._primary = url, _client(url)
        try:
            role = await within(_execute(self._primary[1], "ROLE"), GRACE)
        except (RedisError, OSError):
            return False
        return bool(role[0] != "master")

    async def _forget(self) -> None:
        if self._primary is not None:
            (_, client), self._primary = self._primary, None
            await client.aclose()

    async def close(self) -> None:
        await self._forget()
        await self._panel.close()


class View(NamedTuple):
    """A View is what one node of a cluster says: its own id if it is a replica, who claims slots, all addresses."""

    replica: str
    claims: frozenset[tuple[int, int, int, str, str]]  # (config epoch, first slot, last slot, node id, address)
    nodes: tuple[str, ...]


class Cluster:
    """Cluster is the topology of a Redis Cluster: of all claims to a slot the one of the highest config epoch counts.

    The epoch of the cluster as a whole does not decide: nodes learn it before they learn who has the slots now.
    """

    def __init__(self, addresses: Iterable[str], url_of: Callable[[str], str]) -> None:
        self._url_of = url_of  # a node, by its address
        self._named = tuple(addresses)
        self._panel = Panel("node", {address: url_of(address) for address in self._named})

    async def find(self) -> list[Shard]:
        views: list[View] = await self._panel.ask(self._view)
        if not views:
            raise ConnectionError(f"no node of the cluster answers that cluster_state is ok: {self._panel.causes()}")
        # All that the URL names may have been replaced one day.
        nodes = dict.fromkeys([*self._named, *[node for view in views for node in view.nodes][:NODES_ASKED]])
        await self._panel.become({node: self._url_of(node) for node in nodes})
        return [Shard(first, last, self._url_of(owner)) for first, last, owner in owners(views)]

    async def _view(self, client: aioredis.Redis, asked: str) -> View:
        """The view of one node. Raises StoreError, also where it does not call the cluster whole."""
        info = await client.cluster("INFO")
        if info["cluster_state"] != "ok":
            raise ConnectionError(f"cluster_state is {info['cluster_state']}")
        # The epochs are asked first, as Sentinels are for theirs.
        lines = [line.split() for line in (await _execute(client, "CLUSTER", "NODES")).splitlines()]
        epochs = {words[0]: int(words[6]) for words in lines}
        replica = next((words[0] for words in lines if {"myself", "slave"} <= set(words[2].split(","))), "")
        claims, nodes = set(), []
        for first, last, *members in await _execute(client, "CLUSTER", "SLOTS"):
            # A node that does not know its own address leaves it empty: it is the one by which the node was asked.
            addresses = [_address(host or asked.rpartition(":")[0], port) for host, port, *_ in members]
            owner = members[0][2]
            claims.add((epochs.get(owner, -1), first, last, owner, addresses[0]))
            nodes += addresses
        return View(replica, frozenset(claims), tuple(nodes))

    async def close(self) -> None:
        await self._panel.close()


def owners(views: Iterable[View]) -> list[tuple[int, int, str]]:
    """The first slot, the last slot and the address of every primary, by the views of some nodes.

    A node that says of itself that it is a replica has no slots, and nor has anybody whose claim to them is older: the
    newer one, which is not known yet, will count.
    """
    views = tuple(views)
    replicas = {view.replica for view in views}
    owner = [""] * (LAST_SLOT + 1)
    said = Counter(claim for view in views for claim in view.claims)
    for (_, first, last, node, address), _ in sorted(said.items(), key=lambda item: (item[0][0], item[1])):
        owner[first : last + 1] = ["" if node in replicas else address] * (last + 1 - first)
    shards, first = [], 0
    for name, slots in groupby(owner):
        last = first + sum(1 for _ in slots) - 1
        if name:
            shards.append((first, last, name))
        first = last + 1
    return shards


class Panel:
    """A Panel is the servers that are asked for the topology, by their addresses, and why some do not answer."""

    def __init__(self, kind: str, urls: Mapping[str, str]) -> None:
        self._kind = kind
        self._urls = dict(urls)
        self._clients = {address: _client(url) for address, url in urls.items()}
        self._causes: dict[str, str] = {}

    async def ask(self, question: Callable[[aioredis.Redis, str], Coroutine[Any, Any, Any]]) -> list[Any]:
        """The answers that come in time. A server that fails or does not answer is left out, and logged once."""
        tasks = {
            address: asyncio.create_task(within(question(client, address), ASK_TIMEOUT))
            for address, client in self._clients.items()
        }
        try:
            await _most(set(tasks.values()))
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        causes = {address: _failure(task, self._urls[address]) for address, task in tasks.items()}
        self._note({address: cause for address, cause in causes.items() if cause})
        return [task.result() for address, task in tasks.items() if not causes[address]]

    def _note(self, causes: dict[str, str]) -> None:
        for address, cause in causes.items():
            if self._causes.get(address) != cause:
                logger.warning("%s %s does not say which server is the primary: %s", self._kind, address, cause)
        self._causes = causes

    def causes(self) -> str:
        """Why servers did not answer, for a message."""
        shown = [f"{address}: {cause}" for address, cause in self._causes.items()]
        return "; ".join([*shown[:CAUSES_SHOWN], *(["…"] if len(shown) > CAUSES_SHOWN else [])])

    async def become(self, urls: Mapping[str, str]) -> None:
        """Ask these servers from now on."""
        self._urls = dict(urls)
        for address in urls.keys() - self._clients.keys():
            self._clients[address] = _client(urls[address])
        for address in self._clients.keys() - urls.keys():
            await self._clients.pop(address).aclose()

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


def topology_of(url: str) -> Topology:
    """The topology that a URL describes. Raises ValueError for a URL that it cannot read."""
    store = read_address(url)
    Node(store.server(store.hosts[0])).check()
    if store.kind == "single":
        return Single(store.server(store.hosts[0]))
    if store.kind == "cluster":
        return Cluster(store.hosts, store.server)
    return Sentinels({host: store.sentinel(host) for host in store.hosts}, store.path, store.server)


async def _most(pending: set[asyncio.Task[Any]]) -> None:
    """Wait until all are done; GRACE longer than it takes until more than half have an answer.

    Most Sentinels, and most nodes, decide on a failover. Those that were lost with the former primary are not waited
    for: they would delay each look, and with it the move to the next primary.
    """
    most, answered = len(pending) // 2 + 1, 0
    while pending and answered < most:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        answered += sum(task.exception() is None for task in done)
    if pending:
        await asyncio.wait(pending, timeout=GRACE)


def _failure(task: asyncio.Task[Any], url: str) -> str:
    """Why the server of a URL did not answer; nothing where it was. Raises what is a fault of this program."""
    if task.cancelled():
        return "no answer in time"
    error = task.exception()
    if error is not None and not isinstance(error, RedisError | OSError):
        raise error
    return shorten(hinted(url, error)) if error else ""


def _client(url: str) -> aioredis.Redis:
    return aioredis.Redis.from_url(url, **{**OPTIONS, "decode_responses": True})


def _execute(client: aioredis.Redis, *words: str) -> Coroutine[Any, Any, Any]:
    command: Coroutine[Any, Any, Any] = client.execute_command(*words)  # type: ignore[no-untyped-call]
    return command


def _address(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
