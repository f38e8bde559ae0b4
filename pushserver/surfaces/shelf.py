"""A shelf is what the cache has of one stream: its newest entries as pieces, and the finished bytes made of them.

An excerpt of a stream is one entry, whose own page is made, or a slice of older entries. Readers may ask for any number
of excerpts: they have a bound of their own, within which the one that was asked for least recently goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from ..store.log import Head, Snapshot
from .codings import ContentCoding
from .pieces import Piece, Pieces
from .surface import Surface

COPIES = 32  # of the newest entries: surfaces and codings
OLDER = 400  # pieces of older entries beside those of a slice: the next slice may show most of them, too
EXCERPTS = 256  # copies of excerpts


class CopyKey(NamedTuple):
    """CopyKey names a copy. `stale_since` is the instant since which it may be late, None while the store answers."""

    surface: Surface
    coding: ContentCoding
    excerpt: str = ""  # the id of an entry, the `before` of a slice, "" for the newest entries
    stale_since: str | None = None


class Copy(NamedTuple):
    """Copy is a surface in one coding as of one event. It may be late since `stale_since`, an instant or None."""

    body: bytes
    coding: ContentCoding
    etag: str
    head: Head
    stale_since: str | None
    asked_at: int = 0  # the store was asked for its entries at this instant, in milliseconds since 1970


class Shelf:
    """Shelf has a stream's copies: of the newest entries as of one event, of an excerpt as of that or an older one.

    Copies of excerpts may take `excerpts_bytes`, and the pieces of older entries as much again. The shelf is cleared
    when an entry is withdrawn or the stream is no longer followed.
    """

    def __init__(self, name: str, excerpts_bytes: int) -> None:
        self.name = name
        self.pieces = Pieces()
        self.older = Pieces(OLDER)  # of the entries of slices
        self.newest: list[Piece] = []  # of the entries of the snapshot, which has no entries itself
        self.snapshot: Snapshot | None = None
        self.head: Head | None = None
        self.making: dict[CopyKey, asyncio.Task[Copy]] = {}
        self.reading = asyncio.Lock()
        self.cleared = 0  # times; what was read before the last one may have a text that is gone
        self.verified_at = 0  # when a look last found the bytes to be of the newest event, in milliseconds since 1970
        self.size = 0
        self._copies: dict[CopyKey, Copy] = {}  # all of the event that `head` names
        self._excerpts: OrderedDict[CopyKey, Copy] = OrderedDict()  # each of the event that it names
        self._excerpts_bytes = excerpts_bytes
        self._excerpts_size = 0

    def clear(self, entry_id: str | None = None) -> None:
        """Let everything go that was made of the stream; of an entry that is withdrawn, all that may have its text."""
        self.cleared += 1
        self.snapshot = self.head = None
        self.newest, self._copies = [], {}
        self._excerpts.clear()
        self._excerpts_size = 0
        self.pieces.clear(entry_id)
        self.older.clear(entry_id)
        self.measure()

    def show(self, snapshot: Snapshot) -> None:
        """Take the place of what was made of an older event."""
        self.newest = self.pieces.renew(snapshot.page, snapshot.entries)
        self.snapshot, self.head = snapshot._replace(entries=[]), Head(snapshot.cursor, snapshot.n)
        self._copies = {}

    def copy(self, key: CopyKey) -> Copy | None:
        """The copy of this name; one of an excerpt may be of an older event than the others."""
        if not key.excerpt:
            return self._copies.get(key)
        copy = self._excerpts.get(key)
        if copy is not None:
            self._excerpts.move_to_end(key)
        return copy

    def put(self, key: CopyKey, copy: Copy) -> None:
        """Store a copy. An excerpt's may displace those of others; any other has to be of the shelf's event."""
        if key.excerpt:
            self._put_excerpt(key, copy)
        elif self.head == copy.head:
            if len(self._copies) >= COPIES:
                self._copies.clear()
            self._copies[key] = copy

    def _put_excerpt(self, key: CopyKey, copy: Copy) -> None:
        self.older.trim(self._excerpts_bytes)
        former = self._excerpts.pop(key, None)
        self._excerpts_size -= len(former.body) if former else 0
        if len(copy.body) > self._excerpts_bytes:
            return
        self._excerpts[key] = copy
        self._excerpts_size += len(copy.body)
        while len(self._excerpts) > EXCERPTS or self._excerpts_size > self._excerpts_bytes:
            _, oldest = self._excerpts.popitem(last=False)
            self._excerpts_size -= len(oldest.body)

    def measure(self) -> int:
        """Bytes that it has, nearly."""
        copies = sum(len(copy.body) for copy in self._copies.values())
        self.size = self.pieces.size + copies + self.older.size + self._excerpts_size
        return self.size
