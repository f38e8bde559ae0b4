"""The ring holds the recent frames of one stream in memory, each at a position.

A position counts frames since the stream was opened: the frame at position p is followed by position p + 1.

    frames:      [ 41 | 42 | 43 | 44 | 45 ]
                   ^ start                 ^ end

A reader at position `end` has everything; at `start` it has everything before the ring. This module is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..model import Cursor
from ..wire.accounts import Account, Encodings
from ..wire.frames import EventFrame, Frame


class BrokenChain(Exception):
    """An event does not follow the ring's last event: an event between them was lost."""


class Ring:
    """Ring is a bounded sequence of frames. `head` is the newest event that it has seen, `n` the number of that event.

    `max_events` and `max_bytes` bound it. The bytes are all that it takes in memory: the frames may have 5/8 of them,
    what the frames keep encoded 1/4, and the batches of the fanout 1/8. The newest frame always stays. All is counted
    in `account`.
    """

    def __init__(
        self, head: Cursor, n: int, *, max_events: int, max_bytes: int, account: Account | None = None
    ) -> None:
        self.account = account or Account()
        self.encodings = Encodings(max_bytes // 4, self.account)
        self.batch_bytes = max_bytes // 8
        self.head = head
        self.n = n
        self.start = 0
        self.end = 0
        self._max_events = max_events
        self._max_bytes = max_bytes - max_bytes // 4 - max_bytes // 8
        self._bytes = 0  # of the frames, without what they keep encoded
        self._frames: dict[int, Frame] = {}  # by the position before each
        self._positions = {head: 0}  # the position after each event

    # --- the newest end

    def append(self, frame: EventFrame) -> None:
        """Add the next event. Raises BrokenChain where it does not follow the last one."""
        event = frame.event
        if event.prev != self.head or event.n != self.n + 1:
            raise BrokenChain(f"expected n {self.n + 1} after {self.head}, got n {event.n} after {event.prev}")
        self._frames[self.end] = frame
        self.end += 1
        self.head, self.n = event.cursor, event.n
        self._positions[event.cursor] = self.end
        self._grow(frame.size)

    def restart(self, head: Cursor, n: int, frames: Sequence[Frame]) -> None:
        """Go on from another event. These frames replace all others, so that every reader receives them."""
        self.encodings.clear()
        self.start = self.end
        self._frames = dict(enumerate(frames, self.start))
        self.end += len(frames)
        self.head, self.n = head, n
        self._positions = {head: self.end}
        self._grow(sum(frame.size for frame in frames) - self._bytes)

    # --- the oldest end

    def trim(self, delivered: int) -> None:
        """Drop the oldest frames beyond the bounds. Frames from position `delivered` on stay, up to twice the bounds.

        A burst larger than the ring would otherwise close readers that keep up: they have had no turn yet.
        """
        self._trim(delivered, self._max_bytes)

    def shrink(self, delivered: int, max_bytes: int) -> None:
        """Make the frames forget what they keep encoded, and drop the oldest as `trim` does, beyond a lower bound."""
        self.encodings.clear()
        self._trim(delivered, min(max_bytes, self._max_bytes))
        # A dict keeps the memory of all that it ever had: 37 KB for 1,000 events of which 100 are left.
        self._frames, self._positions = {**self._frames}, {**self._positions}

    def _trim(self, delivered: int, most: int) -> None:
        while self._exceeds(1, most):
            frame = self._frames[self.start]
            # A reset and its snapshot stay until delivered: else readers would go on from an event that the log lost.
            if self.start >= delivered and not (isinstance(frame, EventFrame) and self._exceeds(2, most)):
                break
            if isinstance(frame, EventFrame):
                del self._positions[frame.event.prev]
            del self._frames[self.start]
            self.start += 1
            self.encodings.remove(frame)
            self._grow(-frame.size)

    def _exceeds(self, times: int, most: int) -> bool:
        count = self.end - self.start
        return count > times * self._max_events or (self._bytes > times * most and count > 1)

    def _grow(self, size: int) -> None:
        self._bytes += size
        self.account.grow(size)

    def recall(self, frames: Sequence[EventFrame]) -> None:
        """Add older events that were read from the log, as far as there is room: more readers will miss them.

        The frames are in order and reach an event of the ring. No text of theirs was withdrawn after they were read.
        """
        if not frames or frames[0].event.prev in self._positions:
            return
        recalled: dict[int, Frame] = {}
        size = 0
        for frame in reversed(frames):
            if self._positions.get(frame.cursor) != self.start:
                continue
            if self.end - self.start >= self._max_events or self._bytes + size + frame.size > self._max_bytes:
                break
            self.start -= 1
            size += frame.size
            self._positions[frame.event.prev] = self.start
            recalled[self.start] = frame
        self._frames = {**dict(reversed(recalled.items())), **self._frames}
        self._grow(size)

    # --- contents

    def withdraw(self, entry_id: str, replace: Callable[[EventFrame], None]) -> None:
        """Replace the content of an entry's frames, which `replace` does to each, and count their bytes again."""
        for frame in self.about(entry_id):
            before = frame.size
            replace(frame)
            self._grow(frame.size - before)

    def frames_from(self, position: int) -> Iterator[Frame]:
        """The frames after a position, which is not before `start`, the oldest first."""
        return (self._frames[at] for at in range(position, self.end))

    def frames_between(self, position: int, end: int) -> Iterator[Frame]:
        """The frames after a position, up to position `end`, as far as the ring has them."""
        return (self._frames[at] for at in range(max(position, self.start), end))

    def newest(self) -> Iterator[EventFrame]:
        """The frames of events, the newest first."""
        return (frame for frame in reversed(self._frames.values()) if isinstance(frame, EventFrame))

    def about(self, entry_id: str) -> Iterator[EventFrame]:
        """The frames of an entry's events, the newest first."""
        return (frame for frame in self.newest() if frame.event.entry_id == entry_id)

    def withdraws_after(self, position: int) -> bool:
        """Whether an event after this position is a withdrawal."""
        frames = self.frames_from(max(position, self.start))
        return any(isinstance(frame, EventFrame) and frame.event.type == "entry.withdraw" for frame in frames)

    # --- positions

    def seek(self, cursor: Cursor) -> int | None:
        """The position after the event that a cursor names; None where the ring does not reach back to it."""
        return self._positions.get(cursor)

    def position_of(self, n: int) -> int:
        """The position after event `n` of this epoch; beyond `end` for an event that is still to come."""
        return self.end - (self.n - n)

    def n_at(self, position: int) -> int:
        """The number of the last event before a position."""
        return self.n - (self.end - position)
