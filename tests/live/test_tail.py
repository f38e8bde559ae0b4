from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis

from pushserver import model
from pushserver.errors import Unavailable
from pushserver.live.tail import RETRY_FIRST, SLICE, Tail, TailState
from pushserver.model import Append, Event
from pushserver.store.connection import within
from pushserver.store.embedded import embedded
from pushserver.store.log import Appended, Log
from pushserver.store.store import Store, StoreError
from pushserver.store.tail import TailConnection

from ..support.rests import Rests
from ..support.server import entry_append

pytestmark = pytest.mark.anyio

LIMIT = 90.0  # seconds after which what is waited for will not come
BEGINNING = "0-0"


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read ends with an event, an interruption or its connection, and no look now and then comes in between.

    So what is waited for comes at once or never, on a machine that is busy too.
    """
    for name in ("live.tail.BLOCK_MS", "store.tail.BLOCK_MS"):
        monkeypatch.setattr(f"pushserver.{name}", 10**8)
    for name in ("VERIFIED_EVERY", "SILENCE"):
        monkeypatch.setattr(f"pushserver.live.tail.{name}", 10.0**5)
    monkeypatch.setattr("pushserver.store.connection.within", partial(within, limit=10.0**5))


class Recorder:
    """What a tail handed on and asked about, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.verified: list[str] = []
        self.failures: list[Exception] = []  # of the next verifications
        self._more = asyncio.Event()

    def deliver(self, stream: str, events: list[Event]) -> None:
        self.events.setdefault(stream, []).extend(events)
        self._more.set()

    async def verify(self, streams: Mapping[str, str]) -> None:
        self.verified += streams
        self._more.set()
        if self.failures:
            raise self.failures.pop()

    def numbers(self, stream: str) -> list[int]:
        return [event.n for event in self.events.get(stream, [])]

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something is true of what came; looked at whenever something comes."""
        async with asyncio.timeout(LIMIT):
            while not is_true():
                self._more.clear()
                await self._more.wait()

    async def until_delivered(self, stream: str, events: int) -> None:
        await self.until(lambda: len(self.numbers(stream)) >= events)

    async def until_verified(self, times: int) -> None:
        await self.until(lambda: len(self.verified) >= times)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@asynccontextmanager
async def tailing(log: Log, recorder: Recorder) -> AsyncIterator[Tail]:
    """A tail that runs."""
    tail = Tail(log, 0, deliver=recorder.deliver, verify=recorder.verify)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(tail.run())
        try:
            yield tail
        finally:
            await end(task)


async def end(task: asyncio.Task[None]) -> int:
    """Cancel a task until it has ended; how often it had to be told."""
    cancels = 0
    while not task.done():
        cancels += 1
        task.cancel()
        await asyncio.wait([task], timeout=LIMIT)
    return cancels


@pytest.fixture
async def tail(log: Log, recorder: Recorder) -> AsyncIterator[Tail]:
    async with tailing(log, recorder) as tail:
        yield tail


def put(stream: str, *, key: str = "") -> Append:
    return entry_append(stream, "one", key=key)


async def put_surely(log: Log, stream: str, key: str) -> Appended:
    """Publish while the store comes and goes: the same entry again until it is known to be stored."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return await log.append(put(stream, key=key))
            except Unavailable:
                await asyncio.sleep(0.01)


def neighbours(stream: str, streams: int) -> list[str]:
    """Streams of one partition."""
    partition = model.partition_of(stream, 16)
    names = (f"{stream}-{number}" for number in count())
    return list(islice((name for name in names if model.partition_of(name, 16) == partition), streams))


async def eventually(is_true: Callable[[], bool]) -> None:
    """Wait for what happens in the store's process."""
    async with asyncio.timeout(LIMIT):
        while not is_true():
            await asyncio.sleep(0.005)


async def blocked_reads(store: aioredis.Redis) -> list[int]:
    """The ids of the clients that wait in a read of a tail."""
    clients: list[dict[str, Any]] = await store.client_list()
    return [int(client["id"]) for client in clients if client["cmd"] == "xread" and "b" in client["flags"]]


async def until_it_blocks(store: aioredis.Redis) -> int:
    """The id of the one client that waits in a read, once it does."""
    async with asyncio.timeout(LIMIT):
        while not (found := await blocked_reads(store)):
            await asyncio.sleep(0.005)
    (id,) = found
    return id


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(store_url) as store:
        yield store


