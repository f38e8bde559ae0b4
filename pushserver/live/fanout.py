"""One stream inside one worker: a ring of recent frames, and the readers that follow it.

A reader has no queue, it has a position: the number of frames, since the feed began, that it was given. A pass
writes to each reader, in one write, all it has not had yet. So live delivery, catching up after a pause,
resuming after a reconnect and falling behind are one operation, `_serve`:

    position = end            nothing to do
    position < end            one write of what is missing; almost all readers share it, so it is joined once
    position > end            it read ahead in the log; the feed will get there, or to another event in its place
    position < start          what it misses has left the ring: it is closed, and resumes from the log

Pure: no task, no I/O; the clock is given, and `run` is told when its time is over. Invariant: each reader is given
the frames from its position on, in order, each once, until it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from .. import model
from ..model import Cursor
from ..wire.codes import Close
from ..wire.frames import Batch, Coding, Format, Frame, Notice, Told

SWEEPS = 6  # in a row that find a reader unwritable; the last of them closes it
BATCHES = 64  # that are kept for others who miss the same, until the next event comes


class BrokenChain(Exception):
    """An event does not follow the feed's last: something between them was lost."""


class State(Enum):
    """A reader's life: OPEN and PAUSED alternate, CLOSED is final.

    OPEN --pause()--> PAUSED --resume()--> OPEN, and either --close()--> CLOSED
    """

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class Reader:
    """One connected client, as a feed sees it. A transport subclasses it with `write` and `close`.

    `write` takes the batch at once and never waits; where the transport cannot take more it sets `state` to PAUSED, and
    calls `Feed.resume` when it can. `close` ends the connection with a code; the feed has let go of the reader by then.
    """

    __slots__ = ("coding", "format", "place", "position", "stalled", "state")

    def __init__(self, format: Format, coding: Coding = Coding.MESSAGE) -> None:
        self.format = format
        self.coding = coding
        self.state = State.OPEN
        self.position = 0
        self.place = -1  # in the feed's list
        self.stalled = 0  # sweeps since it last took something

    def write(self, batch: Batch) -> None:
        raise NotImplementedError

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        raise NotImplementedError


