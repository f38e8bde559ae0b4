from __future__ import annotations

import itertools
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from pushserver import metrics
from pushserver.live.fanout import Fanout
from pushserver.live.reader import Reader, ReaderState
from pushserver.live.ring import Ring
from pushserver.live.slow_readers import SLOWEST, SWEEPS
from pushserver.model import Cursor
from pushserver.wire.accounts import Account
from pushserver.wire.codes import Close
from pushserver.wire.frames import Batch, Coding, EventFrame, Format, Notice

from ..support.frames import EPOCH, cursor, frame, rendered


def fanout_of(events: int, *, ring_events: int = 100, ring_bytes: int = 10**9) -> Fanout:
    fanout = Fanout(Ring(cursor(0), 0, max_events=ring_events, max_bytes=ring_bytes))
    for n in range(1, events + 1):
        fanout.append(frame(n))
    return fanout


class RecordingReader(Reader):
    """RecordingReader keeps the batches that it received; it takes `room` writes before it pauses."""

    def __init__(
        self, format: Format = Format.JSON, room: float = float("inf"), coding: Coding = Coding.MESSAGE
    ) -> None:
        super().__init__(format, coding)
        self.room = room
        self.batches: list[Batch] = []
        self.texts: list[list[str]] = []
        self.closed_with: Close | None = None

    def write(self, batch: Batch) -> None:
        assert self.state is ReaderState.OPEN, "written to while it could not take it"
        self.batches.append(batch)
        texts = list(batch.texts())
        assert b"".join([batch.first()[0], *batch.rest()]).count(b'"n":') == "".join(texts).count('"n":')
        self.texts.append(texts)
        self.room -= 1
        if self.room <= 0:
            self.state = ReaderState.PAUSED

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        assert self.state is not ReaderState.CLOSED, "closed twice"
        self.state = ReaderState.CLOSED
        self.closed_with = code

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events it received."""
        texts = [text for written in self.texts for text in written if text]
        return [fields["n"] for fields in map(json.loads, texts) if "n" in fields]


def run(fanout: Fanout) -> None:
    """Passes, until nothing waits."""
    while stretch(fanout) or fanout.is_pending:
        pass


def stretch(fanout: Fanout, readers: float = float("inf")) -> bool:
    """A stretch of a pass, over so many readers at most."""
    return fanout.run(partial(next, itertools.count(1)), readers)


class Interleavings(RuleBasedStateMachine):
    """In whatever order things happen, a reader gets each event from its position on, in order, once, or is closed."""

    readers: Bundle[RecordingReader] = Bundle("readers")

    @initialize(ring=st.integers(1, 6), kib=st.integers(4, 40))
    def begin(self, ring: int, kib: int) -> None:
        self.memory, self.max_bytes = Account(), kib * 1024
        account = Account(self.memory)
        self.fanout = Fanout(Ring(cursor(9), 9, max_events=ring, max_bytes=self.max_bytes, account=account))
        self.first: dict[RecordingReader, int] = {}
        self.left: set[RecordingReader] = set()

    def frame(self, n: int, size: int = 0) -> EventFrame:
        event = frame(n, size=size)
        event.encodings = self.fanout.ring.encodings
        return event

    @rule(size=st.integers(0, 3_000))
    def append(self, size: int) -> None:
        self.fanout.append(self.frame(self.fanout.ring.n + 1, size))

    @rule(back=st.integers(0, 9), over=st.integers(0, 3))
    def recall(self, back: int, over: int) -> None:
        """Recall events of the log, from some event on up to one of the ring."""
        last_before = self.fanout.ring.n_at(self.fanout.ring.start)
        known = range(max(1, last_before - back), min(last_before + over, self.fanout.ring.n) + 1)
        self.fanout.ring.recall([self.frame(n) for n in known])

    @rule(part=st.integers(1, 5))
    def shrink(self, part: int) -> None:
        """The worker keeps too much: the ring lets go of all that it can make again, and of older events."""
        self.fanout.shrink(self.fanout.ring.account.bytes // part)

    @rule()
    def age(self) -> None:
        self.fanout.ring.encodings.age()

    @rule(
        target=readers,
        back=st.integers(-2, 6),
        room=st.integers(1, 4),
        format=st.sampled_from(Format),
        sse=st.booleans(),
    )
    def join(self, back: int, room: int, format: Format, sse: bool) -> RecordingReader:
        """From the head, from further back in the ring, or from an event that the fanout has yet to see."""
        reader = RecordingReader(format, room + 1, Coding.EVENT if sse else Coding.MESSAGE)
        position = max(self.fanout.ring.end - back, self.fanout.ring.start)
        self.first[reader] = self.fanout.ring.n_at(position) + 1
        self.fanout.join(reader, position, cursor(self.fanout.ring.n_at(position)), [Notice("")])
        return reader

    @rule(steps=st.integers(1, 8))
    def run_a_stretch(self, steps: int) -> None:
        stretch(self.fanout, steps)

    @rule(reader=readers, room=st.integers(1, 3))
    def resume(self, reader: RecordingReader, room: int) -> None:
        if reader.state is ReaderState.PAUSED:
            reader.room = room
            self.fanout.resume(reader)

    @rule(reader=consumes(readers))
    def leave(self, reader: RecordingReader) -> None:
        self.fanout.leave(reader)
        self.left.add(reader)

    @rule()
    def beat(self) -> None:
        for _ in self.fanout.beat(Notice("{}")):
            pass

    @rule()
    def sweep(self) -> None:
        for _ in self.fanout.sweep():
            pass

    @invariant()
    def no_gap_no_repeat_no_disorder(self) -> None:
        for reader, first in self.first.items():
            numbers = reader.numbers
            assert numbers == list(range(first, first + len(numbers)))

    @invariant()
    def all_that_is_kept_is_counted_and_bounded(self) -> None:
        ring = self.fanout.ring
        events = [event.size for event in ring.newest()]
        batches = [len(batch.first()[0]) for batch in self.fanout._batches.values() if len(batch.frames) > 1]
        assert ring.account.bytes == sum(events) + ring.encodings.bytes + sum(batches)
        assert self.memory.bytes == ring.account.bytes
        assert len(events) == 1 or sum(events) <= 2 * (self.max_bytes * 5 // 8 + 1)

    def teardown(self) -> None:
        """Once all are writable and no more comes, everyone who stayed has everything."""
        for reader in self.first:
            reader.room = float("inf")
            self.fanout.resume(reader)
        run(self.fanout)
        self.no_gap_no_repeat_no_disorder()
        staying = [reader for reader in self.first if reader not in self.left and reader.closed_with is None]
        assert self.fanout.readers == len(staying)
        for reader in staying:
            assert reader.numbers == list(range(self.first[reader], self.fanout.ring.n + 1))


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(stateful_step_count=60)


def test_an_event_is_encoded_once_however_many_read_it() -> None:
    renderings = []

    def render() -> dict[str, Any]:
        renderings.append(1)
        return rendered()

    fanout = fanout_of(0)
    readers = [RecordingReader(format) for format in Format for _ in range(500)]
    for reader in readers:
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [])
    fanout.append(frame(1, html=render))
    run(fanout)
    assert len(renderings) == 1
    assert len({id(reader.batches[-1]) for reader in readers}) == len(Format)
    assert len({id(text) for reader in readers for text in reader.texts[-1]}) == len(Format)


def test_a_format_that_nobody_reads_is_not_encoded() -> None:
    def render() -> dict[str, Any]:
        raise AssertionError("rendered for nobody")

    fanout = fanout_of(0)
    fanout.join(RecordingReader(Format.JSON), 0, cursor(fanout.ring.n_at(0)), [])
    fanout.append(frame(1, html=render))
    run(fanout)


def test_what_arrives_during_a_pass_goes_out_joined_with_what_is_left() -> None:
    fanout = fanout_of(0)
    readers = [RecordingReader() for _ in range(4)]
    for reader in readers:
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [])
    fanout.append(frame(1))
    assert stretch(fanout, 2) is True
    fanout.append(frame(2))
    assert (stretch(fanout), fanout.delivered, fanout.is_pending) == (False, 1, True)
    assert sorted(len(reader.batches) for reader in readers) == [2, 2, 2, 2]
    run(fanout)
    assert (fanout.delivered, fanout.is_pending) == (2, False)
    assert sorted(len(reader.batches) for reader in readers) == [2, 2, 3, 3]  # the opening, then one write or two
    assert all(reader.numbers == [1, 2] for reader in readers)


def test_one_write_carries_all_that_a_reader_missed() -> None:
    fanout = fanout_of(10)
    reader = RecordingReader()
    fanout.join(reader, fanout.ring.seek(cursor(3)) or 0, cursor(3), [Notice("hello")])
    assert [len(texts) for texts in reader.texts] == [8]


def test_a_reader_that_fell_off_the_ring_is_closed_and_the_others_are_not() -> None:
    fanout = fanout_of(0, ring_events=3)
    slow, healthy = RecordingReader(room=1), RecordingReader()
    for reader in (slow, healthy):
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [Notice("")])
    for n in range(1, 5):
        fanout.append(frame(n))
        run(fanout)
    assert (slow.closed_with, slow.numbers) == (Close.TOO_SLOW, [])
    assert (healthy.closed_with, healthy.numbers) == (None, [1, 2, 3, 4])
    assert fanout.readers == 1


def test_a_reader_that_takes_nothing_for_some_sweeps_is_closed_and_counted() -> None:
    closed: list[Close] = []
    fanout = Fanout(Ring(cursor(0), 0, max_events=10, max_bytes=10**6), on_drop=lambda code, _: closed.append(code))
    slow, healthy = RecordingReader(room=1), RecordingReader()
    for reader in (slow, healthy):
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [Notice("")])
    for _ in range(SWEEPS):
        assert slow.closed_with is None
        list(fanout.beat(Notice("{}")))
        list(fanout.sweep())
    assert (slow.closed_with, healthy.closed_with) == (Close.TOO_SLOW, None)
    assert closed == [Close.TOO_SLOW]


def test_a_reader_that_takes_something_now_and_then_stays() -> None:
    fanout = fanout_of(0)
    reader = RecordingReader(room=1)
    fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [Notice("")])
    for n in range(1, 10):
        fanout.append(frame(n))
        run(fanout)
        for _ in range(SWEEPS - 1):
            list(fanout.sweep())
        reader.room += 1
        fanout.resume(reader)
    assert (reader.closed_with, reader.numbers) == (None, list(range(1, 10)))


def test_leaving_twice_changes_nothing() -> None:
    fanout = fanout_of(1)
    readers = [RecordingReader() for _ in range(3)]
    for reader in readers:
        fanout.join(reader, fanout.ring.end, cursor(fanout.ring.n_at(fanout.ring.end)), [])
    fanout.leave(readers[0])
    fanout.leave(readers[0])
    assert fanout.readers == 2
    fanout.append(frame(2))
    run(fanout)
    assert [reader.numbers for reader in readers] == [[], [2], [2]]


def test_a_withdrawn_text_is_not_sent_from_a_batch_that_was_made_before() -> None:
    fanout = fanout_of(0)
    reader = RecordingReader()
    fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [])
    fanout.append(frame(1))
    run(fanout)
    batch = reader.batches[-1]

    def replace(frame: EventFrame) -> None:
        frame.replace(frame.event.withdrawn(b'{"id":"x"}'), rendered)

    fanout.withdraw("", replace)
    assert [json.loads(text)["type"] for text in batch.texts()] == ["entry.withdraw"]


def test_a_pass_ends_while_readers_come_and_go() -> None:
    fanout = fanout_of(0)
    readers = [RecordingReader() for _ in range(10)]
    for reader in readers:
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [])
    fanout.append(frame(1))
    steps = 1
    while stretch(fanout, 1):
        fanout.leave(readers.pop(0))
        readers.append(RecordingReader())
        fanout.join(readers[-1], fanout.ring.end, cursor(fanout.ring.n_at(fanout.ring.end)), [])
        steps += 1
    assert steps < 30
    assert all(reader.position == fanout.ring.end for reader in readers)


def test_at_the_end_who_has_not_had_everything_is_not_sent_away_yet() -> None:
    fanout = fanout_of(0)
    paused, *others = readers = [RecordingReader(room=1), RecordingReader(), RecordingReader()]
    for reader in readers:
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [Notice("")])
    fanout.append(frame(1))
    list(fanout.dismiss(Close.ENDED))
    assert [reader.closed_with for reader in readers] == [None] * 3
    run(fanout)
    list(fanout.dismiss(Close.ENDED))
    assert [reader.closed_with for reader in (paused, *others)] == [None, Close.ENDED, Close.ENDED]
    paused.room = 2
    fanout.resume(paused)
    list(fanout.dismiss(Close.ENDED))
    assert [(reader.closed_with, reader.numbers) for reader in readers] == [(Close.ENDED, [1])] * 3


def test_readers_can_be_closed_after_a_pass_that_failed() -> None:
    fanout = fanout_of(0)
    readers = [RecordingReader(Format.HTML) for _ in range(3)]
    for reader in readers:
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [])

    def fail() -> dict[str, Any]:
        raise KeyError("at")

    fanout.append(frame(1, html=fail))
    with pytest.raises(KeyError):
        run(fanout)
    list(fanout.drop_all(Close.RESTART))
    assert ([reader.closed_with for reader in readers], fanout.readers) == ([Close.RESTART] * 3, 0)


def test_a_frame_counts_its_readers_by_latency() -> None:
    clock = iter([1_007, 1_250])
    fanout = Fanout(Ring(cursor(0), 0, max_events=10, max_bytes=10**9), now=lambda: next(clock))
    slow = RecordingReader(room=1)
    for reader in (RecordingReader(), RecordingReader(Format.HTML), slow):
        fanout.join(reader, 0, cursor(fanout.ring.n_at(0)), [])
    event = frame(1)
    event.event = event.event._replace(cursor=Cursor(EPOCH, "1000-0", "0" * 16))
    fanout.append(event)
    run(fanout)
    assert (dict(event.latencies), fanout.behind(event)) == ({7: 2}, 1)
    fanout.resume(slow)
    assert (dict(event.latencies), fanout.behind(event)) == ({7: 2, 250: 1}, 0)
    fanout.join(RecordingReader(), 0, cursor(fanout.ring.n_at(0)), [])  # who comes later was not late
    assert sum(event.latencies.values()) == 3


@pytest.mark.parametrize("names", [[7], [5, 7]], ids=["one of them", "one of them, after another one"])
def test_a_reader_who_read_ahead_an_event_that_the_log_lost_since_is_closed(names: list[int]) -> None:
    """A log that was rolled back goes on with another event in the same place, which follows what the fanout has."""
    fanout = Fanout(Ring(cursor(0), 0, max_events=10, max_bytes=10**6))
    behind, wrong = RecordingReader(), [RecordingReader() for _ in names]
    fanout.join(behind, 0, cursor(0), [])
    for reader, name in zip(wrong, names, strict=True):
        fanout.join(reader, fanout.ring.position_of(2), cursor(name), [])
    fanout.append(frame(1))
    assert [reader.state for reader in wrong] == [ReaderState.OPEN] * len(names)
    fanout.append(frame(2))
    run(fanout)
    assert [reader.closed_with for reader in wrong] == [Close.RESTART] * len(names)
    assert behind.numbers == [1, 2]


def test_a_reader_who_read_ahead_goes_on_where_the_ring_gets_the_same_event() -> None:
    fanout = Fanout(Ring(cursor(0), 0, max_events=10, max_bytes=10**6))
    ahead = RecordingReader()
    fanout.join(ahead, fanout.ring.position_of(2), cursor(2), [])
    for n in (1, 2, 3):
        fanout.append(frame(n))
    run(fanout)
    assert ahead.numbers == [3]


def test_each_event_is_written_once_a_pass_however_many_readers_and_variants_there_are() -> None:
    written: list[int] = []
    ring = Ring(cursor(0), 0, max_events=100, max_bytes=10**6)
    fanout = Fanout(ring, on_written=lambda event: written.append(event.n))
    fanout.append(frame(1))
    assert written == [], "nobody was there to have it"
    for coding in Coding:
        fanout.join(RecordingReader(coding=coding), 1, cursor(1), [Notice("")])
    before = metrics.WRITTEN.value()
    for n in (2, 3):
        fanout.append(frame(n))
    run(fanout)
    assert written == [2, 3]
    assert metrics.WRITTEN.value() - before == 2 * len(Coding)
    run(fanout)
    assert written == [2, 3]


def test_the_readers_that_take_nothing_for_the_longest_are_remembered() -> None:
    fanout = fanout_of(0)
    paused = [RecordingReader(room=1) for _ in range(SLOWEST + 5)]
    healthy = RecordingReader()
    for reader in (*paused, healthy):
        fanout.join(reader, 0, cursor(0), [Notice("")])
    for reader in paused[:3]:
        reader.stalled = 2
    list(fanout.sweep())
    assert fanout.paused == len(paused)
    assert len(fanout.slow) == SLOWEST
    assert {*paused[:3]} <= {*fanout.slow}
    assert healthy not in fanout.slow
    for reader in paused:
        reader.room = 5
        fanout.resume(reader)
    list(fanout.sweep())
    assert (fanout.paused, fanout.slow) == (0, [])