async def test_an_event_that_is_appended_after_follow_arrives(
    log: Log, tail: Tail, recorder: Recorder, stream: str
) -> None:
    first = await log.append(put(stream))
    await tail.follow(stream, first.cursor.id)
    second = await log.append(put(stream))
    await recorder.until_delivered(stream, 1)
    third = await log.append(put(stream))
    await recorder.until_delivered(stream, 2)
    assert [event.cursor for event in recorder.events[stream]] == [second.cursor, third.cursor]
    assert recorder.verified == [stream]


async def test_what_was_appended_between_the_id_and_follow_arrives_first(
    log: Log, tail: Tail, recorder: Recorder, stream: str
) -> None:
    answers = [await log.append(put(stream)) for _ in range(480)]  # more than one read carries
    await tail.follow(stream, answers[4].cursor.id)
    await recorder.until_delivered(stream, 475)
    assert recorder.numbers(stream) == list(range(6, 481))


async def test_others_come_in_between_slices_of_what_a_read_returned(
    log: Log, recorder: Recorder, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = Rests()
    monkeypatch.setattr("pushserver.live.tail.Stretch", rests)
    first = await log.append(put(stream))
    for _ in range(4 * SLICE):
        await log.append(put(stream))
    async with tailing(log, recorder) as tail:
        await tail.follow(stream, first.cursor.id)
        await recorder.until_delivered(stream, 4 * SLICE)
    assert rests.count >= 3


async def test_a_stream_followed_while_the_read_blocks_is_read_at_once(
    log: Log, tail: Tail, recorder: Recorder, store: aioredis.Redis, stream: str
) -> None:
    first, second = neighbours(stream, 2)
    await tail.follow(first, BEGINNING)
    client = await until_it_blocks(store)
    async with asyncio.timeout(LIMIT):
        await tail.follow(second, BEGINNING)
        await log.append(put(second))
        await recorder.until_delivered(second, 1)
        await log.append(put(first))
        await recorder.until_delivered(first, 1)
    assert await until_it_blocks(store) == client, "it has connected again"


async def test_a_stream_is_read_at_once_whenever_follow_meets_the_read(
    log: Log, tail: Tail, recorder: Recorder, stream: str
) -> None:
    """Each delivery starts the next read, and the next follow at a slightly other point of its way to the store."""
    streams = neighbours(stream, 60)
    for number, name in enumerate(streams):
        async with asyncio.timeout(LIMIT):
            appending = asyncio.create_task(log.append(put(streams[0])))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            await tail.follow(name, BEGINNING)
            await appending
            await log.append(put(name))
            await recorder.until_delivered(name, 1)


async def test_30_streams_of_a_partition_followed_at_once_are_all_read(
    log: Log, tail: Tail, recorder: Recorder, stream: str
) -> None:
    streams = neighbours(stream, 30)
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(tail.follow(name, BEGINNING) for name in streams))
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(log.append(put(name)) for name in streams))
        for name in streams:
            await recorder.until_delivered(name, 1)
    assert {name: recorder.numbers(name) for name in streams} == {name: [1] for name in streams}


async def test_unfollow_stops_delivery(
    log: Log, tail: Tail, recorder: Recorder, store: aioredis.Redis, stream: str
) -> None:
    left, followed = neighbours(stream, 2)
    for name in (left, followed):
        await tail.follow(name, BEGINNING)
        await log.append(put(name))
        await recorder.until_delivered(name, 1)
    await until_it_blocks(store)  # in a read that asks for both
    tail.unfollow(left)
    for events in (2, 3):
        await log.append(put(left))
        await log.append(put(followed))
        await recorder.until_delivered(followed, events)
    assert (recorder.numbers(left), recorder.numbers(followed)) == ([1], [1, 2, 3])


async def test_a_stream_followed_anew_goes_on_from_the_new_id(
    log: Log, tail: Tail, recorder: Recorder, store_url: str, store: aioredis.Redis, stream: str
) -> None:
    """An answer to the read of before is on its way meanwhile: nothing that the new id has had comes again."""
    first = await log.append(put(stream))
    await tail.follow(stream, first.cursor.id)
    await until_it_blocks(store)
    # Without a turn of the loop, so that the tail cannot have read it when the stream is followed anew.
    with redis.Redis.from_url(store_url) as blocking:
        second = append_now(blocking, stream, first)
        tail.unfollow(stream)
        await tail.follow(stream, second)
    await log.append(put(stream))
    await recorder.until(lambda: 3 in recorder.numbers(stream))
    assert recorder.numbers(stream) == [3]


