from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing

import pytest

from pushserver.client import TurnedAway, Unreachable, follow

from ..support.server import Running


@pytest.mark.anyio
async def test_it_goes_on_where_it_was_after_a_restart(start: Callable[..., Running], stream: str) -> None:
    server = start()
    server.publish_ok(stream, "0")
    port = server.url.rsplit(":", 1)[1]
    seen: list[str] = []
    following = follow(server.url, stream)
    snapshot = await anext(following)
    seen += [entry["headline"] for entry in snapshot["entries"]]
    for number in range(1, 4):
        server.publish_ok(stream, str(number))
        seen.append((await anext(following))["entry"]["headline"])
        await asyncio.to_thread(server.stop)
        server = await asyncio.to_thread(start, "--port", port)
    await following.aclose()
    assert seen == ["0", "1", "2", "3"]


@pytest.mark.anyio
async def test_a_stream_that_is_not_there_is_not_asked_for_again(server: Running) -> None:
    with pytest.raises(TurnedAway, match="no-such-stream"):
        await anext(follow(server.url, "no-such-stream"))


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["no-such-host.invalid:8000", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://"])
async def test_a_url_that_is_no_servers_is_not_tried(url: str) -> None:
    with pytest.raises(Unreachable, match="The server's URL: "):
        await anext(follow(url, "storm"))


@pytest.mark.anyio
async def test_a_stream_that_is_deleted_ends_with_an_error_and_at_once(server: Running, stream: str) -> None:
    server.publish_ok(stream, "One")
    async with aclosing(follow(server.url, stream)) as frames:
        assert (await anext(frames))["type"] in ("snapshot", "reset")
        server.send("DELETE", f"/streams/{stream}", b"")
        with pytest.raises(TurnedAway, match="the stream was deleted"):
            async for _ in frames:
                pass


@pytest.mark.anyio
async def test_frames_are_json_objects_on_one_line(server: Running, stream: str) -> None:
    server.publish_ok(stream, "line\u2028separator")
    async with aclosing(follow(server.url, stream)) as frames:
        frame = await anext(frames)
    assert "\n" not in json.dumps(frame, ensure_ascii=False)
