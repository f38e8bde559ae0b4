from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from pushserver import metrics, model
from pushserver.errors import NotFound, Unavailable
from pushserver.live import healing
from pushserver.live.hub import Hub, HubOptions
from pushserver.live.reader import Reader, ReaderState
from pushserver.live.stream import IDLE_BEATS, LiveStream
from pushserver.model import Append, Cursor, Event, StoredPage
from pushserver.page import render
from pushserver.settings import Settings
from pushserver.store.embedded import embedded
from pushserver.store.log import Appended, Log
from pushserver.store.store import Store
from pushserver.wire.codes import Close
from pushserver.wire.frames import Batch, Format, Notice

from ..support.server import entry_append, withdrawal_append

pytestmark = pytest.mark.anyio

LIMIT = 90.0  # seconds after which what is waited for will not come
BEAT = 0.05


class RecordingReader(Reader):
    """Takes all it is given, and remembers it."""

    def __init__(self, format: Format = Format.JSON) -> None:
        super().__init__(format)
        self.frames: list[dict[str, Any]] = []
        self.code: Close | None = None
        self._more = asyncio.Event()

    def write(self, batch: Batch) -> None:
        assert self.state is ReaderState.OPEN
        self.frames += map(json.loads, batch.texts())
        self._more.set()

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        assert self.state is not ReaderState.CLOSED, "closed twice"
        self.state, self.code = ReaderState.CLOSED, code
        if farewell is not None:
            self.frames.append(json.loads(farewell.body))
        self._more.set()

    def kinds(self) -> list[str]:
        """What it was given, heartbeats aside."""
        return [frame["type"] for frame in self.frames if frame["type"] != "head"]

    def frames_of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def numbers(self) -> list[int]:
        """The numbers of the events it was given."""
        return [frame["n"] for frame in self.frames if "prev" in frame]

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not is_true():
                self._more.clear()
                await self._more.wait()

    async def until_read(self, n: int) -> None:
        """Wait for event `n`."""
        await self.until(lambda: n in self.numbers())

    async def until_closed(self) -> None:
        await self.until(lambda: self.state is ReaderState.CLOSED)

    async def beats(self, count: int) -> None:
        """Wait for as many heartbeats."""
        had = len(self.frames_of("head"))
        await self.until(lambda: len(self.frames_of("head")) >= had + count)


@asynccontextmanager
async def running(log: Log, **settings: Any) -> AsyncIterator[Hub]:
    """A hub that runs."""
    hub = Hub(log, HubOptions.of(Settings(**{"heartbeat": BEAT, "drain": 5.0, **settings})))
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=LIMIT)
        assert task.cancelled(), "the hub did not end when it was told, or before"


@asynccontextmanager
async def log_on(url: str) -> AsyncIterator[Log]:
    """A log on a store of the test's own."""
    store = Store(url, partitions=16)
    yield Log(store, log_events=1_000, entry_limit=500, idempotency=60)
    await store.close()


@pytest.fixture
async def hub(log: Log) -> AsyncIterator[Hub]:
    async with running(log) as hub:
        yield hub


@asynccontextmanager
async def reading(
    hub: Hub, stream: str, cursor: Cursor | None = None, **options: Any
) -> AsyncIterator[RecordingReader]:
    """A reader that follows a stream, until the end or until it is closed."""
    async with hub.follow(stream) as live:
        reader = RecordingReader(**options)
        await hub.join(live, reader, cursor)
        try:
            yield reader
        finally:
            live.fanout.leave(reader)


async def append(log: Log, stream: str, headline: str = "one") -> Appended:
    return await log.append(entry_append(stream, headline))


async def append_and_read(log: Log, stream: str, reader: RecordingReader, n: int) -> Appended:
    """Append event `n`, and let a reader have it before anything else happens."""
    answer = await append(log, stream, str(n))
    await reader.until_read(n)
    return answer


def log_key(stream: str) -> str:
    return f"{{p{model.partition_of(stream, 16):02d}}}:{stream}:log"


async def delete_log(store_url: str, stream: str) -> None:
    async with aioredis.Redis.from_url(store_url) as store:
        await store.delete(log_key(stream))


