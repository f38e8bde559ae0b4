"""A live stream withdraws a text from all of a worker's memory, runs passes, and gives up where one fails."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from sys import getsizeof
from typing import Any

import pytest

from pushserver import model
from pushserver.codec import dumps
from pushserver.live.fanout import Fanout
from pushserver.live.reader import Reader
from pushserver.live.ring import Ring
from pushserver.live.stream import LiveStream
from pushserver.model import Cursor, Event
from pushserver.page import render
from pushserver.store.log import Snapshot
from pushserver.wire.codes import Close
from pushserver.wire.frames import Batch, Format, Notice

from ..support.server import entry_append

SECRET = "a text that was withdrawn"
LIMIT = 20.0  # seconds after which a test gives up waiting


def cursor(n: int) -> Cursor:
    return Cursor("e" * 16, f"{n}-0", f"{n:016x}")


class Reading(Reader):
    """Reading is a reader that keeps the texts it received, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(Format.JSON)
        self.texts: list[str] = []
        self.more = asyncio.Event()
        self._fails = fails

    def write(self, batch: Batch) -> None:
        texts = list(batch.texts())
        if self._fails and texts:
            raise KeyError("at")
        self.texts += texts
        self.more.set()

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        raise AssertionError("closed")


def live(given_up: list[str], *, max_events: int = 1) -> LiveStream:
    fanout = Fanout(Ring(cursor(2), 2, max_events=max_events, max_bytes=10**6))
    page = model.unwritten_page("storm")
    return LiveStream("storm", fanout, page, give_up=lambda stream, why: given_up.append(why))


@pytest.fixture
def stream() -> LiveStream:
    return live([])


def put(n: int, headline: str) -> Event:
    append = entry_append("storm", headline, id=f"id{n}", at=n)
    return Event(cursor(n), cursor(n - 1), n, append.type, dumps(append.data).encode(), append.shown_at, f"id{n}")


def withdrawal(n: int, of: int) -> Event:
    fields = {"at": model.instant(n), "id": f"id{of}", "rev": 2, "reason": "error"}
    return Event(cursor(n), cursor(n - 1), n, "entry.withdraw", dumps(fields).encode(), model.instant(n), f"id{of}")


# --- withdrawals


@pytest.mark.parametrize("format", Format)
def test_a_withdrawn_text_is_removed_from_frames_that_wait_to_be_sent(stream: LiveStream, format: Format) -> None:
    """They were read from the log before the ring, or have left it since."""
    before, other = stream.event_frame(put(1, SECRET)), stream.event_frame(put(2, "something else"))
    assert SECRET in before.text(format)
    stream.append(withdrawal(3, of=1))
    assert SECRET not in before.text(format)
    assert "entry.withdraw" in before.text(format)
    assert "something else" in other.text(format)


@pytest.mark.parametrize("format", Format)
def test_a_withdrawn_text_is_removed_from_snapshots_that_wait_to_be_sent(stream: LiveStream, format: Format) -> None:
    entries = [dumps(entry_append("storm", text, id=id).state) for id, text in (("id1", SECRET), ("id2", "other"))]
    frame = stream.snapshot_frame(Snapshot(cursor(2), 2, stream.page, entries, False, model.instant(0), []))
    assert SECRET in frame.text(format)
    stream.append(withdrawal(3, of=1))
    assert SECRET not in frame.text(format)
    assert "other" in frame.text(format)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_snapshot_in_html_has_the_parts_of_the_page(stream: LiveStream, count: int) -> None:
    headlines = [f'"{number}" \\u0000 <b>& \u2028' for number in range(count)]
    entries = [dumps(entry_append("storm", text, id=f"id{at}").state) for at, text in enumerate(headlines)]
    page: Any = {**stream.page, "headline": "\\u0000 &"}
    snapshot = Snapshot(cursor(2), 2, page, entries, bool(count), model.instant(0), [])
    frame = json.loads(stream.snapshot_frame(snapshot).text(Format.HTML))
    older = render.older_link(entries) if count else None
    assert frame["parts"] == render.parts(page, render.items(page, entries), older=older)


def test_a_withdrawn_text_is_removed_from_the_events_before_a_recovery(stream: LiveStream) -> None:
    snapshot = Snapshot(cursor(2), 2, stream.page, [], False, model.instant(0), [])
    asyncio.run(restart(stream, snapshot, [put(1, SECRET)]))
    stream.append(withdrawal(3, of=1))
    assert [event.type for event in stream.recent_events(10)] == ["entry.withdraw", "entry.withdraw"]
    assert SECRET.encode() not in b"".join(event.data for event in stream.recent_events(10))


