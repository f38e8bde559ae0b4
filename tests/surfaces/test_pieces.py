"""Pieces are made once per revision, and anew where the page changes what they show."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.codec import dumps
from pushserver.model import StoredPage
from pushserver.page import render
from pushserver.page.edition import Edition
from pushserver.page.render import MARK, Place
from pushserver.surfaces.pieces import Piece, Pieces

from ..support.samples import STORED_ENTRY, STORED_PAGE

PLACE = Place.of(STORED_PAGE)
EDITION = Edition("https://news.example", "storm", STORED_PAGE, [], "2023-07-11T15:53:00.000Z", "urn:x")


def an_entry(id: str, **fields: Any) -> str:
    return dumps({**STORED_ENTRY, "id": id, **fields})


def test_an_entry_that_stays_keeps_its_piece() -> None:
    pieces = Pieces()
    one, two = pieces.renew(STORED_PAGE, [an_entry("one"), an_entry("two")])
    new, same, revised = pieces.renew(STORED_PAGE, [an_entry("new"), an_entry("one"), an_entry("two", rev=2)])
    assert same is one
    assert revised is not two
    assert pieces.size == sum(len(piece.entry_json) for piece in (new, same, revised))


@pytest.mark.parametrize("change", [{"timezone": "Asia/Tokyo"}, {"lang": "de"}, {"dir": "rtl"}, {"headline": "x"}])
def test_a_field_of_the_page_that_entries_show_makes_them_anew(change: Any) -> None:
    pieces = Pieces()
    (before,) = pieces.renew(STORED_PAGE, [an_entry("one")])
    changed: StoredPage = {**STORED_PAGE, **change}
    (after,) = pieces.renew(changed, [an_entry("one")])
    assert after is not before


def test_a_piece_has_its_html_once_and_counts_what_it_has() -> None:
    piece = Piece(an_entry("one", headline="“Quoted”").encode())
    assert not piece.is_shown
    assert piece.shown(EDITION).item.html is MARK
    assert "“Quoted”" in piece.shown(EDITION).html.decode()
    made = [piece.shown(EDITION).html, piece.update(EDITION), piece.atom(EDITION), piece.feed_item(EDITION)]
    assert piece.shown(EDITION) is piece.shown(EDITION)
    assert [piece.update(EDITION), piece.atom(EDITION), piece.feed_item(EDITION)] == made[1:]
    assert piece.size == len(piece.entry_json) + sum(map(len, made))


def test_an_entry_that_a_frame_has_shown_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = an_entry("framed", headline="Shown live")
    html = render.entry(entry, PLACE)

    def make(*_: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr(render, "make_item", make)
    assert Piece(entry.encode()).shown(EDITION).html.decode() == html


def test_some_pieces_of_former_entries_stay_the_last_used_ones() -> None:
    pieces = Pieces(spare=2)
    one, *_ = pieces.renew(STORED_PAGE, [an_entry("one"), an_entry("two"), an_entry("three")])
    pieces.renew(STORED_PAGE, [an_entry("two"), an_entry("three"), an_entry("four")])
    assert pieces.renew(STORED_PAGE, [an_entry("one")])[0] is one
    pieces.renew(STORED_PAGE, [an_entry("five")])
    assert set(pieces._pieces) == {an_entry(id).encode() for id in ("four", "one", "five")}
    pieces.clear("one")
    assert pieces.size == sum(len(an_entry(id).encode()) for id in ("four", "five"))


def test_pieces_that_take_too_much_are_let_go_the_least_recently_used_first() -> None:
    pieces = Pieces(spare=9)
    for id in ("one", "two", "six"):
        pieces.renew(STORED_PAGE, [an_entry(id)])
    size = len(an_entry("one").encode())
    pieces.trim(3 * size)
    assert pieces.size == 3 * size
    pieces.trim(2 * size)
    assert set(pieces._pieces) == {an_entry("two").encode(), an_entry("six").encode()}
    pieces.trim(0)
    assert pieces.size == 0