async def append_at_once(store_url: str, stream: str, last: Appended, *, events: int, size: int) -> None:
    """Events after the last one, past the log and all of one instant, so that one read carries them all."""
    async with aioredis.Redis.from_url(store_url) as store, store.pipeline(transaction=True) as pipeline:
        prev = last.cursor
        for n in range(last.n + 1, last.n + 1 + events):
            cursor = prev._replace(id=f"{model.now() + 1_000}-{n}", nonce=f"{n:016x}")
            fields: dict[Any, Any] = {"e": cursor.epoch, "n": n, "p": f"{prev.id}.{prev.nonce}", "u": cursor.nonce}
            fields |= {"t": "entry.put", "s": model.instant(0), "d": json.dumps({"at": "x" * size}), "i": "", "k": ""}
            pipeline.xadd(log_key(stream), fields, id=cursor.id)
            prev = cursor
        await pipeline.execute()


async def test_a_stream_that_does_not_exist_cannot_be_followed(hub: Hub, log: Log, stream: str) -> None:
    with pytest.raises(NotFound):
        async with hub.follow(stream):
            pass
    assert hub.readers == 0
    await append(log, stream)
    async with reading(hub, stream) as reader:
        assert reader.kinds() == ["hello", "snapshot"]


async def test_readers_of_a_stream_share_one_channel(hub: Hub, log: Log, stream: str) -> None:
    await append(log, stream)
    streams: list[LiveStream] = []
    opened = asyncio.Event()

    async def follow() -> None:
        async with hub.follow(stream) as live:
            streams.append(live)
            if len(streams) == 20:
                opened.set()
            await opened.wait()
            assert (live.users, hub.readers) == (20, 20)
            await asyncio.sleep(0)

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(follow())
    assert len({id(live) for live in streams}) == 1
    assert (streams[0].users, hub.readers) == (0, 0)


async def test_a_stream_without_readers_is_let_go_after_some_heartbeats(hub: Hub, log: Log, stream: str) -> None:
    other = f"{stream}-other"
    for name in (stream, other):
        await append(log, name)
    async with reading(hub, other) as clock:
        async with hub.follow(stream) as first:
            await clock.beats(IDLE_BEATS + 2)
        async with hub.follow(stream) as again:
            assert again is first, "a stream that is read was let go"
        await clock.beats(1)
        async with hub.follow(stream) as again:
            assert again is first, "it was let go at once"
        await clock.beats(IDLE_BEATS + 2)
        await append(log, stream)
        async with hub.follow(stream) as anew:
            assert anew is not first
            assert (anew.ring.n, first.ring.n) == (2, 1)
        async with reading(hub, stream) as reader:
            await append(log, stream)
            await reader.until_read(3)


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


