"""The connections to one server of the store: a pool that requests share, and connections for commands that block.

redis-py's own retries are off: it would send a publish a second time, which could store it twice, and would repeat a
blocking read without a sign that the first one never returned. Limits in time are set by `within`, for its own reason.
"""

from __future__ import annotations

import asyncio
import builtins
import re
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import (
    AskError,
    ConnectionError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from .. import metrics

READS = 4  # connections to a server for scripts that only read; more at a time go by way of the pool
CONNECTIONS = 64  # in a server's pool; a request that finds none free waits a second, then is answered 503
COMMAND_TIMEOUT = 5.0  # seconds
CLOCK_SAMPLES = 16  # answers, one every two seconds, of which the clock of a server is estimated
QUIET = 5.0  # seconds without a message after which a subscription's connection is checked with PING
LEFT = "the server is no longer the primary"
OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,  # see `within`
    "socket_connect_timeout": COMMAND_TIMEOUT,
}
CAUSES = {  # of a connection that fails, by what the server or OpenSSL says
    "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE": "it asks for a client certificate: set ssl_certfile and ssl_keyfile",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted; ssl_ca_certs names the file with the authority's",
    "UNKNOWN_CA|ALERT_DECRYPT_ERROR|ALERT_.*CERTIFICATE": "it does not accept the client certificate of ssl_certfile",
    "WRONG_VERSION_NUMBER|RECORD_LAYER": "it does not speak TLS: expected a scheme without it, such as redis://",
    "invalid username-password|invalid password": "it does not accept the user or the password",
    "Authentication required": "it asks for a password, and the URL has none",
    "without any password configured": "it has no password, and the URL has one",
    "unknown command '?SENTINEL": "it is no Sentinel",
    "unknown command '?CLUSTER|cluster support disabled": "it is not of a cluster",
    "No such master with that name": "it watches no primary of that name",
}
# How redis-py words the error of one command of several. It repeats the command, in which somebody's text may stand.
PIPELINED = re.compile(r"^Command # [0-9]+ \(.*\) of pipeline caused error: \(['\"](.*)['\"],\)$", re.DOTALL)

T = TypeVar("T")


async def within(command: Awaitable[T], limit: float = COMMAND_TIMEOUT) -> T:
    """Await a command for `limit` seconds at most. Raises redis-py's TimeoutError.

    redis-py would use `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation: the task that was cancelled
    goes on.
    """
    try:
        async with asyncio.timeout(limit):
            return await command
    except builtins.TimeoutError:
        metrics.STORE_FAILED.inc("timeout")
        raise TimeoutError(f"no answer within {limit} s") from None
    except RedisError as error:
        metrics.STORE_FAILED.inc(_cause(error))
        error.args = (worded(error),)
        raise


def _cause(error: RedisError) -> str:
    """The cause of a command that failed, as metrics name it."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, ConnectionError) else "refused"


def worded(error: BaseException) -> str:
    """An error of the store in plain words; the name of its kind if it has none."""
    if isinstance(error, MovedError):
        return f"slot {error.slot_id} has moved to {error.host}:{error.port} (MOVED)"
    if isinstance(error, AskError):
        return f"slot {error.slot_id} is moving to {error.host}:{error.port}, and this key may be there (ASK)"
    if isinstance(error, TryAgainError):
        return "the slot is moving, and some of its keys are on another server (TRYAGAIN)"
    said = PIPELINED.sub(r"\1", str(error))
    for pattern, cause in CAUSES.items():
        if re.search(pattern, said) and cause not in said:
            return f"{cause} ({said})"
    return said or type(error).__name__


def hinted(url: str, error: BaseException) -> str:
    """An error in plain words; with TLS, also what it may mean that a server went away without a word.

    OpenSSL does not show the server's alert if the connection was reset before it was read.
    """
    said = worded(error)
    if url.startswith("rediss") and re.search("reset by peer|[Bb]roken pipe|closed", said):
        return f"it may ask for a client certificate, or not accept that of ssl_certfile ({said})"
    return said


class StoreClock:
    """StoreClock estimates how far a server's clock is ahead of ours.

    Each answer with the server's time is between two instants of ours; of the last ones, the fastest is the most exact.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=CLOCK_SAMPLES)  # (round trip, ahead), milliseconds

    def note(self, before: float, its: float, after: float) -> None:
        """Note a server's time, and ours before and after it was asked, in milliseconds since 1970."""
        self._samples.append((max(0.0, after - before), its - (before + after) / 2))

    @property
    def ahead_ms(self) -> float:
        """The milliseconds by which the server's clock is ahead; 0 before the first answer."""
        return min(self._samples)[1] if self._samples else 0.0


