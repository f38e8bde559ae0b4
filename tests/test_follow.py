from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.follow import Follower, TurnedAway, Verdict, follow

from .support import Running


def event(n: int, prev: int | None = None) -> dict[str, Any]:
    return {"type": "entry.put", "n": n, "cursor": f"c{n}", "prev": f"c{n - 1 if prev is None else prev}"}


def hello(start: int) -> dict[str, Any]:
    return {"type": "hello", "complete": True, "from": start, "heartbeat": 15}


def at(n: int) -> Follower:
    follower = Follower(f"c{n}")
    follower.take(hello(n))
    return follower


def test_the_next_event_is_applied() -> None:
    follower = at(4)
    assert follower.take(event(5)) is Verdict.APPLY
    assert (follower.n, follower.cursor) == (5, "c5")


@pytest.mark.parametrize(
    ("frame", "verdict"),
    [
        (event(4), Verdict.KNOWN),
        (event(1), Verdict.KNOWN),
        (event(6), Verdict.LOST),
        (event(5, prev=3), Verdict.LOST),
        ({"type": "head", "head": {"n": 4, "cursor": "c4"}}, Verdict.KNOWN),
        ({"type": "head", "head": {"n": 5, "cursor": "c5"}}, Verdict.BEHIND),
        ({"type": "bye", "retry_ms": 1}, Verdict.LOST),
        ({"type": "of a later version"}, Verdict.KNOWN),
    ],
)
def test_nothing_else_moves_the_follower(frame: dict[str, Any], verdict: Verdict) -> None:
    follower = at(4)
    assert follower.take(frame) is verdict
    assert (follower.n, follower.cursor) == (4, "c4")


def test_a_snapshot_moves_it_wherever_it_was() -> None:
    follower = at(4)
    assert follower.take({"type": "snapshot", "n": 2, "cursor": "x2"}) is Verdict.APPLY
    assert (follower.n, follower.cursor) == (2, "x2")


@given(st.lists(st.integers(1, 12)), st.integers(0, 3))
def test_whatever_arrives_in_whatever_order_no_event_is_skipped_or_applied_twice(
    numbers: list[int], start: int
) -> None:
    follower = at(start)
    applied = [n for n in numbers if follower.take(event(n)) is Verdict.APPLY]
    assert applied == list(range(start + 1, start + 1 + len(applied)))


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
async def test_frames_are_json_objects_on_one_line(server: Running, stream: str) -> None:
    server.publish_ok(stream, "line\u2028separator")
    async with aclosing(follow(server.url, stream)) as frames:
        frame = await anext(frames)
    assert "\n" not in json.dumps(frame, ensure_ascii=False)
