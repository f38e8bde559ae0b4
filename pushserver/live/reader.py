"""A reader is one connected client, as a stream's fanout sees it."""

from __future__ import annotations

from enum import Enum

from ..wire.codes import Close
from ..wire.frames import Batch, Coding, Format, Notice


class ReaderState(Enum):
    """A reader's life: OPEN and PAUSED alternate, CLOSED is final.

    OPEN --transport full--> PAUSED --Fanout.resume--> OPEN, and either --close--> CLOSED
    """

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class Reader:
    """Reader is the base class of the transports: a subclass implements `write` and `close`.

    A subclass sets `state` to PAUSED when its transport takes no more, and calls `Fanout.resume` when it does again.
    `transport` names its kind. `position` and `place` belong to the fanout that the reader joined; nothing else writes
    them.
    """

    transport = "websocket"

    __slots__ = ("coding", "format", "place", "position", "renew_at", "stalled", "state")

    def __init__(self, format: Format, coding: Coding = Coding.MESSAGE) -> None:
        self.format = format
        self.coding = coding
        self.state = ReaderState.OPEN
        self.position = 0  # in the ring
        self.place = -1  # index in the fanout's list; -1 for a reader that is in none
        self.renew_at = 0.0  # on the loop's clock: when its lifetime ends, if readers have one
        self.stalled = 0  # sweeps since the client last took something

    @property
    def address(self) -> str:
        """The address of the client, empty where it is not known."""
        return ""

    @property
    def waiting(self) -> int:
        """The bytes that wait in this process until the client takes more."""
        return 0

    def write(self, batch: Batch) -> None:
        """Send a batch without waiting."""
        raise NotImplementedError

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        """End the connection with a code, after a last frame. The fanout has removed the reader by then."""
        raise NotImplementedError
