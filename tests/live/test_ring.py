"""The ring keeps the newest frames within its bounds, and knows the position of each event."""

from __future__ import annotations

import pytest

from pushserver.live.ring import BrokenChain, Ring
from pushserver.wire.frames import FRAME_BYTES, Coding, EventFrame, Format, Notice, SnapshotFrame

from ..support.frames import cursor, frame, withdrawal


def ring_of(events: int, *, max_events: int = 100, max_bytes: int = 10**9) -> Ring:
    ring = Ring(cursor(0), 0, max_events=max_events, max_bytes=max_bytes)
    for n in range(1, events + 1):
        ring.append(frame(n))
    return ring


def room_for(frames: int) -> int:
    """The bytes of a ring that has room for so many frames of 1,000 bytes."""
    return int(frames * (FRAME_BYTES + 1_050) * 8 / 5)


def cursors_in(ring: Ring, numbers: range) -> list[int]:
    """The events that the ring reaches back to."""
    return [n for n in numbers if ring.seek(cursor(n)) is not None]


def test_it_is_bounded_by_events_and_keeps_the_newest() -> None:
    ring = ring_of(5, max_events=3)
    ring.trim(ring.end)
    assert cursors_in(ring, range(6)) == [2, 3, 4, 5]
    assert [frame.event.n for frame in ring.newest()] == [5, 4, 3]


def test_it_is_bounded_by_bytes_and_keeps_the_newest() -> None:
    ring = Ring(cursor(0), 0, max_events=100, max_bytes=room_for(2))
    for n in range(1, 6):
        ring.append(frame(n, size=1_000))
    ring.trim(ring.end)
    assert cursors_in(ring, range(6)) == [3, 4, 5]
    ring.append(frame(6, size=90_000))
    ring.trim(ring.end)
    assert (ring.seek(cursor(5)), ring.seek(cursor(6))) == (ring.start, ring.end)


def test_frames_that_are_not_delivered_stay_up_to_twice_the_bounds() -> None:
    ring = ring_of(5, max_events=3)
    ring.trim(1)
    assert cursors_in(ring, range(6)) == [1, 2, 3, 4, 5]
    for n in range(6, 9):
        ring.append(frame(n))
    ring.trim(1)
    assert cursors_in(ring, range(9)) == [2, 3, 4, 5, 6, 7, 8]


def test_older_events_are_recalled_as_far_as_there_is_room() -> None:
    ring = Ring(cursor(9), 9, max_events=5, max_bytes=10**9)
    ring.append(frame(10))
    ring.append(frame(11))
    ring.recall([frame(n) for n in range(6, 11)])
    assert cursors_in(ring, range(5, 12)) == [6, 7, 8, 9, 10, 11]
    assert [frame.event.n for frame in ring.newest()] == [11, 10, 9, 8, 7]
    missed = [frame for frame in ring.frames_from(ring.start) if isinstance(frame, EventFrame)]
    assert [frame.event.n for frame in missed] == [7, 8, 9, 10, 11]
    ring.append(frame(12))
    ring.trim(ring.end)
    assert (ring.seek(cursor(6)), ring.seek(cursor(7))) == (None, ring.start)


def test_recalled_events_are_bounded_by_bytes_too() -> None:
    ring = Ring(cursor(9), 9, max_events=100, max_bytes=room_for(2))
    ring.recall([frame(n, size=1_000) for n in range(6, 10)])
    assert cursors_in(ring, range(5, 10)) == [7, 8, 9]


def test_only_events_that_the_ring_goes_on_from_are_recalled() -> None:
    ring = ring_of(3)
    ring.recall([frame(n) for n in range(-5, -2)])
    assert (ring.start, ring.seek(cursor(-6))) == (0, None)


def test_no_event_is_recalled_before_a_reset() -> None:
    """Readers at its position would receive the reset after it, although it belongs to the log after the reset."""
    ring = ring_of(3)
    ring.restart(cursor(5), 5, [Notice("{}")])
    ring.recall([frame(4), frame(5)])
    assert ring.seek(cursor(4)) is None


