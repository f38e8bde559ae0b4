"""A heartbeat tells readers that a quiet connection lives, and lets go of the streams that nobody reads."""

from __future__ import annotations

import pytest

from pushserver.live.heartbeat import IDLE_BEATS
from pushserver.live.hub import Hub
from pushserver.store.log import Log

from ..support.hubs import append, reading, running

pytestmark = pytest.mark.anyio


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


async def test_heartbeats_name_the_readers_of_all_workers_where_they_are_shown(log: Log, stream: str) -> None:
    await append(log, stream)
    async with running(log, show_readers=True) as one, running(log, show_readers=True) as two, running(log) as quiet:
        async with reading(one, stream) as first, reading(two, stream), reading(two, stream):
            await first.until(lambda: any(head["readers_now"] == 3 for head in first.frames_of("head")))
            assert first.frames_of("head")[-1]["readers"] == 1
        async with reading(quiet, stream) as reader:
            await reader.beats(2)
            assert not any("readers_now" in head for head in reader.frames_of("head"))
