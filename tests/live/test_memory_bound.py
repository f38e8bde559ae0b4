"""All streams of a worker share one bound; the least recently read one shrinks first."""

from __future__ import annotations

import gc
import tracemalloc

from pushserver import model
from pushserver.live.fanout import Fanout
from pushserver.live.memory_bound import Memory
from pushserver.live.ring import Ring
from pushserver.live.stream import LiveStream
from pushserver.store.log import Snapshot
from pushserver.wire.accounts import Account
from pushserver.wire.frames import Coding, Format

from ..support.frames import cursor, frame, withdrawal

KIB = 1024


def stream_of(memory: Memory, name: str, events: int, *, size: int = KIB) -> LiveStream:
    ring = Ring(cursor(0), 0, max_events=1_000, max_bytes=10**7, account=Account(memory))
    stream = LiveStream(name, Fanout(ring), model.unwritten_page(name), give_up=lambda *_: None, memory=memory)
    append(stream, events, size=size)
    return stream


def append(stream: LiveStream, events: int, *, size: int = KIB) -> None:
    for _ in range(events):
        stream.append(frame(stream.ring.n + 1, size=size).event)


def counted(stream: LiveStream) -> int:
    """The events that its ring has."""
    return len(list(stream.ring.newest()))


def test_the_stream_that_was_read_least_recently_shrinks_first() -> None:
    memory = Memory(550 * KIB)
    first, second, third = (stream_of(memory, f"s{events}", events) for events in (30, 120, 29))
    first.touch()
    append(third, 6)
    assert [counted(stream) for stream in (first, second, third)] == [30, 120, 35]
    append(third, 25)
    assert [counted(stream) for stream in (first, third)] == [30, 60]
    assert counted(second) < 65
    assert memory.bytes <= 550 * KIB


def test_no_stream_shrinks_below_an_equal_share() -> None:
    memory = Memory(400 * KIB)
    quiet = stream_of(memory, "quiet", 20)
    stream_of(memory, "busy", 1_000)
    assert counted(quiet) == 20
    assert memory.bytes <= 400 * KIB


def test_what_can_be_made_again_goes_before_events() -> None:
    memory = Memory(400 * KIB)
    quiet, busy = stream_of(memory, "quiet", 40), stream_of(memory, "busy", 0)
    for event in quiet.ring.newest():
        for coding in Coding:
            event.encoded(Format.JSON, coding)
    snapshot = Snapshot(cursor(40), 40, quiet.page, ["x" * 10_000], False, model.instant(0), [])
    quiet.keep_snapshot(snapshot, quiet.snapshot_frame(snapshot))
    append(busy, 40)
    assert (counted(quiet), quiet.ring.encodings.bytes, quiet.latest_snapshot()) == (40, 0, None)


def test_a_stream_that_is_closed_counts_no_more() -> None:
    memory = Memory(10**6)
    stream = stream_of(memory, "closed", 10)
    event = next(stream.ring.newest())
    stream.close()
    assert memory.bytes == 0
    event.encoded(Format.JSON, Coding.MESSAGE)  # for a reader that is still being sent away
    assert memory.bytes == 0
    stream.touch()


def test_a_stream_with_a_withdrawal_counts_on_and_shrinks() -> None:
    memory = Memory(400 * KIB)
    stream = stream_of(memory, "corrected", 20)
    stream.append(withdrawal(21).event)
    event = next(stream.ring.newest())
    event.encoded(Format.JSON, Coding.MESSAGE)
    assert memory.bytes == stream.account.bytes > 0
    assert stream.ring.encodings.bytes > 0
    append(stream, 1_000)
    assert memory.bytes <= 400 * KIB


def test_a_stream_that_shrank_takes_no_more_than_is_counted() -> None:
    memory = Memory(10**8)
    tracemalloc.start()
    try:
        stream = stream_of(memory, "large", 1_000)
        for event in stream.ring.newest():
            event.encoded(Format.JSON, Coding.MESSAGE)
        stream.shrink(100 * KIB)
        gc.collect()  # of the interpreter's own lists of free objects, too
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used < 1.2 * memory.bytes <= 120 * KIB


def test_a_bound_that_cannot_be_met_does_not_look_at_every_stream_for_every_event() -> None:
    memory = Memory(64 * KIB)
    large = [stream_of(memory, f"large-{number}", 1, size=60 * KIB) for number in range(4)]
    shrunk: list[int] = []
    for stream in large:
        stream.shrink = shrunk.append  # type: ignore[method-assign, assignment]
    append(large[0], 1, size=0)
    assert shrunk == []
