"""Topology: the servers that a store is made of, and which of them is the primary of a key, by the store's URL.

    redis://host:6379/0                               one server; rediss:// with TLS, unix:///path
    redis+sentinel://host:26379,host:26379/name/0     the primary that Sentinels watch under a name
    redis+cluster://host:6379,host:6379               a cluster, by some of its nodes

Only Sentinels or the cluster say which server is a primary now: a server that was replaced may not know it yet.

This is our own and not redis-py's. Its Sentinel client believes the first Sentinel that answers: one that was cut off
during a failover still names the former primary, and what is written there is lost when it rejoins as a replica. Here
every Sentinel is asked, and the answer with the highest config-epoch, which each failover raises, counts. Its cluster
client likewise takes the slots from the first node that answers; here the highest current epoch counts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, RedisError

from .connection import OPTIONS, Node, within

ASK_TIMEOUT = 1.0  # seconds for a Sentinel, or a node of a cluster, to answer which servers are primaries
NODES_ASKED = 16  # at most, beside those that the URL names
LAST_SLOT = 16_383


class Shard(NamedTuple):
    """A shard is the primary, by its URL, of the keys whose slots are `first` to `last`."""

    first: int
    last: int
    url: str


class Topology(Protocol):
    """Topology finds the primaries of a store."""

    async def find(self) -> list[Shard]:
        """Every slot's primary, as it is now. Raises StoreError where no server answers that."""

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
    """Sentinels is the topology of one primary and its replicas: the Sentinel that saw the latest failover counts."""

    def __init__(self, urls: Iterable[str], name: str, url_of: Callable[[str], str]) -> None:
        self._clients = [_client(url) for url in urls]
        self._name = name
        self._url_of = url_of  # a primary, by its address

    async def find(self) -> list[Shard]:
        answers = await _ask_all(client.sentinel_master(self._name, return_responses=True) for client in self._clients)
        if not answers:
            raise ConnectionError(f"no Sentinel answers with the primary of {self._name!r}")
        latest = max(answers, key=lambda answer: int(answer["config-epoch"]))
        return [Shard(0, LAST_SLOT, self._url_of(_address(latest["ip"], latest["port"])))]

    async def close(self) -> None:
        await _close_all(self._clients)


class Cluster:
    """Cluster is the topology of a Redis Cluster: the node that saw its latest change counts."""

    def __init__(self, addresses: Iterable[str], url_of: Callable[[str], str]) -> None:
        self._url_of = url_of  # a node, by its address
        self._named = tuple(addresses)
        self._clients = {address: _client(url_of(address)) for address in self._named}

    async def find(self) -> list[Shard]:
        asked = tuple(self._clients)
        views = await _ask_all(self._view(address) for address in asked)
        if not views:
            raise ConnectionError("no node of the cluster answers that cluster_state is ok")
        latest: tuple[int, list[Shard], list[str]] = max(views)
        _, shards, nodes = latest
        await self._learn(nodes)
        return shards

    async def _view(self, address: str) -> tuple[int, list[Shard], list[str]]:
        """The current epoch, the shards and the addresses of all nodes, as one node sees them. Raises StoreError."""
        client = self._clients[address]
        info = await client.cluster("INFO")
        if info["cluster_state"] != "ok":
            raise ConnectionError(f"{address} answers that cluster_state is {info['cluster_state']}")
        shards, nodes = [], []
        for first, last, *members in await client.execute_command("CLUSTER", "SLOTS"):  # type: ignore[no-untyped-call]
            # A node that does not know its own address leaves it empty: it is the one by which the node was asked.
            addresses = [_address(host or address.rpartition(":")[0], port) for host, port, *_ in members]
            shards.append(Shard(first, last, self._url_of(addresses[0])))
            nodes += addresses
        return int(info["cluster_current_epoch"]), sorted(shards), nodes

    async def _learn(self, nodes: list[str]) -> None:
        """Ask these nodes too from now on: all that the URL names may have been replaced one day."""
        known = dict.fromkeys([*self._named, *nodes[:NODES_ASKED]])
        for address in known.keys() - self._clients.keys():
            self._clients[address] = _client(self._url_of(address))
        await _close_all([self._clients.pop(address) for address in self._clients.keys() - known.keys()])

    async def close(self) -> None:
        await _close_all(self._clients.values())


def topology_of(url: str) -> Topology:
    """The topology that a URL describes. Raises ValueError for a URL that it cannot read."""
    parts = urlsplit(url)
    kind = re.fullmatch(r"(rediss?)\+(sentinel|cluster)", parts.scheme)
    if not kind:
        Node(url)  # redis-py raises ValueError for a URL that it cannot read
        return Single(url)
    user, _, hosts = parts.netloc.rpartition("@")
    addresses = hosts.split(",")
    for address in addresses:
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]/]+):[0-9]{1,5}", address):
            raise ValueError(f"expected host:port,host:port, got {hosts!r}")
    scheme, at = kind[1], f"{user}@" if user else ""
    query = dict(parse_qsl(parts.query))
    sentinel_password = query.pop("sentinel_password", "")
    rest = f"?{urlencode(query)}" if query else ""
    if kind[2] == "cluster":
        if parts.path not in ("", "/", "/0"):
            raise ValueError(f"expected no database, since a cluster has only database 0, got {parts.path!r}")
        return Cluster(addresses, lambda address: f"{scheme}://{at}{address}{rest}")
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("expected the name of the primary after the Sentinels, such as /name, got none")
    own = f":{sentinel_password}@" if sentinel_password else ""
    sentinels = [f"{scheme}://{own}{address}{rest}" for address in addresses]
    return Sentinels(sentinels, name, lambda address: f"{scheme}://{at}{address}/{database or '0'}{rest}")


def _client(url: str) -> aioredis.Redis:
    return aioredis.Redis.from_url(url, **{**OPTIONS, "decode_responses": True})


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _ask_all(questions: Iterable[Awaitable[Any]]) -> list[Any]:
    """The answers that come within ASK_TIMEOUT; a server that fails or does not answer is left out."""
    asked = (within(question, ASK_TIMEOUT) for question in questions)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, RedisError | OSError):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _close_all(clients: Iterable[aioredis.Redis]) -> None:
    for client in tuple(clients):
        await client.aclose()