async def test_readers_of_a_log_that_begins_anew_are_told_and_stay(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    old = (await append(log, stream)).cursor
    async with reading(hub, stream) as reader, reading(hub, stream, old) as other:
        await delete_log(store_url, stream)
        new = await append(log, stream)
        for told in (reader, other):
            reset, snapshot = await told_of_a_reset(told)
            assert (reset["reason"], snapshot["cursor"]) == ("epoch", str(new.cursor))
        await append(log, stream)
        for told in (reader, other):
            await told.until_read(2)
            assert told.numbers() == [2]
    async with reading(hub, stream, old) as again:
        assert (again.frames[0]["epoch"], again.frames[0]["reason"]) == (new.cursor.epoch, "epoch")
        assert new.cursor.epoch != old.epoch


async def test_a_log_that_began_anew_is_found_out_by_who_joins(hub: Hub, log: Log, store_url: str, stream: str) -> None:
    """The tail has not told the feed yet."""
    old = (await append(log, stream)).cursor
    async with hub.follow(stream) as live, reading(hub, stream, old) as first:
        await delete_log(store_url, stream)
        reader = RecordingReader()
        with pytest.raises(Unavailable):
            await hub.join(live, reader, None)
        assert (reader.frames, reader.state) == ([], ReaderState.OPEN)
        await first.until_closed()
        assert (first.code, first.kinds()[-1]) == (Close.RESTART, "bye")
    with pytest.raises(NotFound):
        async with hub.follow(stream):
            pass


@pytest.mark.parametrize("found_by", ["the next event", "the next connection", "a look now and then"])
async def test_what_the_store_lost_is_healed_and_its_readers_are_told(
    hub: Hub, log: Log, store_url: str, stream: str, found_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1 if found_by == "a look now and then" else 60)
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        lost = await append_and_read(log, stream, reader, 2)
        await lose(store, stream, lost)
        match found_by:
            case "the next event":
                assert (await append(log, stream, "after")).n == lost.n
            case "the next connection":
                for client in await store.client_list():
                    if client["cmd"] == "xread":
                        await store.client_kill_filter(_id=client["id"])
        reset, snapshot = await told_of_a_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        assert {(entry["id"], entry["rev"]) for entry in snapshot["entries"]} >= {(lost.entry_id, 1)}
        await append(log, stream, "last")
        await reader.until(lambda: reader.numbers()[-1] == snapshot["n"] + 1)
        assert reader.state is ReaderState.OPEN
    async with reading(hub, stream, lost.cursor) as away:
        assert (away.frames[0]["complete"], away.frames[0]["reason"]) == (False, "rollback")
        assert lost.entry_id in [entry["id"] for entry in away.frames[1]["entries"]]


async def test_what_is_not_to_be_healed_is_named(log: Log, store_url: str, stream: str) -> None:
    first = await append(log, stream, "first")
    async with running(log, heal=False) as hub, reading(hub, stream, first.cursor) as reader:
        lost = await append_and_read(log, stream, reader, 2)
        async with aioredis.Redis.from_url(store_url) as store:
            await lose(store, stream, lost)
        await append(log, stream, "after")
        reset, snapshot = await told_of_a_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [lost.entry_id])
        assert lost.entry_id not in [entry["id"] for entry in snapshot["entries"]]


