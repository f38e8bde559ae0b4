"""Pieces are what each surface shows of one revision of an entry; a surface after an event is a join of them.

They are bytes. As texts they would take twice the memory where an entry has a character such as a curly quote, and one
such character would have the whole page encoded anew after each event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from ..model import StoredEntry, StoredPage
from ..page import feeds, jsonld, render
from ..page.edition import Edition
from ..page.jsonld import Credits
from ..page.render import MARK, Item, Place


class Shown(NamedTuple):
    """Shown is an entry in the list of a page, with MARK in the place of its HTML, and its credits."""

    item: Item
    html: bytes
    credits: Credits


class Piece:
    """Piece is one revision of an entry, with its part of each surface, made on first use."""

    __slots__ = ("_atom", "_feed_item", "_shown", "_update", "entry_json")

    def __init__(self, entry_json: bytes) -> None:
        self.entry_json = entry_json
        self._shown: Shown | None = None
        self._update = self._atom = self._feed_item = b""

    @property
    def is_shown(self) -> bool:
        """Whether what a page shows of it has been made."""
        return self._shown is not None

    def shown(self, edition: Edition) -> Shown:
        """The entry as a page shows it."""
        if self._shown is None:
            entry_json, place = self.entry_json.decode(), Place.of(edition.page)
            item = render.item.made(entry_json, place) or render.make_item(entry_json, place)
            credits = jsonld.credits_of(edition, self._entry())
            self._shown = Shown(item._replace(html=MARK), item.html.encode(), credits)
        return self._shown

    def update(self, edition: Edition) -> bytes:
        """The entry in the structured data of a page, which describes the newest ones alone."""
        if not self._update:
            self._update = jsonld.update(edition, self._entry()).encode()
        return self._update

    def atom(self, edition: Edition) -> bytes:
        """The entry in the Atom feed."""
        if not self._atom:
            self._atom = feeds.atom_entry(edition, self._entry())
        return self._atom

    def feed_item(self, edition: Edition) -> bytes:
        """The entry in the JSON Feed."""
        if not self._feed_item:
            self._feed_item = feeds.feed_item(edition, self._entry()).encode()
        return self._feed_item

    def _entry(self) -> StoredEntry:
        entry: StoredEntry = json.loads(self.entry_json)
        return entry

    @property
    def size(self) -> int:
        """Bytes of what it has made, nearly."""
        made = (
            len(self._shown.html if self._shown else b"") + len(self._update) + len(self._atom) + len(self._feed_item)
        )
        return len(self.entry_json) + made


class Pieces:
    """Pieces has the pieces of the entries that a surface shows, and up to `spare` that earlier ones showed."""

    def __init__(self, spare: int = 0) -> None:
        self._spare = spare
        self._context: object = None
        self._pieces: dict[bytes, Piece] = {}

    def renew(self, page: StoredPage, entries: Sequence[str]) -> list[Piece]:
        """The pieces of entries, in their order. The fields of the page on which a piece depends make all anew."""
        context = (page["timezone"], page["lang"], page["dir"], page["headline"])
        former = self._pieces if context == self._context else {}
        pieces = [former.get(entry) or Piece(entry) for entry in map(str.encode, entries)]
        self._context = context
        self._pieces = {piece.entry_json: piece for piece in (*self._others(former, pieces), *pieces)}
        return pieces

    def _others(self, former: dict[bytes, Piece], pieces: Sequence[Piece]) -> list[Piece]:
        """The former pieces that stay, the one that was used last at the end."""
        if not self._spare:
            return []
        used = {piece.entry_json for piece in pieces}
        return [piece for entry, piece in former.items() if entry not in used][-self._spare :]

    def trim(self, limit_bytes: int) -> None:
        """Let those go that were used least recently, until the others have no more than so many bytes."""
        size = self.size
        for entry, piece in list(self._pieces.items()):
            if size <= limit_bytes:
                break
            del self._pieces[entry]
            size -= piece.size

    def clear(self, entry_id: str | None = None) -> None:
        """Let the pieces of an entry go, or every piece.

        Whichever entry names the id goes too. The others stay: a withdrawal would else cost as much as a new page.
        """
        name = f'"{entry_id}"'.encode()
        self._pieces = {} if entry_id is None else {e: p for e, p in self._pieces.items() if name not in e}

    @property
    def size(self) -> int:
        """Bytes of what all pieces have made, nearly."""
        return sum(piece.size for piece in self._pieces.values())
