"""The store as a worker meets it: commands that take time to get there and back, or never do.

`Server` is the store's process behind its network, `Line` one worker's way to it: the shipped `Store` and `Node`, with
another client and other connections underneath.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError, ResponseError

from pushserver.store.connection import Node
from pushserver.store.store import Store
from pushserver.store.topology import LAST_SLOT

from .loop import LATER, Loop
from .memory import APPEND, DELETE, Memory, id_of

URL = "redis://simulated"  # by which nobody is ever called


class Server:
    """The store's process and the network around it. What a fault does to it are its fields."""

    def __init__(self, loop: Loop, memory: Memory) -> None:
        self.loop = loop
        self.memory = memory
        self.is_up = True
        self.is_full = False
        self.lossy = 0.0  # chance that a command, or its answer, is lost on the way
        self.twice = 0.0  # chance that a blocking read is answered with what the one before was
        self.delay = 0.001  # seconds of a way, on average
        self._frozen: list[Callable[[], None]] | None = None  # what arrived since
        self._blocked: dict[int, Connection] = {}  # by client id
        self._connections: list[Connection] = []

    def pause(self) -> float:
        """Seconds that a way takes."""
        return self.loop.chance.expovariate(1 / self.delay)

    def later(self, what: Callable[..., object], *arguments: Any) -> None:
        self.loop.call_later(self.pause(), what, *arguments, context=LATER)

    def ask(self, line: Line, act: Callable[[], Any]) -> Future[Any]:
        """Have a command carried out. Whoever stops waiting for its answer does not stop that."""
        answer: Future[Any] = self.loop.create_future()
        self.later(self._arrive, line, act, answer)
        return answer

    def _arrive(self, line: Line, act: Callable[[], Any], answer: Future[Any]) -> None:
        if self._frozen is not None:
            self._frozen.append(lambda: self._arrive(line, act, answer))
        elif not self.is_up or line.is_cut or self._is_lost():
            self.later(fail, answer, ConnectionError("no store there"))
        else:
            try:
                value = act()
            except ResponseError as error:
                self.later(fail, answer, error)
                return
            if self._is_lost():  # it was carried out, and nobody hears of it: at once, or by waiting in vain
                if self.loop.chance.random() < 0.5:
                    self.later(fail, answer, ConnectionError("the connection was lost"))
            else:
                self.later(give, answer, value)

    def _is_lost(self) -> bool:
        return self.loop.chance.random() < self.lossy

    # --- blocking reads

    def connect(self, line: Line) -> Future[Connection]:
        def act() -> Connection:
            connection = Connection(line, len(self._connections) + 1)
            self._connections.append(connection)
            return connection

        return self.ask(line, act)

    def block(self, connection: Connection, milliseconds: int) -> None:
        """A read that blocks until there is something, it is interrupted, or its time is over."""
        self._blocked[connection.client_id] = connection
        self.loop.call_later(milliseconds / 1000, self._unblock, connection, connection.asked, context=LATER)
        self.look()

    def look(self) -> None:
        """Answer the blocked reads for which there is something."""
        if self._frozen is not None:
            self._frozen.append(self.look)
            return
        for connection in tuple(self._blocked.values()):
            found = self.memory.xread(connection.asked, connection.count)
            if found:
                self._answer(connection, found)

    def unblock(self, client_id: int) -> None:
        """CLIENT UNBLOCK."""
        connection = self._blocked.get(client_id)
        if connection:
            self._answer(connection, None)

    def _unblock(self, connection: Connection, asked: object) -> None:
        if self._frozen is not None:
            self._frozen.append(lambda: self._unblock(connection, asked))
        elif connection.asked is asked and self._blocked.get(connection.client_id) is connection:
            self._answer(connection, None)

    def _answer(self, connection: Connection, found: list[Any] | None) -> None:
        del self._blocked[connection.client_id]
        if found and connection.before and self.loop.chance.random() < self.twice:
            keys = {key for key, _ in connection.asked}
            found = [part for part in connection.before if part[0].decode() in keys]
        connection.before = found or connection.before
        if not connection.line.is_cut:
            self.later(give, connection.answer, found)

    # --- what happens to it

    def cut(self, line: Line | None = None) -> None:
        """Every connection of a blocking read is lost, or those of one worker."""
        for connection in self._connections:
            if line is None or connection.line is line:
                connection.lose()
                self._blocked.pop(connection.client_id, None)

    def freeze(self) -> None:
        if self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        arrived, self._frozen = self._frozen or [], None
        for act in arrived:
            act()


class Line(Store):
    """The shipped `Store`, of one worker. `is_cut` while that worker cannot reach the server."""

    def __init__(self, server: Server, partitions: int) -> None:
        super().__init__(URL, partitions=partitions)
        self.server = server
        self.is_cut = False
        self._shards = [(0, LAST_SLOT, Place(self))]


