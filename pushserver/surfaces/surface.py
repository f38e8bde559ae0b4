"""Surfaces are the ways to read a stream's entries: as a page, as JSON, as two feeds, and as the own page of one."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from enum import Enum
from typing import Any

from ..codec import dumps
from ..page import card, feeds, jsonld, render
from ..page.edition import Edition
from ..page.render import MARK, Place
from ..page.site import ENTRY, FEED, PAGE, Site
from ..store.log import Snapshot
from .pieces import Piece

JSON = "application/json"
_PLACE = re.compile(r"(-?[0-9]{1,16})\.([0-9A-Za-z_-]{1,64})")
Steps = Generator[None, None, bytes]  # a surface is made in steps, between which the event loop does other work
STRETCH = 0.0004  # seconds of them in a row; the last one may take as long again


class Surface(Enum):
    """A surface is one way to read the newest entries of a stream, or older ones; ENTRY is the own page of one."""

    PAGE = "page"
    ENTRIES = "entries"
    ATOM = "feed.atom"
    JSON_FEED = "feed.json"
    ENTRY = "entry"

    __hash__ = object.__hash__  # Enum's own hash is Python code, and every dict lookup would call it


NEWEST = (Surface.PAGE, Surface.ENTRIES, Surface.ATOM, Surface.JSON_FEED)  # surfaces of the newest entries
MEDIA_TYPES = {
    Surface.PAGE: "text/html; charset=utf-8",
    Surface.ENTRIES: JSON,
    Surface.ATOM: "application/atom+xml",
    Surface.JSON_FEED: "application/feed+json",
    Surface.ENTRY: "text/html; charset=utf-8",
}

FEEDS = (Surface.ATOM, Surface.JSON_FEED)
DEPTHS = {  # as site.py has them
    Surface.PAGE: PAGE,
    Surface.ENTRIES: PAGE,
    Surface.ATOM: FEED,
    Surface.JSON_FEED: FEED,
    Surface.ENTRY: ENTRY,
}


def make(
    surface: Surface,
    edition: Edition,
    snapshot: Snapshot,
    pieces: Sequence[Piece],
    *,
    limit: int,
    site: Site,
    newer: bool = False,
    stale: str | None = None,
) -> Steps:
    """The bytes of a surface, joined of the pieces of a snapshot's entries. What a piece lacks is made here.

    ENTRY is made of the first piece. `limit` is the number of entries of a page; `newer` marks a slice of older ones.
    Since the instant `stale` the page may be late: the store does not answer.
    """
    match surface:
        case Surface.PAGE:
            return _page(edition, snapshot, pieces, limit=limit, newer=newer, stale=stale, site=site)
        case Surface.ENTRIES:
            return _entries(snapshot, pieces)
        case Surface.ATOM:
            return _atom(edition, pieces)
        case Surface.JSON_FEED:
            return _json_feed(edition, pieces)
        case Surface.ENTRY:
            return _entry(edition, pieces[0], site=site)


def _page(edition: Edition, snapshot: Snapshot, pieces: Sequence[Piece], *, stale: str | None, **options: Any) -> Steps:
    described = pieces[: jsonld.UPDATES]
    for piece in pieces:
        if not piece.is_shown:
            piece.shown(edition)
            yield
    updates = []
    for piece in described:
        updates.append(piece.update(edition))
        yield
    shown = [piece.shown(edition) for piece in pieces]
    parts = render.parts(edition.page, [each.item for each in shown], older=_older(snapshot, pieces))
    yield
    credits = [each.credits for each in shown]
    json_ld = jsonld.live_blog(edition, [MARK] * len(updates), credits)
    tags = card.page_card(edition, [named.picture for named in credits if named.picture])
    yield
    late = render.timestamp(stale, Place.of(edition.page)) if stale else None
    about: dict[str, Any] = {"json_ld": json_ld, "card": tags, "cursor": str(snapshot.cursor), "n": snapshot.n}
    frame = render.page(edition.stream, edition.page, parts, late=late, **about, **options)
    yield
    # The structured data stands in the head of the page, and the items in its body.
    return _filled(frame, [*updates, *(each.html for each in shown)])


def _filled(frame: str, texts: Sequence[bytes]) -> bytes:
    """A page with these texts, each in the place of a MARK."""
    first, *behind = frame.encode().split(MARK.encode())
    return first + b"".join(part for pair in zip(texts, behind, strict=True) for part in pair)


def _entries(snapshot: Snapshot, pieces: Sequence[Piece]) -> Steps:
    """A snapshot as JSON: {page, entries, cursor, n, older}."""
    tail = {"cursor": str(snapshot.cursor), "n": snapshot.n, "older": _older(snapshot, pieces)}
    entries = b",".join(piece.entry_json for piece in pieces)
    yield
    head, end = f'{{"page":{dumps(snapshot.page)},"entries":[', f"],{dumps(tail)[1:]}\n"
    return b"".join((head.encode(), entries, end.encode()))


def _atom(edition: Edition, pieces: Sequence[Piece]) -> Steps:
    for piece in pieces:
        piece.atom(edition)
        yield
    return feeds.atom(edition, [piece.atom(edition) for piece in pieces])


def _json_feed(edition: Edition, pieces: Sequence[Piece]) -> Steps:
    for piece in pieces:
        piece.feed_item(edition)
        yield
    return feeds.json_feed(edition, [piece.feed_item(edition) for piece in pieces])


def _entry(edition: Edition, piece: Piece, *, site: Site) -> Steps:
    entry_json = piece.entry_json.decode()
    fields = json.loads(entry_json)
    about: dict[str, Any] = {"json_ld": jsonld.posting(edition, fields), "card": card.entry_card(edition, fields)}
    yield
    about |= {"id": fields["id"], "entry_json": entry_json, "withdrawal": None}
    return render.entry_page(edition.page, edition.stream, **about, site=site).encode()


def _older(snapshot: Snapshot, pieces: Sequence[Piece]) -> str | None:
    """The link to the entries after a snapshot's, None where there are none."""
    return render.older_link([pieces[-1].entry_json]) if snapshot.older else None


def place_of(before: str) -> tuple[int, str] | None:
    """The place after which a slice of older entries begins, as the link to it names it; None for no place."""
    match = _PLACE.fullmatch(before)
    return (int(match[1]), match[2]) if match else None


def edition_of(site: Site, surface: Surface, stream: str, snapshot: Snapshot) -> Edition:
    """The edition of which a surface of a snapshot is made."""
    base, feed_id = site.base(DEPTHS[surface]), snapshot.feed_id or ""
    return Edition(base, stream, snapshot.page, snapshot.withdrawals, snapshot.began_at, feed_id, site.masthead)
