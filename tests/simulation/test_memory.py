"""The model of the store against the store: the same operations, with the same ids, and the same answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import pytest
import redis.asyncio as aioredis

from pushserver import model
from pushserver.errors import Deleted, Refused
from pushserver.model import Append, Cursor
from pushserver.store.connection import Node
from pushserver.store.deletion import Deletions
from pushserver.store.log import Log, RevisionConflict
from pushserver.store.store import Store
from pushserver.store.tail import TailConnection

from .actors import entry_append
from .loop import simulated
from .memory import Memory, id_of
from .store import Line, Server

pytestmark = pytest.mark.anyio

OPERATIONS = 150  # of a schedule
STRANGE: list[dict[str, str]] = [
    {"what": "x"},
    {"e": "0" * 16, "n": "7", "p": "0-0.0", "u": "f" * 16, "t": "entry.put", "s": "", "k": "", "d": "[]"},
    {"e": "0" * 16, "n": "07", "p": "0-0.0", "u": "f" * 16, "t": "entry.put", "s": "", "k": "", "d": "{}"},
]


class Twin:
    """redis-py's client; whatever it is asked, the model is asked too."""

    def __init__(self, redis: aioredis.Redis, memory: Memory) -> None:
        self.redis = redis
        self.memory = memory
        self.verdicts: set[bytes] = set()

    async def evalsha(self, sha: str, count: int, *words: Any) -> Any:
        answer = await self.redis.evalsha(sha, count, *words)
        verdict = answer[0] if answer else None
        if verdict == b"stored":
            self.memory.next_ids.append(id_of(answer[1].decode()))
        assert self.memory.script(sha)(words[:count], words[count:]) == answer
        if isinstance(verdict, bytes) and b" " not in verdict:  # else the mark of a deletion
            self.verdicts.add(verdict)
        return answer

    async def script_load(self, text: str) -> Any:
        return await self.redis.script_load(text)

    async def get(self, key: str) -> bytes | None:
        answer = cast(bytes | None, await self.redis.get(key))
        assert self.memory.get(key) == answer
        return answer

    async def scan(self, cursor: int, match: str, count: int) -> Any:
        names = [name async for name in self.redis.scan_iter(match)]
        assert {name.decode() for name in names} == set(self.memory.scan(match))
        return 0, names

    async def unlink(self, *keys: bytes | str) -> Any:
        self.memory.unlink(*(key.decode() if isinstance(key, bytes) else key for key in keys))
        return await self.redis.unlink(*keys)


