"""Accounts count the bytes that are kept in memory for readers; encodings are what frames keep of them. Pure."""

from __future__ import annotations

from collections import OrderedDict
from sys import getsizeof
from typing import Protocol

ENCODING_BYTES = 240  # of a text or of bytes, beside themselves: its place in the dict of its frame, and the key


class Account:
    """Account counts bytes, and counts them in the account `into` as well until it is closed."""

    __slots__ = ("_into", "bytes")

    def __init__(self, into: Account | None = None) -> None:
        self.bytes = 0
        self._into = into

    def grow(self, size: int) -> None:
        """Count so many bytes more; below zero, fewer."""
        self.bytes += size
        if self._into is not None:
            self._into.grow(size)

    def close(self) -> None:
        """Take its bytes out of the account `into`. A later call, and later growth, changes nothing there."""
        if self._into is not None:
            self._into.grow(-self.bytes)
            self._into = None


class Keeper(Protocol):
    """Keeper is a frame that keeps texts and bytes."""

    def forget(self) -> None:
        """Drop them; they are made again when they are needed."""


class Encodings:
    """Encodings are the texts and bytes that the frames of one stream keep for the next readers.

    At most `max_bytes` are kept, but always those of the newest frame in it. The frame that made its first one before
    all others forgets its own first. They are counted in `account`.
    """

    def __init__(self, max_bytes: int, account: Account) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._account = account
        self._older: OrderedDict[Keeper, int] = OrderedDict()  # bytes of those from before the last call of `age`
        self._newer: OrderedDict[Keeper, int] = OrderedDict()
        self._is_open = True

    def add(self, frame: Keeper, made: str | bytes) -> None:
        """Count a text, or bytes, that a frame keeps from now on."""
        if not self._is_open:
            return
        sizes, size = self._sizes_with(frame), getsizeof(made) + ENCODING_BYTES
        sizes[frame] = sizes.get(frame, 0) + size
        self._grow(size)
        while self.bytes > self._max_bytes and len(self._older) + len(self._newer) > 1:
            self._forget_oldest()

    def remove(self, frame: Keeper) -> None:
        """Make a frame forget its own."""
        if size := self._sizes_with(frame).pop(frame, 0):
            self._grow(-size)
            frame.forget()

    def age(self) -> None:
        """Make those frames forget theirs that had made them before the last call."""
        while self._older:
            self._forget_oldest()
        self._older, self._newer = self._newer, OrderedDict()  # an emptied one would keep the memory of all it had

    def clear(self) -> None:
        """Make all frames forget theirs."""
        while self._older or self._newer:
            self._forget_oldest()
        self._older, self._newer = OrderedDict(), OrderedDict()

    def close(self) -> None:
        """Make all frames forget theirs, and refer to none from now on: a frame is freed when its last reader leaves.

        A frame refers to its encodings. If these went on to refer to it, only the garbage collector would free it.
        """
        self.clear()
        self._is_open = False

    def _forget_oldest(self) -> None:
        frame, size = (self._older or self._newer).popitem(last=False)
        self._grow(-size)
        frame.forget()

    def _sizes_with(self, frame: Keeper) -> OrderedDict[Keeper, int]:
        return self._older if frame in self._older else self._newer

    def _grow(self, size: int) -> None:
        self.bytes += size
        self._account.grow(size)
