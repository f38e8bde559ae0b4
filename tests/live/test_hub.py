"""The hub takes readers in, follows the streams that they read, and sends readers away when the worker stops."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from pushserver.errors import NotFound, Unavailable
from pushserver.live.arrivals import RETRY_MS
from pushserver.live.hub import Hub
from pushserver.live.reader import ReaderState
from pushserver.live.stream import LiveStream
from pushserver.model import Event, StoredPage, partition_of
from pushserver.page import render
from pushserver.store.log import Log, Snapshot
from pushserver.wire.codes import Close
from pushserver.wire.frames import Format

from ..support.drains import begun, hurried
from ..support.hubs import LIMIT, RecordingReader, append, append_and_read, append_at_once, delete_log, reading, running

pytestmark = pytest.mark.anyio


async def test_a_stream_that_does_not_exist_cannot_be_followed(hub: Hub, log: Log, stream: str) -> None:
    with pytest.raises(NotFound):
        async with hub.follow(stream):
            pass
    assert hub.readers == 0
    await append(log, stream)
    async with reading(hub, stream) as reader:
        assert reader.kinds() == ["hello", "snapshot"]


async def test_readers_of_a_stream_share_one_live_stream(hub: Hub, log: Log, stream: str) -> None:
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


async def test_a_burst_of_more_than_the_ring_holds_drops_nobody_who_keeps_up(
    log: Log, store_url: str, stream: str
) -> None:
    first = await append(log, stream)
    async with running(log, heartbeat=30.0) as hub, reading(hub, stream, first.cursor) as reader:
        second = await append_and_read(log, stream, reader, 2)
        await append_at_once(store_url, stream, second, events=100, size=60_000)
        await reader.until(lambda: 102 in reader.numbers() or reader.state is ReaderState.CLOSED)
        assert (reader.code, reader.numbers()) == (None, list(range(2, 103)))


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
        await hub.drain(begun(window=0.2))
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
    async with running(log) as hub, reading(hub, stream) as reader:
        async with asyncio.timeout(LIMIT):
            await hub.drain(hurried())
        assert (reader.code, hub.readers) == (Close.RESTART, 1)


async def test_a_reader_is_sent_to_come_anew_at_the_end_of_its_lifetime(log: Log, stream: str) -> None:
    await append(log, stream)
    async with running(log, lifetime=0.1) as hub, reading(hub, stream) as first, reading(hub, stream) as other:
        await first.until_closed()
        await other.until_closed()
        for reader in (first, other):
            assert (reader.code, reader.frames[-1]["reason"]) == (Close.RESTART, "renew")
            assert 0 < reader.frames[-1]["retry_ms"] <= RETRY_MS
        async with reading(hub, stream) as again:
            assert again.kinds()[0] == "hello"


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
            await hub.arrivals.join(live, reader, None)
        for n in (2, 3):
            await append(log, stream, f"headline {n}")
            for reader in readers:
                await reader.until_read(n)
        assert rendered == [2, 3]
        for reader in readers:
            assert reader.numbers() == [2, 3]
            assert "headline 3" in reader.frames_of("entry.put")[-1]["html"]
            live.fanout.leave(reader)


async def test_a_followed_stream_is_entered_without_the_store(
    log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for the store behind the lock of its partition: one opens a stream, many ask for unknown ones."""
    partitions = log.store.partitions
    names = (f"{stream}-{number}" for number in count())
    other = next(name for name in names if partition_of(name, partitions) == partition_of(stream, partitions))
    snapshot, is_asked, never = log.snapshot, asyncio.Event(), asyncio.Event()

    async def hanging(name: str, **options: Any) -> Snapshot | None:
        if name == stream:
            return await snapshot(name, **options)
        is_asked.set()
        await never.wait()
        return None

    monkeypatch.setattr(log, "snapshot", hanging)
    await append(log, stream)
    async with running(log, heartbeat=LIMIT) as hub, reading(hub, stream):
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(hub.enter(other))]
        waiting += [asyncio.create_task(hub.look_up(f"nothing-{number}")) for number in range(200)]
        async with asyncio.timeout(LIMIT):
            await is_asked.wait()
            await hub.look_up(stream)
            async with hub.follow(stream) as live:
                assert live.users == 2
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_full_worker_looks_nothing_up(log: Log, stream: str) -> None:
    async with running(log, readers=0) as hub:
        with pytest.raises(Unavailable, match="no more readers"):
            await hub.look_up(stream)


async def test_a_stream_that_was_known_and_deleted_is_not_known_any_more(log: Log, stream: str, store_url: str) -> None:
    await append(log, stream)
    async with running(log) as hub:
        await hub.look_up(stream)
        await delete_log(store_url, stream)
        await hub.look_up(stream)
        with pytest.raises(NotFound):
            await hub.enter(stream)
        with pytest.raises(NotFound):
            await hub.look_up(stream)
        assert hub.readers == 0


async def test_readers_of_a_deleted_stream_are_closed_and_those_of_a_new_epoch_stay(
    hub: Hub, log: Log, stream: str
) -> None:
    first = await append(log, stream)
    async with reading(hub, stream, first.cursor) as reader:
        assert await hub.delete(stream, "0" * 16) == 0
        assert await hub.delete(stream, first.cursor.epoch) == 1
        assert (reader.code, reader.frames[-1]["type"], reader.frames[-1]["reason"]) == (Close.ENDED, "bye", "deleted")
    assert await hub.delete(stream, first.cursor.epoch) == 0