class Schedule:
    """Random operations on one stream, in the store and in the model."""

    def __init__(self, store: Store, node: Node, stream: str, seed: int) -> None:
        self.memory = Memory(lambda: 0)
        self.redis = node.redis
        self.twin = node.redis = Twin(node.redis, self.memory)  # type: ignore[assignment]
        self.log = Log(store, log_events=1_000, entry_limit=8, idempotency=60)
        self.deletions = Deletions(self.log)
        self.deletes = seed % 3 == 0  # a stream that is deleted again and again is never full
        self.stream = stream
        self.chance = random.Random(seed)
        self.cursors = [Cursor("0" * 16, "5-0", "0" * 16)]
        self.ids = [f"e{number}" for number in range(12)]
        self.saved: tuple[dict[bytes, bytes], dict[str, Any]] | None = None

    async def run(self) -> None:
        operations = [self.append] * 10 + [self.resume] * 6 + [self.snapshot, self.missing, self.first_answer] * 2
        operations += [self.trim, self.delete, self.save, self.restore, self.strange, self.read]
        operations += ([self.delete_stream] * 2 + [self.forget] * 4) * self.deletes
        for _ in range(OPERATIONS):
            await self.chance.choice(operations)()

    def _key(self, name: str) -> str:
        return self.log.key(self.stream, name)

    def _cursor(self) -> Cursor:
        """One that was given out, or one that is like it."""
        cursor, chance = self.chance.choice(self.cursors), self.chance
        match chance.randrange(8):
            case 0:
                return cursor._replace(nonce="e" * 16)
            case 1:
                return cursor._replace(epoch="e" * 16)
            case 2:
                ms, sequence = id_of(cursor.id)
                return cursor._replace(id=f"{max(0, ms + chance.choice((-1, 0, 1)))}-{sequence + 1}")
        return cursor

    async def append(self) -> None:
        chance, rev = self.chance, self.chance.randint(1, 3)
        kind = chance.choice(("entry.put", "entry.put", "entry.put", "entry.withdraw", "page.put"))
        entry = {"id": chance.choice(self.ids), "rev": rev, "headline": "é" * chance.randint(1, 9), "flags": {}}
        entry["sort_at"] = entry["published_at"] = model.instant(chance.randrange(5))
        key = chance.choice(("", "", f"k{chance.randrange(9)}"))
        append = entry_append(self.stream, entry, chance.randrange(10**6), key)
        append = append._replace(
            type=kind,
            by=chance.choice(("", '["server","server","publish",[]]')),
            body_hash=chance.choice(("a", "a", "b")),
            began_at=chance.choice(("", model.instant(3))),
        )
        if kind == "page.put":
            append = append._replace(entry_id="", state={**entry, "state": chance.choice(("live", "live", "ended"))})
        if chance.random() < 0.2:
            append = append._replace(replaces=chance.randrange(3))
        with suppress(RevisionConflict, Refused):
            self.cursors.append((await self.log.append(append)).cursor)

    async def resume(self) -> None:
        limit, size = self.chance.choice((1, 3, 100)), self.chance.choice((1, 200, 400, 10**6))
        in_part = self.chance.random() < 0.3
        with suppress(Deleted):
            await self.log.resume(self.stream, self._cursor(), limit=limit, limit_bytes=size, in_part=in_part)

    async def snapshot(self) -> None:
        after = self.chance.choice((None, (self.chance.randrange(5), self.chance.choice(self.ids))))
        limit, withdrawals = self.chance.randrange(6), self.chance.randrange(3)
        entry = self.chance.choice(("", "", self.chance.choice(self.ids)))
        with suppress(Deleted):
            await self.log.snapshot(self.stream, limit=limit, after=after, withdrawals=withdrawals, entry=entry)

    async def missing(self) -> None:
        asked = [self._cursor() for _ in range(self.chance.randint(1, 3))]
        read_to = [self.chance.choice((cursor, self._cursor())).id for cursor in asked]
        await self.log.missing([(self.stream, *one) for one in zip(asked, read_to, strict=True)])

    async def first_answer(self) -> None:
        with suppress(Refused):
            await self.log.first_answer(self.stream, f"k{self.chance.randrange(9)}", "a")

    async def read(self) -> None:
        """XREAD that does not block."""
        id, count = self._cursor().id, self.chance.choice((2, 100))
        answer: Any = await self.redis.xread({self._key("log"): id}, count=count)
        found = self.memory.xread([(self._key("log"), id_of(id))], count) or []
        told = [(id, dict(zip(pairs[::2], pairs[1::2], strict=True))) for _, records in found for id, pairs in records]
        assert told == [record for _, records in answer for record in records]

    async def trim(self) -> None:
        count = self.chance.randint(0, 4)
        await self.redis.xtrim(self._key("log"), maxlen=count, approximate=False)
        self.memory.trim(self._key("log"), count)

    async def delete(self) -> None:
        await self.redis.delete(self._key("log"))
        self.memory.keys.pop(self._key("log"), None)

    async def delete_stream(self) -> None:
        await self.deletions.delete(self.stream, unchanged_since=self.chance.choice((None, 0, 0, 0, 10**6)))

    async def forget(self) -> None:
        await self.deletions.forget(self.stream)

    async def save(self) -> None:
        names = [name async for name in self.redis.scan_iter(self._key("*"))]
        self.saved = {name: await self.redis.dump(name) or b"" for name in names}, self.memory.saved()

    async def restore(self) -> None:
        if self.saved:
            dumps, saved = self.saved
            names = [name async for name in self.redis.scan_iter(self._key("*"))]
            await self.redis.delete(*names, "none")
            for name, dump in dumps.items():
                await self.redis.restore(name, 0, dump)
            # The list of streams is no key of the stream: the store has it as it is now.
            streams = f"{self.log.tag(self.stream)}:streams"
            self.memory.restore(saved | {streams: self.memory.keys.get(streams, {})})

    async def strange(self) -> None:
        fields = self.chance.choice(STRANGE)
        id = await self.redis.xadd(self._key("log"), fields)  # type: ignore[arg-type]
        self.memory.next_ids.append(id_of(cast(bytes, id).decode()))
        self.memory.xadd(self._key("log"), fields)


