"""Pieces are what each surface shows of one revision of an entry; a surface after an event is a join of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from sys import getsizeof

from ..model import StoredEntry
from ..page import feeds, jsonld, render
from ..page.edition import Edition
from ..page.jsonld import Update
from ..page.render import Item, Place


class Piece:
    """Piece is one revision of an entry, with its part of each surface, made on first use."""

    __slots__ = ("_atom", "_entry_json", "_feed_item", "_item", "_update")

    def __init__(self, entry_json: str) -> None:
        self._entry_json = entry_json
        self._item: Item | None = None
        self._update: Update | None = None
        self._atom: bytes | None = None
        self._feed_item: str | None = None

    def item(self, place: Place) -> Item:
        """The entry in the list of a page."""
        if self._item is None:
            self._item = render.make_item(self._entry_json, place)
        return self._item

    def update(self, edition: Edition) -> Update:
        """The entry in the structured data of a page."""
        if self._update is None:
            self._update = jsonld.update(edition, self._entry())
        return self._update

    def atom(self, edition: Edition) -> bytes:
        """The entry in the Atom feed."""
        if self._atom is None:
            self._atom = feeds.atom_entry(edition, self._entry())
        return self._atom

    def feed_item(self, edition: Edition) -> str:
        """The entry in the JSON Feed."""
        if self._feed_item is None:
            self._feed_item = feeds.feed_item(edition, self._entry())
        return self._feed_item

    def _entry(self) -> StoredEntry:
        entry: StoredEntry = json.loads(self._entry_json)
        return entry

    @property
    def size(self) -> int:
        """Bytes of the texts that it has made, as they are in memory."""
        texts: Sequence[str | bytes | None] = (
            self._entry_json,
            self._item.html if self._item else None,
            self._update.script if self._update else None,
            self._atom,
            self._feed_item,
        )
        return sum(getsizeof(text) for text in texts if text is not None)


class Pieces:
    """Pieces are those of a stream's newest entries: the pieces of entries that left the page are let go."""

    def __init__(self) -> None:
        self._context: object = None
        self._pieces: dict[str, Piece] = {}

    def of(self, edition: Edition, entries: Sequence[str]) -> list[Piece]:
        """The pieces of entries, in their order. The fields of the page on which a piece depends make all anew."""
        page = edition.page
        context = (page["timezone"], page["lang"], page["dir"], page["headline"])
        former = self._pieces if context == self._context else {}
        self._context = context
        self._pieces = {entry: former.get(entry) or Piece(entry) for entry in entries}
        return list(self._pieces.values())

    def clear(self, entry_id: str | None = None) -> None:
        """Let the pieces of an entry go, or every piece.

        Whichever entry names the id goes too. The others stay: a withdrawal would else cost as much as a new page.
        """
        name = f'"{entry_id}"'
        self._pieces = {} if entry_id is None else {e: p for e, p in self._pieces.items() if name not in e}

    @property
    def size(self) -> int:
        """Bytes of the texts of all pieces."""
        return sum(piece.size for piece in self._pieces.values())
