"""A reader begins with all that it missed or a snapshot, and readers who want the same share one read."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio as aioredis

from pushserver.live.hub import Hub
from pushserver.model import Cursor
from pushserver.store.log import Log, Resumed

from ..support.hubs import LIMIT, append, append_and_read, joined, reading, running
from ..support.server import withdrawal_append

pytestmark = pytest.mark.anyio


async def test_what_a_reader_is_answered_with(log: Log, stream: str) -> None:
    """Four events before the stream is followed, and four after, of which the ring keeps two."""
    answers = [await append(log, stream, str(n)) for n in range(1, 5)]
    async with running(log, ring_events=2) as hub, reading(hub, stream) as first:
        answers += [await append_and_read(log, stream, first, n) for n in range(5, 9)]
        for n, expected in [(8, []), (7, [8]), (6, [7, 8]), (5, [6, 7, 8]), (1, [2, 3, 4, 5, 6, 7, 8])]:
            async with reading(hub, stream, answers[n - 1].cursor) as reader:
                hello = reader.frames[0]
                assert (hello["type"], hello["complete"], hello["from"], "reason" in hello) == ("hello", True, n, False)
                assert hello["head"] == {"n": 8, "cursor": str(answers[7].cursor)}
                assert reader.numbers() == expected
                assert [frame["entry"]["headline"] for frame in reader.frames[1:]] == [str(m) for m in expected]
        gone = answers[7].cursor._replace(nonce="0" * 16)
        for cursor, reason in [(None, "no_cursor"), (gone, "rollback"), (gone._replace(epoch="0" * 16), "epoch")]:
            async with reading(hub, stream, cursor) as reader:
                hello, snapshot = reader.frames
                assert (hello["complete"], hello["reason"], hello["from"]) == (False, reason, 8)
                assert (snapshot["type"], snapshot["n"], snapshot["cursor"]) == ("snapshot", 8, str(answers[7].cursor))
                assert [entry["headline"] for entry in snapshot["entries"]] == [str(n) for n in range(8, 0, -1)]


async def test_after_its_answer_every_reader_gets_what_comes(log: Log, stream: str) -> None:
    answers = [await append(log, stream) for _ in range(4)]
    async with running(log, ring_events=2) as hub, reading(hub, stream) as first:
        answers += [await append_and_read(log, stream, first, n) for n in range(5, 9)]
        async with (
            reading(hub, stream, answers[7].cursor) as at_head,
            reading(hub, stream, answers[6].cursor) as in_ring,
            reading(hub, stream, answers[1].cursor) as in_log,
            reading(hub, stream) as anew,
        ):
            await append(log, stream)
            for reader, numbers in [(at_head, [9]), (in_ring, [8, 9]), (in_log, list(range(3, 10))), (anew, [9])]:
                await reader.until_read(9)
                assert reader.numbers() == numbers
            assert anew.frames[1]["n"] == 8


async def test_too_many_events_or_bytes_behind_gets_the_snapshot(log: Log, stream: str) -> None:
    answers = [await append(log, stream, "x" * 250) for _ in range(8)]
    async with running(log, replay_events=5, replay_bytes=2_400) as hub:
        for n, reason in [(2, "too_far"), (3, "too_far"), (5, None)]:  # five events are more than so many bytes
            async with reading(hub, stream, answers[n - 1].cursor) as reader:
                assert reader.frames[0].get("reason") == reason
                assert reader.kinds()[1:] == (["snapshot"] if reason else ["entry.put"] * (8 - n))


async def test_readers_who_join_while_events_come_miss_nothing(log: Log, stream: str) -> None:
    last = 250
    answers = [await append(log, stream) for _ in range(50)]
    appended = asyncio.Event()

    async def publish() -> None:
        while len(answers) < last:
            answers.append(await append(log, stream))
            appended.set()

    async def read(hub: Hub, cursor: Cursor | None) -> list[int]:
        async with reading(hub, stream, cursor) as reader:
            await reader.until(lambda: last in [frame.get("n") for frame in reader.frames])
            first = reader.frames[0]["from"]
            if cursor is None:
                assert (reader.frames[1]["type"], reader.frames[1]["n"]) == ("snapshot", first)
            else:
                assert cursor == answers[first - 1].cursor
            assert reader.numbers() == list(range(first + 1, last + 1))
            return reader.numbers()

    async with running(log, ring_events=30, heartbeat=30.0) as hub, asyncio.timeout(LIMIT):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish())
            reads = []
            while len(answers) < last:
                cursor = random.choice([None, answers[-1].cursor, random.choice(answers).cursor])
                reads.append(tasks.create_task(read(hub, cursor)))
                await appended.wait()
                appended.clear()
        assert max(len(task.result()) for task in reads) > 100


async def reads(store: aioredis.Redis) -> int:
    """Count the reads so far: those of the log and those of snapshots."""
    return int((await store.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def test_a_storm_of_readers_costs_one_read_of_the_log(
    log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 1e9)  # which is a read too, now and then
    answers = [await append(log, stream, str(n)) for n in range(1, 6)]
    async with (
        running(log, heartbeat=30.0) as hub,
        aioredis.Redis.from_url(store_url) as store,
        AsyncExitStack() as stack,
    ):
        await stack.enter_async_context(reading(hub, stream, answers[-1].cursor))
        before = await reads(store)
        cursors = [answers[0].cursor, None] * 40
        readers = await asyncio.gather(*(joined(hub, stack, stream, cursor) for cursor in cursors))
        assert await reads(store) - before <= 6
        for reader, cursor in zip(readers, cursors, strict=True):
            assert reader.kinds()[1:] == (["entry.put"] * 4 if cursor else ["snapshot"])


async def test_readers_who_come_one_after_the_other_share_what_was_read_for_the_first(
    log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 1e9)  # which is a read too, now and then
    answers = [await append(log, stream, str(n)) for n in range(1, 6)]
    async with (
        running(log, heartbeat=30.0) as hub,
        aioredis.Redis.from_url(store_url) as store,
        AsyncExitStack() as stack,
    ):
        await stack.enter_async_context(reading(hub, stream, answers[-1].cursor))
        for cursor, kinds in ((answers[0].cursor, ["entry.put"] * 4), (None, ["snapshot"])):
            first = await joined(hub, stack, stream, cursor)
            before = await reads(store)
            others = [await joined(hub, stack, stream, cursor) for _ in range(10)]
            assert await reads(store) == before
            assert [reader.frames for reader in others] == [first.frames] * 10
            assert first.kinds() == ["hello", *kinds]
        await append(log, stream, "6")
        shown = await joined(hub, stack, stream, None)
        assert [len(view["entries"]) for view in shown.frames_of("snapshot")] == [6]


async def test_what_was_read_for_the_first_does_not_outlive_its_withdrawal(log: Log, stream: str) -> None:
    first = await append(log, stream, "one")
    said = await append(log, stream, "regretted")
    last = await append(log, stream, "three")
    async with running(log, heartbeat=30.0) as hub, reading(hub, stream, last.cursor) as live:
        for cursor in (first.cursor, None):
            async with reading(hub, stream, cursor) as reader:
                assert "regretted" in json.dumps(reader.frames)
        await log.append(withdrawal_append(stream, said.entry_id))
        await live.until(lambda: "entry.withdraw" in live.kinds())
        for cursor in (first.cursor, None):
            async with reading(hub, stream, cursor) as reader:
                assert "regretted" not in json.dumps(reader.frames)


class CountedLog(Log):
    """A log that counts what is read of it for readers who come back."""

    def __init__(self, log: Log) -> None:
        self.__dict__ |= log.__dict__
        self.replays = 0

    async def resume(self, *arguments: Any, **options: Any) -> Resumed:
        self.replays += 1
        return await super().resume(*arguments, **options)


async def test_where_memory_is_short_one_read_gets_a_reader_all_that_it_missed(log: Log, stream: str) -> None:
    """The ring has no room for the events that are read, but that of events which the reader misses as well."""
    counted = CountedLog(log)
    first = await append(log, stream)
    others = [f"{stream}-{number}" for number in range(3)]
    for other in others:
        await append(log, other)
    async with running(counted, rings_bytes=160_000, heartbeat=30.0) as hub, AsyncExitStack() as stack:
        for other in others:
            await joined(hub, stack, other, None)
        reader = await joined(hub, stack, stream, first.cursor)
        for n in range(2, 101):
            await append(log, stream, f"{n} " + "x" * 200)
        await reader.until_read(100)
        late = await joined(hub, stack, stream, first.cursor)
        assert late.numbers() == list(range(2, 101))
        assert counted.replays == 1
        assert hub._memory.bytes <= 160_000
        await append(log, stream, "101")
        await late.until_read(101)
        assert late.numbers() == list(range(2, 102))
