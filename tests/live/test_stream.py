"""A takedown reaches what a worker holds of an entry, wherever that is."""

from __future__ import annotations

import pytest

from pushserver import model
from pushserver.codec import dumps
from pushserver.live.fanout import Feed
from pushserver.live.stream import Channel
from pushserver.model import Cursor, Event
from pushserver.store.log import Snapshot
from pushserver.wire.frames import Format

from ..support.server import entry_append

SECRET = "what nobody may read any more"


def cursor(n: int) -> Cursor:
    return Cursor("e" * 16, f"{n}-0", f"{n:016x}")


@pytest.fixture
def channel() -> Channel:
    feed = Feed(cursor(2), 2, ring_events=1, ring_bytes=10**6)
    return Channel("storm", feed, model.unwritten_page("storm"))


def put(n: int, headline: str) -> Event:
    append = entry_append("storm", headline, id=f"id{n}", at=n)
    return Event(cursor(n), cursor(n - 1), n, append.type, dumps(append.data).encode(), append.shown_at, f"id{n}")


def withdrawal(n: int, of: int) -> Event:
    told = {"at": model.instant(n), "id": f"id{of}", "rev": 2, "reason": "error"}
    return Event(cursor(n), cursor(n - 1), n, "entry.withdraw", dumps(told).encode(), model.instant(n), f"id{of}")


@pytest.mark.parametrize("format", Format)
def test_frames_that_readers_have_yet_to_send_forget_it(channel: Channel, format: Format) -> None:
    """They were read from the log before the ring, or have left it since."""
    before, other = channel.frame(put(1, SECRET)), channel.frame(put(2, "something else"))
    assert SECRET in before.text(format)
    channel.take(withdrawal(3, of=1))
    assert SECRET not in before.text(format)
    assert "entry.withdraw" in before.text(format)
    assert "something else" in other.text(format)


@pytest.mark.parametrize("format", Format)
def test_snapshots_that_readers_have_yet_to_send_forget_it(channel: Channel, format: Format) -> None:
    entries = [dumps(entry_append("storm", text, id=id).state) for id, text in (("id1", SECRET), ("id2", "other"))]
    view = channel.view(Snapshot(cursor(2), 2, channel.page, entries, False, model.instant(0), []))
    assert SECRET in view.text(format)
    channel.take(withdrawal(3, of=1))
    assert SECRET not in view.text(format)
    assert "other" in view.text(format)


def test_nothing_is_kept_for_that(channel: Channel) -> None:
    for n in range(3, 50):
        channel.take(put(n, "one"))
    assert len(channel._frames) <= 2