class Feed:
    """The ring and the readers of one stream. `head` is the event that the ring continues from, `n` its number."""

    def __init__(
        self,
        head: Cursor,
        n: int,
        *,
        ring_events: int,
        ring_bytes: int,
        closed: Callable[[Close], None] = lambda _: None,
        now: Callable[[], int] = model.now,
    ) -> None:
        self.head = head
        self.n = n
        self.start = 0
        self.end = 0
        self._ring_events = ring_events
        self._ring_bytes = ring_bytes
        self._now = now
        self._closed = closed  # is told of each reader that is sent away, and why
        self._bytes = 0
        self._ring: dict[int, Told] = {}  # position -> the frame that it is followed by
        # position -> the event before it, to those who read ahead; None where they differ
        self._ahead: dict[int, Cursor | None] = {}
        self._positions = {head: 0}  # cursor -> the position of a reader that has had everything up to it
        self._batches: dict[tuple[int, Format, Coding, tuple[Told, ...]], Batch] = {}
        self._given: list[Batch] = []  # those whose readers are not counted in their frames yet
        self._readers: list[Reader] = []
        self._turn = 0  # the next reader of the pass
        self._left = 0  # readers, from there on, that the pass has yet to look at
        self._goal = 0  # what it gives out, at least: what came meanwhile goes to those who have not had their turn
        self._passed = 0  # up to here, every reader that was writable has been given everything

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def given(self) -> int:
        """The number of the last event that a whole pass has given out to every reader who could take it."""
        return self.n_at(self._passed)

    @property
    def waits(self) -> bool:
        """Whether there is something that no pass has given out."""
        return self._passed < self.end

    # --- what the tail does

    def append(self, frame: Frame) -> None:
        """Take the next event. Raises BrokenChain where it is not the next."""
        event = frame.event
        if event.prev != self.head or event.n != self.n + 1:
            raise BrokenChain(f"expected n {self.n + 1} after {self.head}, got n {event.n} after {event.prev}")
        self._ring[self.end] = frame
        self.end += 1
        self.head, self.n = event.cursor, event.n
        self._positions[event.cursor] = self.end
        self._bytes += len(event.data)
        if not self._readers:
            self._passed = self.end
        self._trim()
        self._settle()
        self._batches.clear()
        if self._ahead and self._ahead.pop(self.end, event.cursor) != event.cursor:
            self._send_back()

    def _send_back(self) -> None:
        """Close those who read ahead what the log has lost since: they come back, and are told."""
        self._ahead.clear()
        for reader in tuple(self._readers):
            if reader.position >= self.end:
                self.drop(reader, Close.RESTART)

    def _trim(self) -> None:
        """Let the oldest frames go. What no pass has given out yet stays, up to twice the limits.

        A burst that is larger than the ring must not cost those their place who keep up.
        """
        while self._exceeds(2) or (self._exceeds(1) and self.start < self._passed):
            frame = self._ring.pop(self.start)
            if isinstance(frame, Frame):
                del self._positions[frame.event.prev]
                self._bytes -= len(frame.event.data)
            self.start += 1

    def _exceeds(self, times: int) -> bool:
        count = self.end - self.start
        return count > times * self._ring_events or (self._bytes > times * self._ring_bytes and count > 1)

    def about(self, entry_id: str) -> Iterator[Frame]:
        """The frames of an entry's events, the newest first."""
        return (frame for frame in self.newest() if frame.event.entry_id == entry_id)

    def withdraws_after(self, position: int) -> bool:
        """Whether an event from this position on is a withdrawal."""
        frames = (self._ring[at] for at in range(max(position, self.start), self.end))
        return any(isinstance(frame, Frame) and frame.event.type == "entry.withdraw" for frame in frames)

    def newest(self) -> Iterator[Frame]:
        """The frames of events, the newest first."""
        return (frame for frame in reversed(self._ring.values()) if isinstance(frame, Frame))

    def restart(self, head: Cursor, n: int, told: Sequence[Told]) -> None:
        """Go on from another event, with these frames for everyone, in the place of whatever they had not had yet."""
        self._settle()
        self._batches.clear()
        self.start = self.end
        self._ring = dict(enumerate(told, self.start))
        self.end += len(told)
        self.head, self.n = head, n
        self._positions = {head: self.end}
        self._ahead.clear()
        self._bytes = 0
        for reader in self._readers:
            reader.position = self.start

    def withdraw(self, entry_id: str, become: Callable[[Frame], None]) -> None:
        """Make an entry's frames tell something else: what it said leaves the ring, and whatever waits to be sent."""
        self._batches.clear()
        for frame in self.about(entry_id):
            self._bytes -= len(frame.event.data)
            become(frame)
            self._bytes += len(frame.event.data)

    def recall(self, frames: Sequence[Frame]) -> None:
        """Take the events that came before the ring into it, as far as it has room: more readers will miss them.

        They are read from the log, up to an event of the ring, after which no text was withdrawn.
        """
        if not frames or frames[0].event.prev in self._positions:
            return
        taken: dict[int, Told] = {}
        for frame in reversed(frames):
            if self._positions.get(frame.cursor) != self.start:
                continue
            size = len(frame.event.data)
            if self.end - self.start >= self._ring_events or self._bytes + size > self._ring_bytes:
                break
            self.start -= 1
            self._bytes += size
            self._positions[frame.event.prev] = self.start
            taken[self.start] = frame
        self._ring = {**dict(reversed(taken.items())), **self._ring}

    # --- what a reader does

    def seek(self, cursor: Cursor) -> int | None:
        """The position after the event that a cursor names, where the ring reaches back to it."""
        return self._positions.get(cursor)

    def position_of(self, n: int) -> int:
        """The position after event `n` of this epoch; after `end` where the event is still to come."""
        return self.end - (self.n - n)

    def n_at(self, position: int) -> int:
        """The number of the event that a reader at this position had last."""
        return self.n - (self.end - position)

    def join(self, reader: Reader, position: int, cursor: Cursor, opening: Sequence[Told]) -> None:
        """Follow from a position on, which is not before `start`; the opening, up to event `cursor`, comes first.

        What is missing is in the same write. Who joins from the same position with the same opening shares it.
        """
        assert position >= self.start, "what is missing has left the ring"
        if position > self.end:
            self._ahead[position] = cursor if self._ahead.get(position, cursor) == cursor else None
        reader.position = max(position, self.end)
        self._take_place(reader)
        reader.write(self._batch(reader, position, tuple(opening)))

    def _take_place(self, reader: Reader) -> None:
        """Give a reader who misses nothing a place in the list where the pass under way looks no more."""
        place = len(self._readers)
        self._readers.append(reader)
        reader.place = place
        if self._left and self._turn + self._left >= place:  # the pass has the end of the list before it
            self._turn += 1
            other = self._readers[self._turn]
            self._readers[place], self._readers[self._turn] = other, reader
            other.place, reader.place = place, self._turn

    def behind(self, frame: Frame) -> int:
        """How many readers have yet to be given a frame of the ring."""
        position = self.position_of(frame.event.n)
        return sum(reader.position < position for reader in self._readers)

    def leave(self, reader: Reader) -> None:
        """Let go of a reader; a second time changes nothing."""
        if reader.place < 0:
            return
        last = self._readers.pop()
        if last is not reader:
            self._readers[reader.place] = last
            last.place = reader.place
        reader.place = -1
        self._turn = min(self._turn, len(self._readers) - 1)
        self._left = min(self._left, len(self._readers))
        if self._left and last.place >= 0:  # it may stand now where the pass has been already
            if last.position >= self.start:
                self._serve(last)
            else:
                self._left = len(self._readers)

    def resume(self, reader: Reader) -> None:
        """A reader is writable again."""
        if reader.state is State.PAUSED:
            reader.state = State.OPEN
            reader.stalled = 0
            self._serve(reader)
            self._settle()

    # --- what the clock does

    def run(self, clock: Callable[[], float], over: float) -> bool:
        """A pass, or its next stretch: serve readers until each had its turn or time is over. False where it has ended.

        Then there is another one to run if something came meanwhile, as `waits` says.
        """
        if not self._left:
            self._left, self._goal = len(self._readers), self.end
        try:
            while self._left and self._readers:
                self._turn = (self._turn + 1) % len(self._readers)
                self._left -= 1
                self._serve(self._readers[self._turn])
                if clock() >= over:
                    break
        except BaseException:
            self._left = 0  # else to leave would go on with it
            raise
        self._settle()
        if self._left and self._readers:
            return True
        self._left = 0
        self._passed = self._goal
        self._trim()
        return False

    def beat(self, frame: Notice) -> Iterator[None]:
        """Write a heartbeat to those who have everything. A step each."""
        self._batches.clear()
        batches = {(format, coding): Batch([frame], format, coding) for format in Format for coding in Coding}
        for reader in tuple(self._readers):
            if reader.state is State.OPEN and reader.place >= 0 and reader.position >= self.end:
                reader.write(batches[reader.format, reader.coding])
            else:
                self._serve(reader)
            yield

    def sweep(self) -> Iterator[None]:
        """Close those who have taken nothing for too long. A step each."""
        for reader in tuple(self._readers):
            if reader.state is State.PAUSED:
                reader.stalled += 1
                if reader.stalled >= SWEEPS:
                    self.drop(reader, Close.TOO_SLOW)
            yield

    def drop(self, reader: Reader, code: Close, farewell: Notice | None = None) -> None:
        """Close a reader and let go of it."""
        self.leave(reader)
        self._closed(code)
        reader.close(code, farewell)

    def drop_all(self, code: Close, farewell: Notice | None = None) -> Iterator[None]:
        """Close every reader. A step each."""
        for reader in tuple(self._readers):
            if reader.place >= 0:
                self.drop(reader, code, farewell)
            yield

    def dismiss(self, code: Close) -> Iterator[None]:
        """Close those who have everything: there is nothing more to come. A step each."""
        for reader in tuple(self._readers):
            if reader.place >= 0 and reader.state is State.OPEN and reader.position >= self.end:
                self.drop(reader, code)
            yield

    def _serve(self, reader: Reader) -> None:
        if reader.place < 0:
            return
        if reader.position < self.start:
            self.drop(reader, Close.TOO_SLOW)
        elif reader.position < self.end and reader.state is State.OPEN:
            missing = self._batch(reader, reader.position)
            reader.position = self.end
            reader.write(missing)
            if not missing.readers:
                self._given.append(missing)
            missing.readers += 1

    def _batch(self, reader: Reader, position: int, opening: tuple[Told, ...] = ()) -> Batch:
        """What a reader is missing from a position on, behind an opening."""
        key = (position, reader.format, reader.coding, opening)
        found = self._batches.get(key)
        if found is None:
            if len(self._batches) >= BATCHES:
                self._batches.clear()
            frames = [*opening, *(self._ring[at] for at in range(position, self.end))]
            found = self._batches[key] = Batch(frames, reader.format, reader.coding)
        return found

    def _settle(self) -> None:
        """Count, in their frames, the readers who were given batches since the last time."""
        if self._given:
            at = self._now()
            for batch in self._given:
                batch.settle(at)
            self._given.clear()
