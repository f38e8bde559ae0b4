"""Readers who come are started, or closed where the stream or the worker goes away meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from pushserver.errors import Deleted, NotFound, Unavailable
from pushserver.live.hub import Hub
from pushserver.live.reader import ReaderState
from pushserver.live.stream import LiveStream
from pushserver.model import Cursor
from pushserver.store.deletion import Deletions
from pushserver.store.log import Log
from pushserver.wire.codes import Close

from ..support.drains import begun, hurried
from ..support.hubs import RecordingReader, append, delete_log, reading, running

pytestmark = pytest.mark.anyio


async def test_a_reader_who_joins_detects_a_log_that_began_anew(
    hub: Hub, log: Log, store_url: str, stream: str
) -> None:
    """The tail has not delivered the first event of the new log yet."""
    old = (await append(log, stream)).cursor
    async with hub.follow(stream) as live, reading(hub, stream, old) as first:
        await delete_log(store_url, stream)
        reader = RecordingReader()
        with pytest.raises(Unavailable):
            await hub.arrivals.join(live, reader, None)
        assert (reader.frames, reader.state) == ([], ReaderState.OPEN)
        await first.until_closed()
        assert (first.code, first.kinds()[-1]) == (Close.RESTART, "bye")
    with pytest.raises(NotFound):
        async with hub.follow(stream):
            pass


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
                await hub.arrivals.join(live, RecordingReader(), None)
            await append(log, stream)
            await first.until_closed()
        await expect_turned_away(hub, live, old if with_cursor else None)


@pytest.mark.parametrize("with_cursor", [True, False])
async def test_nobody_joins_a_stream_that_is_drained(log: Log, stream: str, with_cursor: bool) -> None:
    cursor = (await append(log, stream)).cursor
    async with running(log) as hub, hub.follow(stream) as live:
        await hub.drain(hurried())
        await expect_turned_away(hub, live, cursor if with_cursor else None)


async def expect_turned_away(hub: Hub, live: LiveStream, cursor: Cursor | None) -> None:
    """Either way the transport says bye; what must not be is a reader whom nothing reaches any more."""
    reader = RecordingReader()
    try:
        await hub.arrivals.join(live, reader, cursor)
    except Unavailable:
        return
    assert (reader.code, reader.kinds()[-1:]) == (Close.RESTART, ["bye"])


async def test_a_request_that_is_here_already_is_admitted_while_another_worker_takes_over(
    log: Log, stream: str
) -> None:
    await append(log, stream)
    async with running(log) as hub, hub.follow(stream) as live:
        leaving = asyncio.create_task(hub.drain(begun(window=1.0), admit=True))
        await hub.leaving.wait()
        late = RecordingReader()
        await hub.arrivals.join(live, late, None)
        await late.until_closed()
        assert (late.kinds()[0], late.frames[-1]["reason"]) == ("hello", "drain")
        leaving.cancel()


async def test_a_reader_whose_stream_is_deleted_while_it_joins_is_closed(hub: Hub, log: Log, stream: str) -> None:
    await append(log, stream)
    live = await hub.enter(stream)
    await Deletions(log).delete(stream)
    reader = RecordingReader()
    await hub.arrivals.welcome(live, reader, None)
    hub.leave(live)
    assert (reader.code, reader.frames[-1]["reason"]) == (Close.ENDED, "deleted")
    with pytest.raises(Deleted):
        await hub.enter(stream)
    assert hub.readers == 0