class Pool(aioredis.BlockingConnectionPool):
    """Pool has no open connection after `close`: its server may go on answering, and no longer be the primary.

    redis-py would connect again for the next command, and carry out one whose connection was being made meanwhile. A
    publish would be acknowledged that no tail reads, and that is lost when the server becomes a replica.
    """

    is_closed = False

    def make_connection(self) -> AbstractConnection:
        """A connection that is not open yet, and is never open after `close`."""
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        connection.register_connect_callback(self._refuse_late)  # type: ignore[no-untyped-call]
        return connection

    async def _refuse_late(self, connection: AbstractConnection) -> None:
        """Close a connection that was opened too late. Raises ConnectionError."""
        if self.is_closed:
            await connection.disconnect(nowait=True)
            raise ConnectionError(LEFT)

    async def close(self) -> None:
        """Close every connection, those in use included."""
        self.is_closed = True
        # redis-py's `disconnect` lets other tasks go first: one of them would send its command.
        for connection in (*self._available_connections, *self._in_use_connections):
            await connection.disconnect(nowait=True)


class Node:
    """A node is one server of the store: its pool, and the connections that were opened for blocking commands."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = Pool.from_url(url, max_connections=CONNECTIONS, timeout=1, **OPTIONS)
        self.redis = aioredis.Redis(connection_pool=self._pool)
        self.durability = "memory"  # until `Store.ping` has verified more
        self.clock = StoreClock()
        self.replicas = 0  # that acknowledged the last write for which they were asked
        self.reads = Reads(self)
        self._own: set[AbstractConnection] = set()
        self.is_closed = False

    def check(self) -> None:
        """Read the files of TLS. Raises ValueError for options of the URL that redis-py or OpenSSL does not accept."""
        try:
            connection: Any = self._pool.make_connection()
            context = getattr(connection, "ssl_context", None)
            if context is not None:
                context.get()
        except (TypeError, ValueError, RedisError, OSError) as error:
            raise ValueError(f"expected options of the URL that fit its scheme and each other, got {error}") from None

    async def connect(self) -> AbstractConnection:
        """Open a connection outside the pool, for the caller to `disconnect`. Raises StoreError.

        None is opened after `close`: the server may go on answering, and no longer be the primary.
        """
        if self.is_closed:
            raise ConnectionError(LEFT)
        connection = self._pool.make_connection()
        self._own.add(connection)
        try:
            # redis-py limits the TCP connect, but not the AUTH and SELECT after it: a silent server would hang here.
            await within(connection.connect())  # type: ignore[no-untyped-call]
        except BaseException:
            await self.disconnect(connection)
            raise
        return connection

    async def disconnect(self, connection: AbstractConnection) -> None:
        """Close a connection that `connect` opened."""
        self._own.discard(connection)
        await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close every connection. A command that waits for its answer fails with StoreError."""
        self.is_closed = True
        await self._pool.close()
        for connection in tuple(self._own):
            await self.disconnect(connection)


async def exchange(connection: AbstractConnection, packed: bytes) -> Any:
    """Send a command and await its answer. Raises StoreError, also where the connection was closed."""
    # redis-py would connect again: a tail would go on with a server that is no longer the primary, and a subscription
    # would wait for messages that nobody sends to it.
    if not connection.is_connected:
        raise ConnectionError("the connection to the store was closed")
    await connection.send_packed_command([packed])
    return await connection.read_response()


