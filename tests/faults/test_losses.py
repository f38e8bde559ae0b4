"""What the log does not hold any more: readers who had it, or slept meanwhile, are told before anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.server import Running, reader, receive

pytestmark = pytest.mark.anyio


async def test_a_reader_who_slept_past_the_trim_is_told_and_given_the_newest(
    start: Callable[..., Running], stream: str
) -> None:
    server = start("--log-events", "100", "--ring-events", "50", "--page-entries", "10")
    cursor = server.publish_ok(stream, "before")["cursor"]
    lines = b"".join(json.dumps({"headline": f"missed {number}"}).encode() + b"\n" for number in range(1_000))
    answer = server.send("POST", f"/streams/{stream}/entries", lines, Content_Type="application/x-ndjson")
    assert answer.text.count('"status":201') == 1_000
    async with reader(server, stream, cursor=cursor) as socket:
        hello, snapshot = await receive(socket), await receive(socket)
        assert (hello["complete"], hello["reason"]) == (False, "trimmed")
        assert [entry["headline"] for entry in snapshot["entries"]] == [f"missed {n}" for n in range(999, 989, -1)]
        live = server.publish_ok(stream, "after")
        frame = await receive(socket)
        assert (frame["n"], frame["prev"], live["n"]) == (1_002, snapshot["cursor"], 1_002)


async def test_a_store_whose_data_were_cut_off_starts_says_so_and_tells_who_had_more(
    start: Callable[..., Running], stream: str
) -> None:
    """As when the machine lost its power within a write, on a disk that had said that it was done."""
    server = start()
    cursors = [server.publish_ok(stream, headline)["cursor"] for headline in ("one", "two", "three")]
    assert server.stop() == 0
    cut_last_event(server.data)
    server = start()
    assert "the embedded store says: !!! Warning: short read while loading the AOF" in server.log
    assert [entry["headline"] for entry in server.snapshot(stream)["entries"]] == ["two", "one"]
    other = server.publish_ok(stream, "another")
    assert other["n"] == 3
    async with reader(server, stream, cursor=cursors[2]) as socket:
        hello, snapshot = await receive(socket), await receive(socket)
        assert (hello["complete"], hello["reason"]) == (False, "rollback")
        assert [entry["headline"] for entry in snapshot["entries"]] == ["another", "two", "one"]
    async with reader(server, stream, cursor=cursors[1]) as socket:
        hello, frame = await receive(socket), await receive(socket)
        assert (hello["complete"], frame["cursor"]) == (True, other["cursor"])


def cut_last_event(data: Path) -> None:
    """Cut the store's file within the last event that it holds."""
    (file,) = data.glob("appendonlydir/*.incr.aof")
    os.truncate(file, file.read_bytes().rindex(b"XADD") + 20)