class Place(Node):
    """The shipped `Node`, on the server."""

    def __init__(self, line: Line) -> None:
        super().__init__(URL)
        self.redis: Any = Client(line)
        self._pool: Any = Pool(line)


class Pool:
    def __init__(self, line: Line) -> None:
        self._line = line

    def make_connection(self) -> Connecting:
        return Connecting(self._line)


class Client:
    """What the log asks of redis-py."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def evalsha(self, sha: str, count: int, *words: Any) -> Awaitable[Any]:
        return evalsha(self._line, sha, count, words)

    def get(self, key: str) -> Awaitable[bytes | None]:
        return self._ask(lambda memory: memory.get(key))

    def hget(self, key: str, field: str) -> Awaitable[bytes | None]:
        return self._ask(lambda memory: memory.hget(key, field))

    def scan(self, cursor: int, match: str, count: int) -> Awaitable[tuple[int, list[str]]]:
        return self._ask(lambda memory: (0, memory.scan(match)))

    def unlink(self, *keys: str) -> Awaitable[None]:
        return self._ask(lambda memory: memory.unlink(*keys))

    def client_unblock(self, client_id: int) -> Awaitable[None]:
        server = self._line.server
        return server.ask(self._line, lambda: server.unblock(client_id))

    def pipeline(self, transaction: bool) -> Pipeline:
        return Pipeline(self)

    def _ask(self, act: Callable[[Memory], Any]) -> Awaitable[Any]:
        server = self._line.server
        return server.ask(self._line, lambda: act(server.memory))


class Pipeline:
    """Commands that are carried out together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked: list[tuple[str, ...]] = []

    def hget(self, key: str, field: str) -> None:
        self._asked.append((key, field))

    def get(self, key: str) -> None:
        self._asked.append((key,))

    def execute(self) -> Awaitable[Any]:
        asked = self._asked
        return self._client._ask(lambda memory: [(memory.hget if one[1:] else memory.get)(*one) for one in asked])


class Connecting:
    """A connection before it is one, and then what a tail or a script that only reads sends on it."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._connection: Connection | None = None

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def connect(self) -> None:
        self._connection = await self._line.server.connect(self._line)

    async def send_command(self, *words: Any) -> None:
        assert self._connection is not None
        self._connection.send(words)

    async def send_packed_command(self, chunks: list[bytes]) -> None:
        words = b"".join(chunks).split(b"\r\n")[2::2]
        await self.send_command(*[word.decode() for word in words])

    async def read_response(self) -> Any:
        assert self._connection is not None
        return await self._connection.answer

    async def disconnect(self, nowait: bool) -> None:
        if self._connection:
            self._connection.lose()


class Connection:
    """One connection to the server, on which one command at a time is asked."""

    def __init__(self, line: Line, client_id: int) -> None:
        self.line = line
        self.client_id = client_id
        self.asked: list[tuple[str, tuple[int, int]]] = []
        self.count = 0
        self.before: list[Any] | None = None  # the last answer that had something in it
        self.answer: Future[Any] = line.server.loop.create_future()
        self._is_lost = False

    def send(self, words: Sequence[Any]) -> None:
        server = self.line.server
        if self._is_lost:
            raise ConnectionError("the connection was lost")
        self.answer = server.loop.create_future()
        match words:
            case ["CLIENT", "ID"]:
                server.later(give, self.answer, self.client_id)
            case ["XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", *rest]:
                keys, ids = rest[: len(rest) // 2], rest[len(rest) // 2 :]
                self.asked, self.count = [(key, id_of(id)) for key, id in zip(keys, ids, strict=True)], int(count)
                server.later(self._arrive, self.answer, int(milliseconds))
            case ["EVALSHA", sha, count, *rest]:
                self.answer = evalsha(self.line, sha, int(count), rest)
            case _:
                raise AssertionError(f"a command that the model does not know: {words}")

    def _arrive(self, answer: Future[Any], milliseconds: int) -> None:
        if answer is self.answer and not self._is_lost:
            self.line.server.block(self, milliseconds)

    def lose(self) -> None:
        self._is_lost = True
        self.line.server.later(fail, self.answer, ConnectionError("the connection was lost"))


def evalsha(line: Line, sha: str, count: int, words: Sequence[Any]) -> Future[Any]:
    """Run a script of the log: `count` keys, and then its arguments."""
    server, writes = line.server, sha in (APPEND, DELETE)

    def act() -> Any:
        if writes and server.is_full:
            raise ResponseError("OOM command not allowed when used memory > 'maxmemory'.")
        answer = server.memory.script(sha)(words[:count], words[count:])
        if writes:
            server.look()
        return answer

    return server.ask(line, act)


def give(answer: Future[Any], value: Any) -> None:
    if not answer.done():
        answer.set_result(value)


def fail(answer: Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever waited for it may have gone