def test_a_restart_forgets_all_events_and_goes_on_from_another() -> None:
    ring = ring_of(3)
    ring.restart(cursor(7), 7, [Notice("reset"), Notice("snapshot")])
    assert (cursors_in(ring, range(8)), list(ring.newest())) == ([7], [])
    assert (ring.start, ring.end, ring.n_at(ring.end), ring.position_of(7)) == (3, 5, 7, 5)
    ring.append(frame(8))
    assert ring.seek(cursor(8)) == ring.end


def test_a_cursor_with_another_nonce_is_not_in_the_ring() -> None:
    assert ring_of(3).seek(cursor(2)._replace(nonce="f" * 16)) is None


@pytest.mark.parametrize("n", [1, 3, 5])
def test_an_event_that_does_not_follow_is_refused(n: int) -> None:
    ring = ring_of(3)
    with pytest.raises(BrokenChain):
        ring.append(frame(n))
    assert (ring.n, ring.end) == (3, 3)


def test_it_knows_what_was_withdrawn_after_a_position() -> None:
    ring = ring_of(3)
    ring.append(withdrawal(4))
    ring.append(frame(5))
    assert [ring.withdraws_after(ring.position_of(n)) for n in (0, 3, 4, 5)] == [True, True, False, False]


def test_an_event_that_is_replaced_counts_with_its_new_bytes() -> None:
    ring = Ring(cursor(0), 0, max_events=100, max_bytes=room_for(2))
    ring.append(frame(1, size=2_000))
    ring.withdraw("", lambda old: old.replace(old.event.withdrawn(b"{}"), dict))
    ring.append(frame(2, size=1_500))
    ring.trim(ring.end)
    assert cursors_in(ring, range(3)) == [0, 1, 2]


# --- memory


def stored(ring: Ring, event: EventFrame) -> EventFrame:
    """A frame whose encodings the ring counts."""
    event.encodings = ring.encodings
    return event


def test_all_that_it_keeps_is_counted_and_all_is_given_back() -> None:
    ring = ring_of(0)
    events = [stored(ring, frame(n, size=1_000)) for n in range(1, 4)]
    for event in events:
        ring.append(event)
    assert ring.account.bytes == sum(event.size for event in events)
    for coding in Coding:
        for format in Format:
            events[0].encoded(format, coding)
    encoded = sum(len(events[0].encoded(format, coding)) for format in Format for coding in Coding)
    texts = sum(len(events[0].text(format)) for format in Format)
    assert ring.encodings.bytes > encoded + texts
    assert ring.account.bytes == sum(event.size for event in events) + ring.encodings.bytes
    ring.shrink(ring.end, 1)
    assert (list(ring.newest()), ring.encodings.bytes) == (events[2:], 0)
    assert ring.account.bytes == events[2].size


def test_a_frame_that_leaves_the_ring_forgets_what_it_made() -> None:
    ring = ring_of(0, max_events=1)
    for n in (1, 2):
        ring.append(stored(ring, frame(n)))
        next(ring.newest()).encoded(Format.JSON, Coding.MESSAGE)
    ring.trim(ring.end)
    (left,) = ring.newest()
    before = ring.encodings.bytes
    left.encoded(Format.JSON, Coding.MESSAGE)
    assert ring.encodings.bytes == before == ring.account.bytes - left.size


def test_a_restart_counts_its_own_frames_alone() -> None:
    ring = ring_of(3)
    reset, snapshot = Notice("reset"), SnapshotFrame(cursor(7), lambda format: "", size=50_000)
    ring.restart(cursor(7), 7, [reset, snapshot])
    assert ring.account.bytes == reset.size + snapshot.size


def test_a_reset_and_its_snapshot_stay_until_they_are_delivered() -> None:
    """Readers who did not receive them would go on from an event that the log has lost."""
    ring = Ring(cursor(0), 0, max_events=2, max_bytes=room_for(2))
    ring.restart(cursor(7), 7, [Notice("reset"), SnapshotFrame(cursor(7), lambda format: "", size=50_000)])
    for n in range(8, 20):
        ring.append(frame(n, size=1_000))
    ring.shrink(0, 1)
    assert ring.start == 0
    ring.trim(ring.end)
    assert cursors_in(ring, range(20)) == [17, 18, 19]