class Reads:
    """Reads runs scripts that only read, each on a connection that no other command uses meanwhile.

    redis-py's pool costs a worker several times what such a script does, and page loads look at the store hundreds of
    times a second.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._idle: list[AbstractConnection] = []
        self._count = 0  # of open connections

    async def run(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The answer of a script. Raises StoreError."""
        if not self._idle and self._count >= READS:
            return await script(keys, arguments, client=self._node.redis)
        packed: Any = hiredis.pack_command(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        try:
            return await self._run(packed)
        except (NoScriptError, ConnectionError):
            # The server has just started, and redis-py sends it the script; or it takes no new connection, as when its
            # unix socket was deleted, and the pool may have one that is open.
            if self._node.is_closed:
                raise
            return await script(keys, arguments, client=self._node.redis)

    async def _run(self, packed: bytes) -> Any:
        while self._idle:
            # It may have been closed since; a read may be sent again.
            with suppress(ConnectionError):
                return await self._use(self._idle.pop(), packed)
        self._count += 1
        try:
            connection = await self._node.connect()
        except BaseException:
            self._count -= 1
            raise
        return await self._use(connection, packed)

    async def _use(self, connection: AbstractConnection, packed: bytes) -> Any:
        try:
            answer = await exchange(connection, packed)
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:  # its answer may still come, and would be taken for that of the next read
            await self._drop(connection)
            raise
        self._idle.append(connection)
        return answer

    async def _drop(self, connection: AbstractConnection) -> None:
        self._count -= 1
        await self._node.disconnect(connection)


class BlockingConnection:
    """A blocking connection is one that a single caller uses, for commands that wait in the store."""

    client_id: int

    def __init__(self, node: Node, connection: AbstractConnection) -> None:
        self._node = node
        self._connection = connection

    @classmethod
    async def open(cls, node: Node) -> BlockingConnection:
        """Connect to a node, and learn the client id by which `unblock` names the connection. Raises StoreError."""
        connection = cls(node, await node.connect())
        try:
            connection.client_id = int(await connection.execute("CLIENT", "ID"))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def execute(self, *command: str | bytes | int) -> Any:
        """Send a command and await its answer. Raises StoreError, also where the node was closed meanwhile."""
        return await within(self._execute(command))

    async def _execute(self, command: tuple[str | bytes | int, ...]) -> Any:
        # A tail's XREAD names every followed stream: redis-py's own packing, in Python, takes several times as long.
        return await exchange(self._connection, hiredis.pack_command(command))  # type: ignore[arg-type]

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to sharded channels of one hash slot. Raises StoreError."""
        await self.execute("SSUBSCRIBE", *channels)
        for _ in channels[1:]:  # the server confirms each channel by itself
            await within(self._connection.read_response())

    async def next_message(self) -> Any:
        """The next message of a subscription; None after QUIET seconds without one. Raises StoreError."""
        try:
            async with asyncio.timeout(QUIET):
                # By default redis-py disconnects when a read is cancelled, and reconnects without the subscription:
                # the next read would wait for messages that nobody sends to it.
                return await self._connection.read_response(disconnect_on_error=False)
        except builtins.TimeoutError:
            return None

    async def unblock(self) -> None:
        """Make the blocked command return now (CLIENT UNBLOCK). Where none is blocked, nothing happens."""
        await within(self._node.redis.client_unblock(self.client_id))

    async def close(self) -> None:
        await self._node.disconnect(self._connection)


class Channels:
    """Channels are a subscription to sharded channels of the store, read one message at a time."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection

    async def read(self) -> bytes | None:
        """The next message; None where none came for QUIET seconds and the store answers PING. Raises StoreError."""
        reply = await self._connection.next_message() or await self._connection.execute("PING")
        if reply[0] == b"sunsubscribe":
            raise ConnectionError("the slot of the channels has moved to another server")
        return reply[2] if reply[0] == b"smessage" else None  # else it is the answer to PING