def append_now(store: redis.Redis, stream: str, last: Appended) -> str:
    """The event after the last, past the log; its redis id."""
    key = f"{{p{model.partition_of(stream, 16):02d}}}:{stream}:log"
    fields: dict[Any, Any] = {"e": last.cursor.epoch, "n": last.n + 1, "p": f"{last.cursor.id}.{last.cursor.nonce}"}
    fields |= {"u": "f" * 16, "t": "entry.put", "s": model.instant(model.now()), "k": "", "d": "{}", "i": ""}
    id = store.xadd(key, fields)
    assert isinstance(id, bytes)
    return id.decode()


async def test_a_tail_that_follows_nothing_is_sound_and_holds_no_connection(
    log: Log, tail: Tail, recorder: Recorder, store: aioredis.Redis, stream: str
) -> None:
    await eventually(lambda: tail.state is TailState.IDLE)
    assert tail.is_sound()
    await tail.follow(stream, BEGINNING)
    await until_it_blocks(store)
    assert (tail.state, tail.is_sound()) == (TailState.READING, True)
    tail.unfollow(stream)
    await log.append(put(stream))  # ends the read
    await eventually(lambda: tail.state is TailState.IDLE)
    assert (tail.is_sound(), await blocked_reads(store), recorder.events) == (True, [], {})
    await tail.follow(stream, BEGINNING)
    await recorder.until_delivered(stream, 1)


async def test_a_connection_that_is_killed_loses_and_repeats_nothing(
    log: Log, tail: Tail, recorder: Recorder, store: aioredis.Redis, stream: str
) -> None:
    streams = neighbours(stream, 3)
    for name in streams:
        await tail.follow(name, BEGINNING)
    published = asyncio.Event()

    async def publish() -> None:
        while not published.is_set():
            for name in streams:
                await log.append(put(name))

    kills = 8
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish())
        for _ in range(kills):
            verified = len(recorder.verified)
            delivered = len(recorder.numbers(streams[0]))
            await kill_tail(store)
            await recorder.until_verified(verified + 3)
            assert sorted(recorder.verified[verified : verified + 3]) == sorted(streams)
            await recorder.until_delivered(streams[0], delivered + 20)
        published.set()
    for name in streams:
        snapshot = await log.snapshot(name, limit=0)
        assert snapshot is not None
        await recorder.until_delivered(name, snapshot.n)
        assert recorder.numbers(name) == list(range(1, snapshot.n + 1))
    assert len(recorder.verified) >= 3 * kills


async def kill_tail(store: aioredis.Redis) -> None:
    """End the connection of the one tail there is, blocked or not."""
    async with asyncio.timeout(LIMIT):
        while True:
            clients: list[dict[str, Any]] = await store.client_list()
            ids = [client["id"] for client in clients if client["cmd"] == "xread"]
            if ids and await store.client_kill_filter(_id=ids[0]):
                return
            await asyncio.sleep(0.005)


async def test_a_store_that_is_killed_loses_and_repeats_nothing(
    tmp_path: Path, recorder: Recorder, stream: str
) -> None:
    streams = neighbours(stream, 3)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded(tmp_path))
        log = await stack.enter_async_context(log_on(url))
        tail = await stack.enter_async_context(tailing(log, recorder))
        for name in streams:
            await tail.follow(name, BEGINNING)
        await eventually(tail.is_sound)
        keys = count()
        for _ in range(3):
            verified = len(recorder.verified)
            os.kill(int((tmp_path / "valkey.pid").read_text()), signal.SIGKILL)
            appended = [await put_surely(log, name, f"k{next(keys)}") for _ in range(20) for name in streams]
            await recorder.until_verified(verified + 3)
            assert appended[-1].n in (20, 40, 60)
        for name in streams:
            await recorder.until_delivered(name, 60)
            assert recorder.numbers(name) == list(range(1, 61))


@asynccontextmanager
async def log_on(url: str) -> AsyncIterator[Log]:
    store = Store(url, partitions=16)
    try:
        yield Log(store, log_events=1_000, entry_limit=500, idempotency=60)
    finally:
        await store.close()


async def test_it_is_not_sound_while_the_store_is_away(tmp_path: Path, recorder: Recorder, stream: str) -> None:
    async with AsyncExitStack() as stack:
        async with embedded(tmp_path) as url:
            log = await stack.enter_async_context(log_on(url))
            tail = await stack.enter_async_context(tailing(log, recorder))
            await log.append(put(stream))
            await tail.follow(stream, BEGINNING)
            await recorder.until_delivered(stream, 1)
            assert tail.is_sound()
        await eventually(lambda: not tail.is_sound())
        assert recorder.verified == [stream]
        with pytest.raises(StoreError):
            await log.store.ping()
        assert not tail.is_sound()
        async with embedded(tmp_path):
            await eventually(tail.is_sound)
            assert recorder.verified == [stream, stream]
            await log.append(put(stream))
            await recorder.until_delivered(stream, 2)
            assert recorder.numbers(stream) == [1, 2]


