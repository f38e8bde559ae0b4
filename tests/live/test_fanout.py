from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from pushserver.live.fanout import SWEEPS, BrokenChain, Feed, Reader, State
from pushserver.model import Cursor, Event
from pushserver.wire.codes import Close
from pushserver.wire.frames import Batch, Format, Frame, Notice

EPOCH = "e" * 16


def cursor(n: int) -> Cursor:
    return Cursor(EPOCH, f"{n}-0", f"{n:016x}")


def rendered() -> dict[str, Any]:
    return {"html": "<p>"}


def frame(n: int, *, size: int = 0, html: Callable[[], dict[str, Any]] = rendered) -> Frame:
    data = json.dumps({"at": "x" * size}).encode()
    return Frame(Event(cursor(n), cursor(n - 1), n, "entry.put", data, ""), html)


def feed_of(events: int, *, ring_events: int = 100, ring_bytes: int = 10**9) -> Feed:
    feed = Feed(cursor(0), 0, ring_events=ring_events, ring_bytes=ring_bytes)
    for n in range(1, events + 1):
        feed.append(frame(n))
    return feed


class RecordingReader(Reader):
    """Remembers what it was given; takes `room` writes before it pauses."""

    def __init__(self, format: Format = Format.JSON, room: float = float("inf")) -> None:
        super().__init__(format)
        self.room = room
        self.batches: list[Batch] = []
        self.texts: list[list[str]] = []
        self.closed_with: Close | None = None

    def write(self, batch: Batch) -> None:
        assert self.state is State.OPEN, "written to while it could not take it"
        self.batches.append(batch)
        self.texts.append(list(batch.texts()))
        self.room -= 1
        if self.room <= 0:
            self.state = State.PAUSED

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        assert self.state is not State.CLOSED, "closed twice"
        self.state = State.CLOSED
        self.closed_with = code

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events it was given."""
        texts = [text for written in self.texts for text in written if text]
        return [fields["n"] for fields in map(json.loads, texts) if "n" in fields]


def run(feed: Feed) -> None:
    """Passes, until nothing waits."""
    while stretch(feed) or feed.waits:
        pass


def stretch(feed: Feed, readers: float = float("inf")) -> bool:
    """A stretch of a pass, over so many readers at most."""
    return feed.run(partial(next, itertools.count(1)), readers)


class Interleavings(RuleBasedStateMachine):
    """In whatever order things happen, a reader gets each event from its position on, in order, once, or is closed."""

    readers: Bundle[RecordingReader] = Bundle("readers")

    @initialize(ring=st.integers(1, 6))
    def begin(self, ring: int) -> None:
        self.feed = Feed(cursor(9), 9, ring_events=ring, ring_bytes=10**9)
        self.first: dict[RecordingReader, int] = {}
        self.left: set[RecordingReader] = set()

    @rule()
    def append(self) -> None:
        self.feed.append(frame(self.feed.n + 1))

    @rule(back=st.integers(0, 9), over=st.integers(0, 3))
    def recall(self, back: int, over: int) -> None:
        """What the log has from some event on, up to one of the ring."""
        last_before = self.feed.n_at(self.feed.start)
        known = range(max(1, last_before - back), min(last_before + over, self.feed.n) + 1)
        self.feed.recall([frame(n) for n in known])

    @rule(target=readers, back=st.integers(-2, 6), room=st.integers(1, 4), format=st.sampled_from(Format))
    def join(self, back: int, room: int, format: Format) -> RecordingReader:
        """From the head, from further back in the ring, or from an event that the feed has yet to see."""
        reader = RecordingReader(format, room + 1)
        position = max(self.feed.end - back, self.feed.start)
        self.first[reader] = self.feed.n_at(position) + 1
        self.feed.join(reader, position, cursor(self.feed.n_at(position)), [Notice("")])
        return reader

    @rule(steps=st.integers(1, 8))
    def run_a_stretch(self, steps: int) -> None:
        stretch(self.feed, steps)

    @rule(reader=readers, room=st.integers(1, 3))
    def resume(self, reader: RecordingReader, room: int) -> None:
        if reader.state is State.PAUSED:
            reader.room = room
            self.feed.resume(reader)

    @rule(reader=consumes(readers))
    def leave(self, reader: RecordingReader) -> None:
        self.feed.leave(reader)
        self.left.add(reader)

    @rule()
    def beat(self) -> None:
        for _ in self.feed.beat(Notice("{}")):
            pass

    @rule()
    def sweep(self) -> None:
        for _ in self.feed.sweep():
            pass

    @invariant()
    def no_gap_no_repeat_no_disorder(self) -> None:
        for reader, first in self.first.items():
            numbers = reader.numbers
            assert numbers == list(range(first, first + len(numbers)))

    def teardown(self) -> None:
        """Once all are writable and no more comes, everyone who stayed has everything."""
        for reader in self.first:
            reader.room = float("inf")
            self.feed.resume(reader)
        run(self.feed)
        self.no_gap_no_repeat_no_disorder()
        staying = [reader for reader in self.first if reader not in self.left and reader.closed_with is None]
        assert self.feed.readers == len(staying)
        for reader in staying:
            assert reader.numbers == list(range(self.first[reader], self.feed.n + 1))


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(stateful_step_count=60)


def test_an_event_is_encoded_once_however_many_read_it() -> None:
    renderings = []

    def render() -> dict[str, Any]:
        renderings.append(1)
        return rendered()

    feed = feed_of(0)
    readers = [RecordingReader(format) for format in Format for _ in range(500)]
    for reader in readers:
        feed.join(reader, 0, cursor(feed.n_at(0)), [])
    feed.append(frame(1, html=render))
    run(feed)
    assert len(renderings) == 1
    assert len({id(reader.batches[-1]) for reader in readers}) == len(Format)
    assert len({id(text) for reader in readers for text in reader.texts[-1]}) == len(Format)


def test_a_format_that_nobody_reads_is_not_encoded() -> None:
    def render() -> dict[str, Any]:
        raise AssertionError("rendered for nobody")

    feed = feed_of(0)
    feed.join(RecordingReader(Format.JSON), 0, cursor(feed.n_at(0)), [])
    feed.append(frame(1, html=render))
    run(feed)


def test_what_arrives_during_a_pass_goes_out_joined_with_what_is_left() -> None:
    feed = feed_of(0)
    readers = [RecordingReader() for _ in range(4)]
    for reader in readers:
        feed.join(reader, 0, cursor(feed.n_at(0)), [])
    feed.append(frame(1))
    assert stretch(feed, 2) is True
    feed.append(frame(2))
    assert (stretch(feed), feed.given, feed.waits) == (False, 1, True)
    assert sorted(len(reader.batches) for reader in readers) == [2, 2, 2, 2]
    run(feed)
    assert (feed.given, feed.waits) == (2, False)
    assert sorted(len(reader.batches) for reader in readers) == [2, 2, 3, 3]  # the opening, then one write or two
    assert all(reader.numbers == [1, 2] for reader in readers)


def test_one_write_carries_all_that_a_reader_missed() -> None:
    feed = feed_of(10)
    reader = RecordingReader()
    feed.join(reader, feed.seek(cursor(3)) or 0, cursor(3), [Notice("hello")])
    assert [len(texts) for texts in reader.texts] == [8]


def test_a_reader_that_fell_off_the_ring_is_closed_and_the_others_are_not() -> None:
    feed = feed_of(0, ring_events=3)
    slow, healthy = RecordingReader(room=1), RecordingReader()
    for reader in (slow, healthy):
        feed.join(reader, 0, cursor(feed.n_at(0)), [Notice("")])
    for n in range(1, 5):
        feed.append(frame(n))
        run(feed)
    assert (slow.closed_with, slow.numbers) == (Close.TOO_SLOW, [])
    assert (healthy.closed_with, healthy.numbers) == (None, [1, 2, 3, 4])
    assert feed.readers == 1


def test_a_reader_that_takes_nothing_for_some_sweeps_is_closed_and_counted() -> None:
    closed: list[Close] = []
    feed = Feed(cursor(0), 0, ring_events=10, ring_bytes=10**6, closed=closed.append)
    slow, healthy = RecordingReader(room=1), RecordingReader()
    for reader in (slow, healthy):
        feed.join(reader, 0, cursor(feed.n_at(0)), [Notice("")])
    for _ in range(SWEEPS):
        assert slow.closed_with is None
        list(feed.beat(Notice("{}")))
        list(feed.sweep())
    assert (slow.closed_with, healthy.closed_with) == (Close.TOO_SLOW, None)
    assert closed == [Close.TOO_SLOW]


def test_a_reader_that_takes_something_now_and_then_stays() -> None:
    feed = feed_of(0)
    reader = RecordingReader(room=1)
    feed.join(reader, 0, cursor(feed.n_at(0)), [Notice("")])
    for n in range(1, 10):
        feed.append(frame(n))
        run(feed)
        for _ in range(SWEEPS - 1):
            list(feed.sweep())
        reader.room += 1
        feed.resume(reader)
    assert (reader.closed_with, reader.numbers) == (None, list(range(1, 10)))


def test_the_ring_is_bounded_by_bytes_and_keeps_the_newest() -> None:
    feed = feed_of(0, ring_bytes=2_500)
    for n in range(1, 6):
        feed.append(frame(n, size=1_000))
    assert [feed.seek(cursor(n)) is not None for n in range(6)] == [False, False, False, True, True, True]
    feed.append(frame(6, size=9_000))
    assert (feed.seek(cursor(5)), feed.seek(cursor(6))) == (feed.start, feed.end)


def test_what_came_before_the_ring_is_taken_into_it_as_far_as_it_has_room() -> None:
    feed = Feed(cursor(9), 9, ring_events=5, ring_bytes=10**9)
    feed.append(frame(10))
    feed.append(frame(11))
    feed.recall([frame(n) for n in range(6, 11)])
    assert [feed.seek(cursor(n)) is not None for n in range(5, 12)] == [False, *[True] * 6]
    assert [told.event.n for told in feed.newest()] == [11, 10, 9, 8, 7]
    reader = RecordingReader()
    feed.join(reader, feed.start, cursor(6), [])
    assert reader.numbers == [7, 8, 9, 10, 11]
    feed.append(frame(12))
    assert (feed.seek(cursor(6)), feed.seek(cursor(7))) == (None, feed.start)


def test_what_came_before_the_ring_is_bounded_by_bytes_too() -> None:
    feed = Feed(cursor(9), 9, ring_events=100, ring_bytes=2_500)
    feed.recall([frame(n, size=1_000) for n in range(6, 10)])
    assert [feed.seek(cursor(n)) is not None for n in range(6, 10)] == [False, True, True, True]


def test_only_what_the_ring_goes_on_from_is_taken_into_it() -> None:
    feed = feed_of(3)
    feed.recall([frame(n) for n in range(-5, -2)])
    assert (feed.start, feed.seek(cursor(-6))) == (0, None)
    feed.restart(cursor(5), 5, [Notice("{}")])
    feed.recall([frame(4), frame(5)])
    assert feed.seek(cursor(4)) is None, "it would come before what tells everyone that the log is another"


def test_a_cursor_with_another_nonce_is_not_in_the_ring() -> None:
    assert feed_of(3).seek(cursor(2)._replace(nonce="f" * 16)) is None


@pytest.mark.parametrize("n", [1, 3, 5])
def test_an_event_that_does_not_follow_is_refused(n: int) -> None:
    feed = feed_of(3)
    with pytest.raises(BrokenChain):
        feed.append(frame(n))
    assert feed.n == 3


def test_leaving_twice_changes_nothing() -> None:
    feed = feed_of(1)
    readers = [RecordingReader() for _ in range(3)]
    for reader in readers:
        feed.join(reader, feed.end, cursor(feed.n_at(feed.end)), [])
    feed.leave(readers[0])
    feed.leave(readers[0])
    assert feed.readers == 2
    feed.append(frame(2))
    run(feed)
    assert [reader.numbers for reader in readers] == [[], [2], [2]]


def test_what_was_withdrawn_is_not_sent_by_who_still_holds_it() -> None:
    feed = feed_of(0)
    reader = RecordingReader()
    feed.join(reader, 0, cursor(feed.n_at(0)), [])
    feed.append(frame(1))
    run(feed)
    held = reader.batches[-1]

    def become(frame: Frame) -> None:
        frame.become(frame.event.withdrawn(b'{"id":"x"}'), rendered)

    feed.withdraw("", become)
    assert [json.loads(text)["type"] for text in held.texts()] == ["entry.withdraw"]


def test_a_feed_knows_what_was_withdrawn_since() -> None:
    feed = feed_of(3)
    withdrawal = frame(4)
    withdrawal.event = withdrawal.event._replace(type="entry.withdraw")
    feed.append(withdrawal)
    feed.append(frame(5))
    assert [feed.withdraws_after(feed.position_of(n)) for n in (0, 3, 4, 5)] == [True, True, False, False]


def test_a_pass_ends_while_readers_come_and_go() -> None:
    feed = feed_of(0)
    readers = [RecordingReader() for _ in range(10)]
    for reader in readers:
        feed.join(reader, 0, cursor(feed.n_at(0)), [])
    feed.append(frame(1))
    steps = 1
    while stretch(feed, 1):
        feed.leave(readers.pop(0))
        readers.append(RecordingReader())
        feed.join(readers[-1], feed.end, cursor(feed.n_at(feed.end)), [])
        steps += 1
    assert steps < 30
    assert all(reader.position == feed.end for reader in readers)


def test_at_the_end_who_has_not_had_everything_is_not_sent_away_yet() -> None:
    feed = feed_of(0)
    paused, *others = readers = [RecordingReader(room=1), RecordingReader(), RecordingReader()]
    for reader in readers:
        feed.join(reader, 0, cursor(feed.n_at(0)), [Notice("")])
    feed.append(frame(1))
    list(feed.dismiss(Close.ENDED))
    assert [reader.closed_with for reader in readers] == [None] * 3
    run(feed)
    list(feed.dismiss(Close.ENDED))
    assert [reader.closed_with for reader in (paused, *others)] == [None, Close.ENDED, Close.ENDED]
    paused.room = 2
    feed.resume(paused)
    list(feed.dismiss(Close.ENDED))
    assert [(reader.closed_with, reader.numbers) for reader in readers] == [(Close.ENDED, [1])] * 3


def test_a_frame_that_cannot_be_made_leaves_a_feed_that_lets_its_readers_go() -> None:
    feed = feed_of(0)
    readers = [RecordingReader(Format.HTML) for _ in range(3)]
    for reader in readers:
        feed.join(reader, 0, cursor(feed.n_at(0)), [])

    def fail() -> dict[str, Any]:
        raise KeyError("at")

    feed.append(frame(1, html=fail))
    with pytest.raises(KeyError):
        run(feed)
    list(feed.drop_all(Close.RESTART))
    assert ([reader.closed_with for reader in readers], feed.readers) == ([Close.RESTART] * 3, 0)


def test_a_frame_knows_how_many_it_was_given_to_and_after_how_long() -> None:
    clock = iter([1_007, 1_250])
    feed = Feed(cursor(0), 0, ring_events=10, ring_bytes=10**9, now=lambda: next(clock))
    slow = RecordingReader(room=1)
    for reader in (RecordingReader(), RecordingReader(Format.HTML), slow):
        feed.join(reader, 0, cursor(feed.n_at(0)), [])
    event = frame(1)
    event.event = event.event._replace(cursor=Cursor(EPOCH, "1000-0", "0" * 16))
    feed.append(event)
    run(feed)
    assert (dict(event.sent), feed.behind(event)) == ({7: 2}, 1)
    feed.resume(slow)
    assert (dict(event.sent), feed.behind(event)) == ({7: 2, 250: 1}, 0)
    feed.join(RecordingReader(), 0, cursor(feed.n_at(0)), [])  # who comes later was not late
    assert sum(event.sent.values()) == 3


@pytest.mark.parametrize("told", [[7], [5, 7]], ids=["one of them", "one of them, after another one"])
def test_who_read_ahead_what_the_log_lost_since_is_sent_back(told: list[int]) -> None:
    """A log that was rolled back goes on with another event in the same place, which follows what the feed has."""
    feed = Feed(cursor(0), 0, ring_events=10, ring_bytes=10**6)
    behind, wrong = RecordingReader(), [RecordingReader() for _ in told]
    feed.join(behind, 0, cursor(0), [])
    for reader, name in zip(wrong, told, strict=True):
        feed.join(reader, feed.position_of(2), cursor(name), [])
    feed.append(frame(1))
    assert [reader.state for reader in wrong] == [State.OPEN] * len(told)
    feed.append(frame(2))
    run(feed)
    assert [reader.closed_with for reader in wrong] == [Close.RESTART] * len(told)
    assert behind.numbers == [1, 2]


def test_who_read_ahead_goes_on_where_the_feed_has_the_same() -> None:
    feed = Feed(cursor(0), 0, ring_events=10, ring_bytes=10**6)
    ahead = RecordingReader()
    feed.join(ahead, feed.position_of(2), cursor(2), [])
    for n in (1, 2, 3):
        feed.append(frame(n))
    run(feed)
    assert ahead.numbers == [3]
