"""Surfaces are the ways to read the newest entries of a stream: as a page, as JSON, as two feeds."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from enum import Enum
from typing import Any

from ..codec import dumps
from ..page import card, feeds, jsonld, render
from ..page.edition import Edition
from ..page.render import Item, Place
from ..page.site import FEED, PAGE, Site
from ..store.log import Snapshot
from ..stretch import Stretch, in_stretches
from .pieces import Piece

JSON = "application/json"
STRETCH = 0.001  # seconds in which pieces are made before the event loop does other work


class Surface(Enum):
    """A surface is one way to read the newest entries of a stream."""

    PAGE = "page"
    ENTRIES = "entries"
    ATOM = "feed.atom"
    JSON_FEED = "feed.json"

    __hash__ = object.__hash__  # Enum's own hash is Python code, and every dict lookup would call it


MEDIA_TYPES = {
    Surface.PAGE: "text/html; charset=utf-8",
    Surface.ENTRIES: JSON,
    Surface.ATOM: "application/atom+xml",
    Surface.JSON_FEED: "application/feed+json",
}

FEEDS = (Surface.ATOM, Surface.JSON_FEED)
DEPTHS = {Surface.PAGE: PAGE, Surface.ENTRIES: PAGE, Surface.ATOM: FEED, Surface.JSON_FEED: FEED}  # as site.py has them


async def make(
    surface: Surface,
    edition: Edition,
    snapshot: Snapshot,
    pieces: Sequence[Piece],
    *,
    limit: int,
    site: Site,
    newer: bool = False,
    stale: str | None = None,
) -> bytes:
    """The bytes of a surface, joined of the pieces of the snapshot's entries, which are made here if they are new.

    `limit` is the number of entries of a page; `newer` marks a slice of older ones. Since the instant `stale` the page
    may be late: the store does not answer.
    """
    stretch, place = Stretch(STRETCH), Place.of(edition.page)
    for piece in pieces:
        match surface:
            case Surface.PAGE:
                piece.item(place)
                piece.update(edition)
            case Surface.ATOM:
                piece.atom(edition)
            case Surface.JSON_FEED:
                piece.feed_item(edition)
        await stretch.rest()
    parts: Iterator[str] | Iterator[bytes]
    match surface:
        case Surface.PAGE:
            parts = _page(edition, snapshot, pieces, limit=limit, site=site, newer=newer, stale=stale)
        case Surface.ENTRIES:
            parts = _entries(snapshot)
        case Surface.ATOM:
            parts = feeds.atom(edition, [piece.atom(edition) for piece in pieces])
        case Surface.JSON_FEED:
            parts = feeds.json_feed(edition, [piece.feed_item(edition) for piece in pieces])
    return await in_stretches(_joined(parts), STRETCH)


def _joined(parts: Iterator[str] | Iterator[bytes]) -> Generator[None, None, bytes]:
    """Join the parts of a surface as bytes, one a step.

    Encoded as one text, a page of large entries would hold up everyone: a character beyond Latin-1 on it doubles all
    others.
    """
    made = []
    for part in parts:
        made.append(part if isinstance(part, bytes) else part.encode())
        yield
    return b"".join(made)


def _page(
    edition: Edition,
    snapshot: Snapshot,
    pieces: Sequence[Piece],
    *,
    limit: int,
    site: Site,
    newer: bool,
    stale: str | None,
) -> Iterator[str]:
    place = Place.of(edition.page)
    updates = [piece.update(edition) for piece in pieces]
    json_ld = jsonld.live_blog(edition, updates)
    tags = card.page_card(edition, [picture for update in updates for picture in update.pictures[:1]])
    late = render.timestamp(stale, place) if stale else None
    about: dict[str, Any] = {"json_ld": json_ld, "card": tags, "cursor": str(snapshot.cursor), "n": snapshot.n}
    options: dict[str, Any] = {"limit": limit, "newer": newer, "late": late, "site": site}

    def show(items: list[Item]) -> str:
        parts = render.parts(edition.page, items, older=older(snapshot))
        return render.page(edition.stream, edition.page, parts, **about, **options)

    items = [piece.item(place) for piece in pieces]
    before, *behind = render.around_items(items, show)
    yield before
    for item, following in zip(items, behind, strict=True):
        yield item.html
        yield following


def edition_of(site: Site, surface: Surface, stream: str, snapshot: Snapshot) -> Edition:
    """The edition of which a surface of a snapshot is made."""
    base, feed_id = site.base(DEPTHS[surface]), snapshot.feed_id or ""
    return Edition(base, stream, snapshot.page, snapshot.withdrawals, snapshot.began_at, feed_id, site.masthead)


def _entries(snapshot: Snapshot) -> Iterator[str]:
    """A snapshot as JSON: {page, entries, cursor, n, older}."""
    tail = {"cursor": str(snapshot.cursor), "n": snapshot.n, "older": older(snapshot)}
    yield f'{{"page":{dumps(snapshot.page)},"entries":['
    for number, entry in enumerate(snapshot.entries):
        yield f",{entry}" if number else entry
    yield f"],{dumps(tail)[1:]}\n"


def older(snapshot: Snapshot) -> str | None:
    """The link to the entries after a snapshot's, None where there are none."""
    return render.older_link(snapshot.entries) if snapshot.older else None