async def test_a_correction_is_healed_where_the_one_before_it_is_lost_too(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    first = await append(log, stream, "first")
    await log.append(entry_append(stream, "second", id=first.entry_id, rev=2))
    async with reading(hub, stream) as reader, aioredis.Redis.from_url(store_url) as store:
        await log.append(entry_append(stream, "third", id=first.entry_id, rev=3))
        await reader.until_read(3)
        await lose_corrections(store, stream, first)
        await append(log, stream, "after")
        reset, snapshot = await told_of_a_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        held = {entry["id"]: (entry["rev"], entry["headline"]) for entry in snapshot["entries"]}
        assert held[first.entry_id] == (3, "third")


async def test_a_correction_is_healed_while_others_publish_older_ones(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher comes in between, after the one who heals has seen what is there."""
    first = await append(log, stream, "first")
    for rev in range(2, 5):
        await log.append(entry_append(stream, str(rev), id=first.entry_id, rev=rev))
    current_rev = healing._current_rev

    async def overtaken(log: Log, append: Append) -> int:
        held = await current_rev(log, append)
        if held < 3:
            await log.append(entry_append(stream, "other", id=first.entry_id, rev=held + 1))
        return held

    monkeypatch.setattr(healing, "_current_rev", overtaken)
    async with reading(hub, stream) as reader, aioredis.Redis.from_url(store_url) as store:
        last = await log.append(entry_append(stream, "last", id=first.entry_id, rev=5))
        await reader.until_read(5)
        await lose_corrections(store, stream, first)
        await append(log, stream, "after")
        reset, snapshot = await told_of_a_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        assert {entry["id"]: entry["rev"] for entry in snapshot["entries"]}[last.entry_id] == 5


async def test_readers_of_a_stream_that_cannot_be_put_right_are_sent_to_come_back(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong there: a stream that nobody reads any more would look like one on which nothing happens."""
    first = await append(log, stream, "first")

    async def fails(*arguments: Any, **options: Any) -> None:
        raise KeyError("at")

    monkeypatch.setattr(healing, "heal", fails)
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        lost = await append_and_read(log, stream, reader, 2)
        await lose(store, stream, lost)
        await append(log, stream, "after")
        await reader.until_closed()
        assert reader.code is Close.RESTART


async def test_what_cannot_be_healed_yet_is_healed_later(
    tmp_path: Path, stream: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes no writes when the loss is found out: who has the event keeps it, and tells nobody yet."""
    async with embedded(tmp_path) as url, aioredis.Redis.from_url(url) as redis, log_on(url) as log:
        first = await append(log, stream, "first")
        async with running(log) as hub, reading(hub, stream, first.cursor) as reader:
            lost = await append_and_read(log, stream, reader, 2)
            await lose(redis, stream, lost)
            await redis.config_set("maxmemory", "1")
            monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1)  # else it is not found out before 5 s
            async with asyncio.timeout(LIMIT):
                while "recovery failed, will be retried" not in caplog.text:
                    await asyncio.sleep(BEAT)
            assert reader.kinds() == ["hello", "entry.put"]
            await redis.config_set("maxmemory", "0")
            reset, snapshot = await told_of_a_reset(reader)
            assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
            assert lost.entry_id in [entry["id"] for entry in snapshot["entries"]]


async def test_an_event_is_read_whose_id_is_below_what_else_was_in_the_log(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that is no event took the tail past the last event; it is lost, and the clock is behind."""
    monkeypatch.setattr("pushserver.live.tail.VERIFIED_EVERY", 0.1)
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        skipped = metrics.SKIPPED._value.get()
        before = await store.dump(log_key(stream)) or b""
        await store.xadd(log_key(stream), {"what": "x"}, id=f"{model.now() + 10**6}-0")
        async with asyncio.timeout(LIMIT):
            while metrics.SKIPPED._value.get() == skipped:
                await asyncio.sleep(BEAT)
        await store.restore(log_key(stream), 0, before, replace=True)
        await append(log, stream, "second")
        await reader.until_read(2)
        assert reader.kinds() == ["hello", "entry.put"]


async def test_what_the_next_failover_loses_is_healed_too(hub: Hub, log: Log, store_url: str, stream: str) -> None:
    """It goes back further than the first one; the feed begins anew with what that one had left."""
    first = await append(log, stream, "first")
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        saved = await save(store, stream)
        held, lost = [await append_and_read(log, stream, reader, n) for n in (2, 3)]
        await lose(store, stream, lost)
        await append(log, stream, "after")
        await told_of_a_reset(reader)
        await restore(store, stream, saved)
        await append(log, stream, "after all")
        await reader.until(lambda: reader.kinds().count("reset") == 2)
        reset, snapshot = await told_of_a_reset(reader)
        assert (reset["reason"], reset["withdrawn"]) == ("rollback", [])
        assert {held.entry_id, lost.entry_id} <= {entry["id"] for entry in snapshot["entries"]}


async def test_what_is_lost_while_it_is_healed_is_healed_too(
    hub: Hub, log: Log, store_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store falls back further when the lost event is there again, and before the feed begins anew."""
    first, read = await append(log, stream, "first"), Log.snapshot
    async with reading(hub, stream, first.cursor) as reader, aioredis.Redis.from_url(store_url) as store:
        states = [await save(store, stream)]

        async def late(*arguments: Any, **options: Any) -> Any:
            if states:
                await restore(store, stream, states.pop())
            return await read(*arguments, **options)

        held, lost = [await append_and_read(log, stream, reader, n) for n in (2, 3)]
        monkeypatch.setattr(Log, "snapshot", late)
        await lose(store, stream, lost)
        await append(log, stream, "after")
        _, snapshot = await told_of_a_reset(reader)
        assert states == []
        assert {held.entry_id, lost.entry_id} <= {entry["id"] for entry in snapshot["entries"]}


async def save(store: aioredis.Redis, stream: str) -> dict[bytes, bytes]:
    """All that is stored of a stream."""
    names = [name async for name in store.scan_iter(log_key(stream).removesuffix("log") + "*")]
    return {name: await store.dump(name) or b"" for name in names}


async def restore(store: aioredis.Redis, stream: str, saved: dict[bytes, bytes]) -> None:
    """Go back to what was stored."""
    names = [name async for name in store.scan_iter(log_key(stream).removesuffix("log") + "*")]
    async with store.pipeline(transaction=True) as pipeline:
        pipeline.delete(*names)
        for name, value in saved.items():
            pipeline.restore(name, 0, value)
        await pipeline.execute()


async def told_of_a_reset(reader: RecordingReader) -> list[dict[str, Any]]:
    """The reset and the snapshot that follows it."""
    await reader.until(lambda: reader.kinds()[-2:] == ["reset", "snapshot"])
    return [frame for frame in reader.frames if frame["type"] in ("reset", "snapshot")][-2:]


async def lose(store: aioredis.Redis, stream: str, lost: Appended) -> None:
    """Take an entry out of the store, as a failover to a replica that lagged behind does."""
    key = log_key(stream).removesuffix(":log")
    await forget(store, f"{key}:log", lost.cursor.id)
    assert await store.hdel(f"{key}:entries", lost.entry_id) == 1
    assert await store.zrem(f"{key}:order", lost.entry_id) == 1
    await store.delete(*[name async for name in store.scan_iter(f"{key}:idem:*")] or ["none"])


async def forget(store: aioredis.Redis, log: str, *ids: str) -> None:
    """Make a log one that never had these records: one from which they are deleted knows that they were there."""
    records: Any = await store.xrange(log)
    assert {id.decode() for id, _ in records} >= set(ids)
    pipeline = store.pipeline(transaction=True)
    pipeline.delete(log)
    for id, fields in records:
        if id.decode() not in ids:
            pipeline.xadd(log, fields, id=id)
    await pipeline.execute()


async def lose_corrections(store: aioredis.Redis, stream: str, first: Appended) -> None:
    """Take all that came after an entry's first revision out of the store."""
    key = log_key(stream).removesuffix(":log")
    later: Any = await store.xrange(f"{key}:log", f"({first.cursor.id}")
    await forget(store, f"{key}:log", *[id.decode() for id, _ in later])
    await store.hset(f"{key}:entries", first.entry_id, json.dumps({"id": first.entry_id, "rev": 1}))


async def test_workers_that_heal_the_same_event_store_it_once(log: Log, store_url: str, stream: str) -> None:
    await append(log, stream, "first")
    async with running(log) as one, running(log) as other, aioredis.Redis.from_url(store_url) as store:
        async with reading(one, stream) as reader, reading(other, stream) as second:
            lost = [await append(log, stream, f"lost {number}") for number in range(3)]
            for each in (reader, second):
                await each.until_read(4)
            for entry in lost:
                await lose(store, stream, entry)
            await append(log, stream, "after")
            for each in (reader, second):
                await each.until(lambda each=each: "reset" in each.kinds())  # type: ignore[misc]
    snapshot = await log.snapshot(stream, limit=10)
    assert snapshot is not None
    headlines = [json.loads(entry)["headline"] for entry in snapshot.entries]
    assert sorted(headlines) == ["after", "first", "lost 0", "lost 1", "lost 2"]


async def test_a_publisher_who_sends_again_what_was_lost_stores_it_once(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    await append(log, stream, "first")
    async with reading(hub, stream) as reader, aioredis.Redis.from_url(store_url) as store:
        request = entry_append(stream, "lost", key="mine", body_hash="b0d7")
        lost = await log.append(request)
        await reader.until_read(2)
        await lose(store, stream, lost)
        await append(log, stream, "after")
        await reader.until(lambda: "reset" in reader.kinds())
        again = await log.append(request)
        assert (again.replayed, again.entry_id) == (True, lost.entry_id)


async def test_a_burst_of_more_than_the_ring_holds_drops_nobody_who_keeps_up(
    log: Log, store_url: str, stream: str
) -> None:
    first = await append(log, stream)
    async with running(log, heartbeat=30.0) as hub, reading(hub, stream, first.cursor) as reader:
        second = await append_and_read(log, stream, reader, 2)
        await append_at_once(store_url, stream, second, events=100, size=60_000)
        await reader.until(lambda: 102 in reader.numbers() or reader.state is ReaderState.CLOSED)
        assert (reader.code, reader.numbers()) == (None, list(range(2, 103)))


async def reads(store: aioredis.Redis) -> int:
    """How many there were so far, of a log and of snapshots."""
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


async def joined(hub: Hub, stack: AsyncExitStack, stream: str, cursor: Cursor | None) -> RecordingReader:
    return await stack.enter_async_context(reading(hub, stream, cursor))


@pytest.mark.parametrize("with_cursor", [True, False])
async def test_nobody_joins_a_stream_that_was_given_up(
    hub: Hub, log: Log, store_url: str, stream: str, with_cursor: bool
) -> None:
    """Between follow and join a reader's handshake is answered, and the stream may be given up meanwhile."""
    old = (await append(log, stream)).cursor
    async with hub.follow(stream) as live:
        async with reading(hub, stream, old) as first:
            await delete_log(store_url, stream)
            with pytest.raises(Unavailable):
                await hub.join(live, RecordingReader(), None)
            await append(log, stream)
            await first.until_closed()
        await expect_turned_away(hub, live, old if with_cursor else None)


@pytest.mark.parametrize("with_cursor", [True, False])
async def test_nobody_joins_a_stream_that_is_drained(log: Log, stream: str, with_cursor: bool) -> None:
    cursor = (await append(log, stream)).cursor
    async with running(log, drain=0.05) as hub, hub.follow(stream) as live:
        await hub.drain()
        await expect_turned_away(hub, live, cursor if with_cursor else None)


async def expect_turned_away(hub: Hub, live: LiveStream, cursor: Cursor | None) -> None:
    """Either way the transport says bye; what must not be is a reader whom nothing reaches any more."""
    reader = RecordingReader()
    try:
        await hub.join(live, reader, cursor)
    except Unavailable:
        return
    assert (reader.code, reader.kinds()[-1:]) == (Close.RESTART, ["bye"])


async def test_drain_closes_every_reader_and_takes_no_more(hub: Hub, log: Log, stream: str) -> None:
    names = [stream, f"{stream}-b"]
    for name in names:
        await append(log, name)
    readers: list[RecordingReader] = []
    joined = asyncio.Semaphore(0)

    async def read(name: str) -> None:
        async with reading(hub, name) as reader:
            readers.append(reader)
            joined.release()
            await reader.until_closed()

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(read(names[number % 2]))
        for _ in range(20):
            await joined.acquire()
        await hub.drain()
        assert hub.readers == 0, "it did not wait until they had left"
    for reader in readers:
        assert (reader.code, reader.kinds()) == (Close.RESTART, ["hello", "snapshot", "bye"])
        assert (reader.frames[-1]["reason"], reader.frames[-1]["retry_ms"] > 0) == ("drain", True)
    with pytest.raises(Unavailable) as refused:
        async with hub.follow(stream):
            pass
    assert int(refused.value.headers["Retry-After"]) > 0


async def test_drain_does_not_wait_for_ever(log: Log, stream: str) -> None:
    await append(log, stream)
    async with running(log, drain=0.05) as hub, reading(hub, stream) as reader:
        async with asyncio.timeout(LIMIT):
            await hub.drain()
        assert (reader.code, hub.readers) == (Close.RESTART, 1)


async def test_no_more_readers_than_the_worker_takes(log: Log, stream: str) -> None:
    await append(log, stream)
    async with running(log, readers=2) as hub:
        async with reading(hub, stream), reading(hub, stream):
            with pytest.raises(Unavailable) as refused:
                async with hub.follow(stream):
                    pass
            assert int(refused.value.headers["Retry-After"]) > 0
        async with reading(hub, stream) as reader:
            assert reader.kinds() == ["hello", "snapshot"]


async def test_an_event_is_rendered_once_however_many_read_it(
    hub: Hub, log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []
    frame = render.frame

    def count(event: Event, page: StoredPage) -> dict[str, Any]:
        rendered.append(event.n)
        return frame(event, page)

    monkeypatch.setattr(render, "frame", count)
    await append(log, stream)
    async with hub.follow(stream) as live:
        readers = [RecordingReader(Format.HTML) for _ in range(300)]
        for reader in readers:
            await hub.join(live, reader, None)
        for n in (2, 3):
            await append(log, stream, f"headline {n}")
            for reader in readers:
                await reader.until_read(n)
        assert rendered == [2, 3]
        for reader in readers:
            assert reader.numbers() == [2, 3]
            assert "headline 3" in reader.frames_of("entry.put")[-1]["html"]
            live.fanout.leave(reader)