async def restart(stream: LiveStream, snapshot: Snapshot, past: list[Event]) -> None:
    stream.restart(snapshot, [], past)


def test_frames_that_nothing_else_refers_to_are_not_kept(stream: LiveStream) -> None:
    for n in range(3, 50):
        stream.append(put(n, "one"))
    assert len(stream._frames) <= 2


# --- what readers share


def test_a_page_that_an_event_brought_takes_no_more_than_is_counted() -> None:
    """It stays as it came: read as JSON, a page of many topics is ten times as large."""
    stream = live([], max_events=100)
    page: Any = {**model.unwritten_page("storm"), "topics": [{"label": f"Topic {number}"} for number in range(100)]}
    events = [
        Event(cursor(n), cursor(n - 1), n, "page.put", dumps({"page": {**page, "rev": n}}).encode(), page["updated_at"])
        for n in range(3, 53)
    ]
    stream.append(events[0])
    tracemalloc.start()
    try:
        for event in events[1:]:
            stream.append(event)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    counted = stream.account.bytes - sum(len(event.data) for event in events)
    assert used < 2 * counted  # the page as it is now is in memory once more
    assert stream.page["rev"] == 52


@pytest.mark.parametrize("text", ["a", "日", "😀"])
def test_a_snapshot_counts_with_the_width_of_its_characters(stream: LiveStream, text: str) -> None:
    entry = dumps({"id": "one", "headline": text * 1_000})
    page = model.unwritten_page("storm")
    frame = stream.snapshot_frame(Snapshot(cursor(2), 2, page, [entry], False, page["updated_at"], []))
    assert frame.size == getsizeof(entry)


def test_a_snapshot_is_kept_until_the_next_event(stream: LiveStream) -> None:
    snapshot = Snapshot(cursor(2), 2, stream.page, [], False, model.instant(0), [])
    assert stream.latest_snapshot() is None
    stream.keep_snapshot(snapshot, stream.snapshot_frame(snapshot))
    latest: Any = stream.latest_snapshot()
    assert latest[0] is snapshot
    stream.append(put(3, "one"))
    assert stream.latest_snapshot() is None


def test_readers_who_start_at_the_same_place_share_a_hello(stream: LiveStream) -> None:
    first = stream.hello(2, None, 15.0)
    assert stream.hello(2, None, 15.0) is first
    assert stream.hello(1, None, 15.0) is not first
    stream.append(put(3, "one"))
    assert stream.hello(2, None, 15.0) is not first


# --- passes


@pytest.mark.anyio
async def test_a_pass_delivers_what_was_appended(stream: LiveStream) -> None:
    reader = Reading()
    stream.fanout.join(reader, stream.ring.end, stream.ring.head, [])
    reader.more.clear()
    stream.append(put(3, "one"))
    stream.begin_pass()
    stream.begin_pass()  # one is about to begin
    async with asyncio.timeout(LIMIT):
        await reader.more.wait()
        report = await stream.report("id3", 3, wait=LIMIT)
    assert (report["state"], report["readers"], report["behind"]) == ("reached", 1, 0)
    assert len(reader.texts) == 1


@pytest.mark.anyio
async def test_a_pass_that_fails_gives_the_stream_up() -> None:
    given_up: list[str] = []
    stream = live(given_up)
    stream.fanout.join(Reading(fails=True), stream.ring.end, stream.ring.head, [])
    stream.append(put(3, "one"))
    stream.begin_pass()
    async with asyncio.timeout(LIMIT):
        while not given_up:
            await asyncio.sleep(0)
    assert given_up == ["KeyError('at')"]


@pytest.mark.anyio
async def test_an_event_that_does_not_come_is_waited_for_no_longer_than_asked(stream: LiveStream) -> None:
    assert (await stream.report("id9", 9, wait=0.01))["state"] == "waiting"
    assert (await stream.report("id1", 1, wait=0.01))["state"] == "forgotten"


@pytest.mark.anyio
async def test_a_stream_counts_the_heartbeats_since_somebody_read_it(stream: LiveStream) -> None:
    counted = []
    for users in (0, 0, 1, 0, 0):
        stream.users = users
        await stream.beat(model.instant(0), None)
        counted.append(stream.idle_beats)
    assert counted == [1, 2, 0, 1, 2]