async def test_a_verification_that_fails_is_made_again_before_anything_is_read(
    log: Log, tail: Tail, recorder: Recorder, stream: str
) -> None:
    recorder.failures = [StoreError("away"), OSError("away")]
    await log.append(put(stream))
    await tail.follow(stream, BEGINNING)
    await recorder.until(lambda: len(recorder.verified) == 2)
    assert (tail.is_sound(), recorder.events) == (False, {})
    await recorder.until_delivered(stream, 1)
    assert (tail.is_sound(), recorder.verified) == (True, [stream] * 3)


async def test_a_store_that_refuses_each_read_is_asked_less_often_and_logged_once(
    log: Log,
    tail: Tail,
    recorder: Recorder,
    stream: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It lets the tail connect, and verify: as a store whose user lost a right."""
    caplog.set_level("INFO")
    waits: list[float] = []
    stale: list[int | None] = []
    read = TailConnection.read

    def waited(least: float, most: float) -> float:
        waits.append(most)
        stale.append(tail.stale_since)
        return least

    async def refused(connection: TailConnection, after: Mapping[str, str]) -> Any:
        if len(waits) < 4:
            raise StoreError("no permissions to run the 'xread' command")
        return await read(connection, after)

    monkeypatch.setattr("pushserver.live.tail.random.uniform", waited)
    monkeypatch.setattr("pushserver.live.tail.now", partial(next, count(1)))
    monkeypatch.setattr(TailConnection, "read", refused)
    await log.append(put(stream))
    await tail.follow(stream, BEGINNING)
    await recorder.until_delivered(stream, 1)
    assert waits == [RETRY_FIRST, 2 * RETRY_FIRST, 4 * RETRY_FIRST, 8 * RETRY_FIRST]
    assert (stale, tail.stale_since) == ([1] * 4, None), "the instant of the first failure"
    lost, again = caplog.messages
    assert lost.startswith("tail lost: no permissions")
    assert again.startswith("all tails are read again, after 4 failures")


@pytest.mark.parametrize("is_idle", [True, False], ids=["after the tail was idle", "before it could be"])
async def test_a_stream_is_not_stale_since_a_failure_before_it_was_followed(
    log: Log, recorder: Recorder, stream: str, monkeypatch: pytest.MonkeyPatch, is_idle: bool
) -> None:
    """The last reader leaves while the store is away, and the next one comes hours later."""
    follows: list[asyncio.Task[None]] = []
    stale: list[int | None] = []

    async def verify(streams: Mapping[str, str]) -> None:
        stale.append(own.stale_since)
        await recorder.verify(streams)

    def left(least: float, most: float) -> float:
        stale.append(own.stale_since)
        if len(stale) == 2:
            own.unfollow(stream)
            if not is_idle:
                follows.append(asyncio.create_task(own.follow(stream, BEGINNING)))
        return least

    monkeypatch.setattr("pushserver.live.tail.random.uniform", left)
    monkeypatch.setattr("pushserver.live.tail.now", partial(next, count(1)))
    recorder.failures = [StoreError("away"), StoreError("away")]
    await log.append(put(stream))
    own = Tail(log, 0, deliver=recorder.deliver, verify=verify)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(own.run())
        await own.follow(stream, BEGINNING)
        if is_idle:
            await recorder.until_verified(1)
            await eventually(lambda: own.state is TailState.IDLE)
            await own.follow(stream, BEGINNING)
        await recorder.until_delivered(stream, 1)
        await end(task)
    assert stale == [None, 1, None, 2, 2], "before and after the first failure, and the second; then before a read"


async def test_a_tail_that_is_cancelled_ends(log: Log, recorder: Recorder, stream: str) -> None:
    """Told once is enough, wherever between an event and the next read it is."""
    cancels = []
    for turns in range(12):
        tail = Tail(log, 0, deliver=recorder.deliver, verify=recorder.verify)
        task = asyncio.create_task(tail.run())
        after = (await log.append(put(stream))).cursor.id
        await tail.follow(stream, after)
        await log.append(put(stream))
        await recorder.until_delivered(stream, turns + 1)
        for _ in range(turns):
            await asyncio.sleep(0)
        cancels.append(await end(task))
    assert cancels == [1] * 12