async def test_the_model_answers_as_the_store_does(store_url: str, stream: str) -> None:
    verdicts: set[bytes] = set()
    for seed in range(15):
        store = Store(store_url, partitions=16)
        node = await store.node(stream)
        schedule = Schedule(store, node, f"{stream}-{seed}", seed)
        try:
            await schedule.run()
        finally:
            node.redis = schedule.redis
            await store.close()
        verdicts |= schedule.twin.verdicts
    assert verdicts == set(
        b"stored replayed reused gone rev full ended ok empty epoch rollback trimmed too_far".split()
        + b"deleted kept absent".split()
    )


async def blocking(log: Log, one: str, other: str) -> list[Any]:
    """What blocking reads answer: with what comes, with nothing when they are interrupted, and not before."""
    first = await log.append(_put(one))
    await log.append(_put(other))
    connection = await log.open_tail(0)
    heard = [await _read(connection, {one: "0-0", other: "0-0"})]

    async def interrupted(after: dict[str, str], act: Callable[[], Awaitable[object]]) -> None:
        read = asyncio.ensure_future(_read(connection, after))
        while not read.done():
            await act()
            await asyncio.sleep(0.01)
        heard.append(await read)

    async def once(append: Append) -> None:
        if append not in done:
            done.append(append)
            await log.append(append)

    done: list[Append] = []
    await connection.unblock()  # it is not blocked: nothing happens
    late = _put(one)
    await interrupted({one: first.cursor.id, other: "9999999999999-0"}, lambda: once(late))
    above = _put(other)
    await interrupted({other: "9999999999999-0"}, lambda: once(above) if above not in done else connection.unblock())
    await interrupted({f"{one}-none": "0-0"}, connection.unblock)
    heard.append(await _read(connection, {f"{one}-none": "0-0"}))  # it ends by itself
    await connection.close()
    return heard


async def _read(connection: TailConnection, after: dict[str, str]) -> list[tuple[str, list[int]]]:
    return [(stream[-3:], [event.n for event in events]) for stream, _, events in await connection.read(after)]


def _put(stream: str) -> Append:
    entry = {"id": model.new_id(), "rev": 1, "flags": {}, "sort_at": model.instant(0)}
    return entry_append(stream, entry, 0, "")


async def test_blocking_reads_of_the_model_are_those_of_the_store(log: Log, stream: str) -> None:
    names = f"{stream}-one", f"{stream}-two"
    real = await blocking(log, *names)
    modelled = await asyncio.to_thread(_modelled, *names)
    assert modelled == real == [[("one", [1]), ("two", [1])], [("one", [2])], [], [], []]


def _modelled(*names: str) -> list[Any]:
    with simulated(1) as loop:
        line = Line(Server(loop, Memory(loop.ms)), 16)
        return loop.run_until_complete(blocking(Log(line, log_events=100, entry_limit=8, idempotency=60), *names))
