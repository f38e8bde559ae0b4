"""A takedown reaches what a worker holds of an entry, wherever that is."""

from __future__ import annotations

import pytest

from pushserver import model
from pushserver.codec import dumps
from pushserver.live.fanout import Fanout
from pushserver.live.ring import Ring
from pushserver.live.stream import LiveStream
from pushserver.model import Cursor, Event
from pushserver.store.log import Snapshot
from pushserver.wire.frames import Format

from ..support.server import entry_append

SECRET = "what nobody may read any more"


def cursor(n: int) -> Cursor:
    return Cursor("e" * 16, f"{n}-0", f"{n:016x}")


@pytest.fixture
def stream() -> LiveStream:
    fanout = Fanout(Ring(cursor(2), 2, max_events=1, max_bytes=10**6))
    return LiveStream("storm", fanout, model.unwritten_page("storm"), give_up=lambda stream, why: None)


def put(n: int, headline: str) -> Event:
    append = entry_append("storm", headline, id=f"id{n}", at=n)
    return Event(cursor(n), cursor(n - 1), n, append.type, dumps(append.data).encode(), append.shown_at, f"id{n}")


def withdrawal(n: int, of: int) -> Event:
    told = {"at": model.instant(n), "id": f"id{of}", "rev": 2, "reason": "error"}
    return Event(cursor(n), cursor(n - 1), n, "entry.withdraw", dumps(told).encode(), model.instant(n), f"id{of}")


@pytest.mark.parametrize("format", Format)
def test_frames_that_readers_have_yet_to_send_forget_it(stream: LiveStream, format: Format) -> None:
    """They were read from the log before the ring, or have left it since."""
    before, other = stream.event_frame(put(1, SECRET)), stream.event_frame(put(2, "something else"))
    assert SECRET in before.text(format)
    stream.append(withdrawal(3, of=1))
    assert SECRET not in before.text(format)
    assert "entry.withdraw" in before.text(format)
    assert "something else" in other.text(format)


@pytest.mark.parametrize("format", Format)
def test_snapshots_that_readers_have_yet_to_send_forget_it(stream: LiveStream, format: Format) -> None:
    entries = [dumps(entry_append("storm", text, id=id).state) for id, text in (("id1", SECRET), ("id2", "other"))]
    view = stream.snapshot_frame(Snapshot(cursor(2), 2, stream.page, entries, False, model.instant(0), []))
    assert SECRET in view.text(format)
    stream.append(withdrawal(3, of=1))
    assert SECRET not in view.text(format)
    assert "other" in view.text(format)


def test_nothing_is_kept_for_that(stream: LiveStream) -> None:
    for n in range(3, 50):
        stream.append(put(n, "one"))
    assert len(stream._frames) <= 2
