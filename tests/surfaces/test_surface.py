"""A surface that is joined of pieces is the one that would be made at once."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, TypeVar

import pytest

from pushserver.codec import dumps
from pushserver.model import Cursor
from pushserver.page import card, jsonld, render
from pushserver.page.render import MARK
from pushserver.page.site import Site
from pushserver.store.log import Snapshot
from pushserver.surfaces.pieces import Piece
from pushserver.surfaces.surface import Surface, edition_of, make

from ..support.samples import STORED_ENTRY, STORED_PAGE

T = TypeVar("T")
SITE = Site("https://news.example")


def result_of(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def a_snapshot(count: int) -> Snapshot:
    entries: list[Any] = [{**STORED_ENTRY, "id": f"e{number}", "headline": f"“{number}”"} for number in range(count)]
    at = "2023-07-11T15:53:00.000Z"
    return Snapshot(Cursor("0a1b", "1-0", "c3"), count, STORED_PAGE, [*map(dumps, entries)], count > 1, at, [], "urn:x")


def made(surface: Surface, snapshot: Snapshot) -> bytes:
    edition = edition_of(SITE, surface, "storm", snapshot)
    pieces = [Piece(entry.encode()) for entry in snapshot.entries]
    return result_of(make(surface, edition, snapshot, pieces, limit=100, site=SITE, newer=False))


@pytest.mark.parametrize("count", [0, 1, 60])
def test_a_page_is_what_one_template_would_make(count: int) -> None:
    snapshot = a_snapshot(count)
    edition, entries = edition_of(SITE, Surface.PAGE, "storm", snapshot), [*map(json.loads, snapshot.entries)]
    older = render.older_link(snapshot.entries) if snapshot.older else None
    parts = render.parts(snapshot.page, render.items(snapshot.page, snapshot.entries), older=older)
    updates = [jsonld.update(edition, entry) for entry in entries]
    credits = [jsonld.credits_of(edition, entry) for entry in entries]
    tags = card.page_card(edition, [named.picture for named in credits if named.picture])
    head: Any = {"json_ld": jsonld.live_blog(edition, updates, credits), "card": tags}
    head |= {"cursor": str(snapshot.cursor), "n": snapshot.n}
    expected = render.page("storm", snapshot.page, parts, limit=100, newer=False, site=SITE, **head)
    assert made(Surface.PAGE, snapshot).decode() == expected


@pytest.mark.parametrize("surface", Surface)
def test_no_mark_is_left_in_a_surface(surface: Surface) -> None:
    assert MARK.encode() not in made(surface, a_snapshot(3))


def test_entries_are_the_snapshot() -> None:
    snapshot = a_snapshot(2)
    fields = json.loads(made(Surface.ENTRIES, snapshot))
    assert fields["entries"] == [*map(json.loads, snapshot.entries)]
    assert (fields["page"], fields["n"], fields["cursor"]) == (snapshot.page, 2, str(snapshot.cursor))
    assert fields["older"] == render.older_link(snapshot.entries)
