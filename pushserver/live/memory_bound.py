"""The memory of a worker's followed streams has one bound: what all of them keep for their readers. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from ..wire.accounts import Account

SLACK = 16  # the part of the bound that is freed at once, so that not every event looks at every stream


class Shrinkable(Protocol):
    """Shrinkable is a followed stream, as far as its memory is concerned."""

    @property
    def account(self) -> Account:
        """The account of all that it keeps."""

    def shrink(self, max_bytes: int) -> None:
        """Let go of what is older, until it keeps no more than `max_bytes` if it can."""


class Memory(Account):
    """Memory is the account of all streams of a worker, and makes them shrink where they keep more than `max_bytes`.

    The stream that was read least recently shrinks first, and none below an equal share of the bound.
    """

    __slots__ = ("_limit", "_max_bytes", "_streams")

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._limit = max_bytes  # bytes above which the streams shrink; more where they could not shrink enough
        self._streams: OrderedDict[Shrinkable, None] = OrderedDict()

    def add(self, stream: Shrinkable) -> None:
        """Let a stream shrink, whose account counts into this one."""
        self._streams[stream] = None

    def remove(self, stream: Shrinkable) -> None:
        """Count a stream no more: it is not followed any longer. A second call changes nothing."""
        self._streams.pop(stream, None)
        stream.account.close()

    def touch(self, stream: Shrinkable) -> None:
        """Note that a stream was read."""
        if stream in self._streams:
            self._streams.move_to_end(stream)

    def grow(self, size: int) -> None:
        self.bytes += size
        if size > 0 and self.bytes > self._limit:
            self._shrink()

    def _shrink(self) -> None:
        goal = self._max_bytes - self._max_bytes // SLACK
        share = goal // max(1, len(self._streams))
        for stream in tuple(self._streams):
            if self.bytes <= goal:
                break
            if stream.account.bytes > share:
                stream.shrink(share)
        # Streams of one large event each may keep more than the bound. To try again at each event would be in vain.
        self._limit = max(self._max_bytes, self.bytes + self._max_bytes // SLACK)
