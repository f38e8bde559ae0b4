"""The servers that a store is made of, and which of them is the primary of a key: told by one URL.

    redis://host:6379/0                               one server; rediss:// with TLS, unix:///path
    redis+sentinel://host:26379,host:26379/name/0     the primary that Sentinels watch under a name
    redis+cluster://host:6379,host:6379               a cluster, by some of its nodes

A primary is only ever what Sentinels or the cluster say now: who was one may not know yet that it is one no more.
"""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, TimeoutError

CONNECTIONS = 64  # of the pool that requests share; one more request waits a second, then is told 503
COMMAND_TIMEOUT = 5.0
ASK_TIMEOUT = 1.0  # seconds for a Sentinel, or a node of a cluster, to say who is primary
NODES_ASKED = 16  # at most, beside those that the URL names
LAST_SLOT = 16_383
OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,  # see `within`
    "socket_connect_timeout": COMMAND_TIMEOUT,
}

T = TypeVar("T")


async def within(command: Awaitable[T], limit: float = COMMAND_TIMEOUT) -> T:
    """Await a command for so long at most. Raises TimeoutError, of redis.

    redis-py would use `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation: a task that was told to end
    goes on.
    """
    try:
        async with asyncio.timeout(limit):
            return await command
    except builtins.TimeoutError:
        raise TimeoutError(f"no answer within {limit} s") from None


class Node:
    """A server: the connections that requests share, and those that somebody has for himself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = aioredis.BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=1, **OPTIONS)
        self.redis = aioredis.Redis(connection_pool=self._pool)
        self.durability = "memory"  # until more was verified
        self.replicas = 0  # that kept up, when they were asked last
        self._own: set[AbstractConnection] = set()

    async def connect(self) -> AbstractConnection:
        """A connection of one's own, to be given back to `disconnect`; it ends with the node. Raises StoreError."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._own.add(connection)
        try:
            # redis-py limits how long it takes to connect, but not what it asks the server for then.
            await within(connection.connect())  # type: ignore[no-untyped-call]
        except BaseException:
            await self.disconnect(connection)
            raise
        return connection

    async def disconnect(self, connection: AbstractConnection) -> None:
        self._own.discard(connection)
        await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """End every connection: who waits for an answer hears that none comes."""
        for connection in tuple(self._own):
            await self.disconnect(connection)
        await self._pool.disconnect(inuse_connections=True)


class Shard(NamedTuple):
    """The primary of the keys whose slot is from `first` to `last`."""

    first: int
    last: int
    url: str


class Topology(Protocol):
    """How to find out which primaries there are."""

    async def find(self) -> list[Shard]:
        """Every slot's primary, as it is now. Raises StoreError where nobody can say."""

    async def close(self) -> None: ...


class Single:
    """One server, for good."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def find(self) -> list[Shard]:
        return [Shard(0, LAST_SLOT, self._url)]

    async def close(self) -> None:
        pass


class Sentinels:
    """The primary of a name, as the Sentinel says who has seen the latest failover."""

    def __init__(self, urls: Iterable[str], name: str, url_of: Callable[[str], str]) -> None:
        self._clients = [_client(url) for url in urls]
        self._name = name
        self._url_of = url_of  # a primary, by its address

    async def find(self) -> list[Shard]:
        answers = await _ask_all(client.sentinel_master(self._name, return_responses=True) for client in self._clients)
        if not answers:
            raise ConnectionError(f"no Sentinel knows the primary of {self._name!r}")
        found = max(answers, key=lambda answer: int(answer["config-epoch"]))
        return [Shard(0, LAST_SLOT, self._url_of(_address(found["ip"], found["port"])))]

    async def close(self) -> None:
        await _close_all(self._clients)


class Cluster:
    """The primaries of a cluster, as the node says that knows its latest change."""

    def __init__(self, addresses: Iterable[str], url_of: Callable[[str], str]) -> None:
        self._url_of = url_of  # a node, by its address
        self._named = tuple(addresses)
        self._clients = {address: _client(url_of(address)) for address in self._named}

    async def find(self) -> list[Shard]:
        asked = tuple(self._clients)
        views = await _ask_all(self._view(address) for address in asked)
        if not views:
            raise ConnectionError("no node of the cluster says that it is whole")
        latest: tuple[int, list[Shard], list[str]] = max(views)
        _, shards, nodes = latest
        await self._know(nodes)
        return shards

    async def _view(self, address: str) -> tuple[int, list[Shard], list[str]]:
        """The epoch, the shards and the addresses of all nodes, as this one sees them. Raises StoreError."""
        client = self._clients[address]
        info = await client.cluster("INFO")
        if info["cluster_state"] != "ok":
            raise ConnectionError(f"{address} says that the cluster is {info['cluster_state']}")
        shards, nodes = [], []
        for first, last, *members in await client.execute_command("CLUSTER", "SLOTS"):  # type: ignore[no-untyped-call]
            # A node that does not know its own address leaves it out.
            found = [_address(host or address.rpartition(":")[0], port) for host, port, *_ in members]
            shards.append(Shard(first, last, self._url_of(found[0])))
            nodes += found
        return int(info["cluster_current_epoch"]), sorted(shards), nodes

    async def _know(self, nodes: list[str]) -> None:
        """Ask these too the next time: those that the URL names may all be gone one day."""
        known = dict.fromkeys([*self._named, *nodes[:NODES_ASKED]])
        for address in known.keys() - self._clients.keys():
            self._clients[address] = _client(self._url_of(address))
        await _close_all([self._clients.pop(address) for address in self._clients.keys() - known.keys()])

    async def close(self) -> None:
        await _close_all(self._clients.values())


def topology_of(url: str) -> Topology:
    """What a URL describes. Raises ValueError."""
    parts = urlsplit(url)
    kind = re.fullmatch(r"(rediss?)\+(sentinel|cluster)", parts.scheme)
    if not kind:
        Node(url)  # raises where it cannot be read
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
            raise ValueError(f"expected no database, which a cluster has not, got {parts.path!r}")
        return Cluster(addresses, lambda address: f"{scheme}://{at}{address}{rest}")
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("expected the primary's name after the Sentinels, as /name, got none")
    own = f":{sentinel_password}@" if sentinel_password else ""
    sentinels = [f"{scheme}://{own}{address}{rest}" for address in addresses]
    return Sentinels(sentinels, name, lambda address: f"{scheme}://{at}{address}/{database or '0'}{rest}")


def _client(url: str) -> aioredis.Redis:
    return aioredis.Redis.from_url(url, **{**OPTIONS, "decode_responses": True})


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _ask_all(questions: Iterable[Awaitable[Any]]) -> list[Any]:
    """The answers that come in time; who is away, or does not know, is left out."""
    asked = (within(question, ASK_TIMEOUT) for question in questions)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, RedisError | OSError):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _close_all(clients: Iterable[aioredis.Redis]) -> None:
    for client in tuple(clients):
        await client.aclose()
