"""The fanout gives the frames of one stream to its readers.

A reader has no queue; it has a position in the ring. A pass visits every reader and writes to it, in one write, all
that follows its position. So live delivery, catching up after a pause, resuming after a reconnect and falling behind
are one operation, `_serve`:

    position = end            the reader has everything
    position < end            it misses frames: one write, of bytes that all readers at its position share
    position > end            it read ahead in the log; the ring gets there, or to another event in its place
    position < start          the frames that it misses have left the ring: it is closed, and resumes from the log

This module is pure: it has no task and no I/O, and is given the clock. Invariant: each reader receives the frames from
its position on, in order, each once, until it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

from .. import metrics, model
from ..model import Cursor, Event
from ..wire.accounts import Account
from ..wire.codes import Close
from ..wire.frames import Batch, Coding, EventFrame, Format, Frame, Notice
from .reader import Reader, ReaderState
from .ring import Ring
from .slow_readers import sweep

BATCHES = 64  # batches that are kept for other readers at the same position, until the next event comes


class Fanout:
    """Fanout is the readers of one stream and the pass over them.

    Only the fanout changes the newest end of its ring: batches that were made of the ring must go at the same time.
    `on_drop` is called with the close code of each reader that the fanout closes, and its last frame; `on_written` with
    each event that a whole pass has written. `now` gives milliseconds since 1970.
    """

    def __init__(
        self,
        ring: Ring,
        *,
        on_drop: Callable[[Close, Notice | None], None] = lambda code, farewell: None,
        on_written: Callable[[Event], None] = lambda event: None,
        now: Callable[[], int] = model.now,
    ) -> None:
        self.ring = ring
        self._on_drop = on_drop
        self._on_written = on_written
        self._now = now
        # The event before the position of readers who read ahead; None where two of them name different events.
        self._ahead: dict[int, Cursor | None] = {}
        self._batches: dict[tuple[int, Format, Coding, tuple[Frame, ...]], Batch] = {}
        self._batch_account = Account(ring.account)
        self._uncounted: list[Batch] = []  # batches whose readers are not counted in their frames yet
        self._readers: list[Reader] = []
        self._turn = 0  # index of the reader that the pass visited last
        self._left = 0  # readers after it that the pass has yet to visit
        self._goal = 0  # the end of the ring when the pass began
        self.slow: list[Reader] = []  # of those paused in the last sweep, the ones that have been for longest
        self.paused = 0  # readers that were paused in the last sweep
        self._passed = 0  # position up to which a whole pass has written to every writable reader

    @property
    def readers(self) -> int:
        """The number of readers."""
        return len(self._readers)

    @property
    def delivered(self) -> int:
        """The number of the last event that a whole pass has written to every writable reader."""
        return self.ring.n_at(self._passed)

    @property
    def is_pending(self) -> bool:
        """Whether the ring has frames that no whole pass has delivered."""
        return self._passed < self.ring.end

    def behind(self, frame: EventFrame) -> int:
        """The number of readers that have not received a frame of the ring."""
        position = self.ring.position_of(frame.event.n)
        return sum(reader.position < position for reader in self._readers)

    # --- events

    def append(self, frame: EventFrame) -> None:
        """Add the next event. Raises BrokenChain where it does not follow the last one."""
        self.ring.append(frame)
        if not self._readers:
            self._passed = self.ring.end
        self.ring.trim(self._passed)
        self._count_readers()
        self._forget_batches()
        if self._ahead and self._ahead.pop(self.ring.end, frame.event.cursor) != frame.event.cursor:
            self._drop_ahead()

    def _drop_ahead(self) -> None:
        """Close the readers who read ahead: the log has lost an event that they had, and they must resume."""
        self._ahead.clear()
        for reader in tuple(self._readers):
            if reader.position >= self.ring.end:
                self.drop(reader, Close.RESTART)

    def restart(self, head: Cursor, n: int, frames: Sequence[Frame]) -> None:
        """Go on from another event. Every reader receives these frames in place of what it had not received yet."""
        self._count_readers()
        self._forget_batches()
        self._ahead.clear()
        first = self.ring.end
        self.ring.restart(head, n, frames)
        for reader in self._readers:
            reader.position = first

    def withdraw(self, entry_id: str, replace: Callable[[EventFrame], None]) -> None:
        """Replace the content of an entry's frames in the ring, which `replace` does to each."""
        self._forget_batches()
        self.ring.withdraw(entry_id, replace)

    # --- memory

    def shrink(self, max_bytes: int) -> None:
        """Drop the batches, what the frames keep encoded, and the oldest frames of the ring beyond a lower bound.

        A reader that still misses one of these frames is closed, and resumes from the log.
        """
        self._forget_batches()
        self.ring.shrink(self._passed, max_bytes)

    def _forget_batches(self) -> None:
        self._batches.clear()
        if self._batch_account.bytes:
            self._batch_account.close()
            self._batch_account = Account(self.ring.account)

    # --- readers

    def join(self, reader: Reader, position: int, cursor: Cursor, first: Sequence[Frame]) -> None:
        """Add a reader at a position, which is not before the ring's start. Event `cursor` is the one before it.

        The frames `first` and those that follow the position go out in one write. Readers who join at the same position
        with the same first frames share its bytes.
        """
        ring = self.ring
        assert position >= ring.start, "the frames that this reader misses have left the ring"
        if position > ring.end:
            self._ahead[position] = cursor if self._ahead.get(position, cursor) == cursor else None
        reader.position = max(position, ring.end)
        self._take_place(reader)
        reader.write(self._batch(reader, position, tuple(first)))

    def _take_place(self, reader: Reader) -> None:
        """Put a reader who misses nothing where the pass under way has been already.

        Where the pass is yet to go over the end of the list, the new reader takes the place of the next to be visited:
        [a, b, c, d] with b visited last and c, d, a left becomes [a, b, new, d, c], as if new was visited last.
        """
        place = len(self._readers)
        self._readers.append(reader)
        reader.place = place
        if self._left and self._turn + self._left >= place:
            self._turn += 1
            other = self._readers[self._turn]
            self._readers[place], self._readers[self._turn] = other, reader
            other.place, reader.place = place, self._turn

    def leave(self, reader: Reader) -> None:
        """Remove a reader; a second call changes nothing."""
        if reader.place < 0:
            return
        last = self._readers.pop()
        if last is not reader:
            self._readers[reader.place] = last
            last.place = reader.place
        reader.place = -1
        self._turn = min(self._turn, len(self._readers) - 1)
        self._left = min(self._left, len(self._readers))
        if self._left and last.place >= 0:  # `last` may have moved behind the pass, which would not visit it any more
            if last.position >= self.ring.start:
                self._serve(last)
            else:
                self._left = len(self._readers)

    def resume(self, reader: Reader) -> None:
        """Write to a reader that was paused and is writable again."""
        if reader.state is ReaderState.PAUSED:
            reader.state = ReaderState.OPEN
            reader.stalled = 0
            self._serve(reader)
            self._count_readers()

    def drop(self, reader: Reader, code: Close, farewell: Notice | None = None) -> None:
        """Close a reader and remove it."""
        self.leave(reader)
        self._on_drop(code, farewell)
        reader.close(code, farewell)

    def drop_all(self, code: Close, farewell: Notice | None = None) -> Generator[None, None, None]:
        """Close every reader, one a step."""
        for reader in tuple(self._readers):
            if reader.place >= 0:
                self.drop(reader, code, farewell)
            yield

    def all_readers(self) -> tuple[Reader, ...]:
        """The readers as they are now."""
        return tuple(self._readers)

    def renew(self, at: float, farewell: Callable[[], Notice]) -> Generator[None, None, None]:
        """Close the readers whose lifetime ends before an instant, each with a frame of its own, one reader a step."""
        for reader in tuple(self._readers):
            if reader.place >= 0 and reader.renew_at <= at:
                self.drop(reader, Close.RESTART, farewell())
            yield

    def dismiss(self, code: Close) -> Generator[None, None, None]:
        """Close the readers who have everything, one a step."""
        for reader in tuple(self._readers):
            if reader.place >= 0 and reader.state is ReaderState.OPEN and reader.position >= self.ring.end:
                self.drop(reader, code)
            yield

    # --- the pass

    def run(self, clock: Callable[[], float], over: float) -> bool:
        """Begin a pass or go on with it, until `clock` reaches `over`. Returns whether readers are left to visit.

        At the end of a pass another one is due if frames came meanwhile; `is_pending` says so.
        """
        if not self._left:
            self._left, self._goal = len(self._readers), self.ring.end
        try:
            while self._left and self._readers:
                self._turn = (self._turn + 1) % len(self._readers)
                self._left -= 1
                self._serve(self._readers[self._turn])
                if clock() >= over:
                    break
        except BaseException:
            self._left = 0  # else `leave` would go on with the pass that failed, and fail again
            raise
        self._count_readers()
        if self._left and self._readers:
            return True
        self._left = 0
        for frame in self.ring.frames_between(self._passed, self._goal):
            if isinstance(frame, EventFrame):
                self._on_written(frame.event)
        self._passed = self._goal
        self.ring.trim(self._passed)
        return False

    def _serve(self, reader: Reader) -> None:
        if reader.place < 0:
            return
        ring = self.ring
        end = ring.end
        if reader.position < ring.start:
            self.drop(reader, Close.TOO_SLOW)
        elif reader.position < end and reader.state is ReaderState.OPEN:
            missing = self._batch(reader, reader.position)
            reader.position = end
            reader.write(missing)
            if not missing.readers:
                self._uncounted.append(missing)
            missing.readers += 1

    def _batch(self, reader: Reader, position: int, first: tuple[Frame, ...] = ()) -> Batch:
        """The frames after a position, behind the frames `first`, in the reader's variant."""
        key = (position, reader.format, reader.coding, first)
        batch = self._batches.get(key)
        if batch is None:
            if len(self._batches) >= BATCHES or self._batch_account.bytes > self.ring.batch_bytes:
                self._forget_batches()
            frames = [*first, *self.ring.frames_from(position)]
            account = self._batch_account
            batch = self._batches[key] = Batch(frames, reader.format, reader.coding, account=account)
        return batch

    def _count_readers(self) -> None:
        """Count the readers of the batches that were written since the last call."""
        if self._uncounted:
            at = self._now()
            for batch in self._uncounted:
                metrics.WRITTEN.inc(by=batch.count_readers(at))
            self._uncounted.clear()

    # --- the clock

    def beat(self, frame: Notice) -> Generator[None, None, None]:
        """Write a heartbeat to the readers who have everything, one reader a step."""
        self._forget_batches()
        batches = {(format, coding): Batch([frame], format, coding) for format in Format for coding in Coding}
        for reader in tuple(self._readers):
            if reader.state is ReaderState.OPEN and reader.place >= 0 and reader.position >= self.ring.end:
                reader.write(batches[reader.format, reader.coding])
            else:
                self._serve(reader)
            yield

    def sweep(self) -> Generator[None, None, None]:
        """Close the readers who take nothing, one reader a step."""
        close = partial(self.drop, code=Close.TOO_SLOW)
        self.paused, self.slow = yield from sweep(tuple(self._readers), close)
