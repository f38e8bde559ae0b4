"""A shelf bounds the copies of excerpts, and has none of another event or of a withdrawn text."""

from __future__ import annotations

import pytest

from pushserver.model import Cursor
from pushserver.store.log import Head, Snapshot
from pushserver.surfaces.codings import ContentCoding
from pushserver.surfaces.shelf import EXCERPTS, Copy, CopyKey, Shelf
from pushserver.surfaces.surface import Surface

IDENTITY = ContentCoding.IDENTITY
PAGE = {"headline": "Storm", "timezone": "UTC", "lang": "en", "dir": "ltr"}


def head_of(n: int) -> Head:
    return Head(Cursor("e", f"{n}-0", "x"), n)


def copy_of(n: int, size: int = 10) -> Copy:
    return Copy(b"x" * size, IDENTITY, f'"{n}"', head_of(n), None)


def entry_of(name: str) -> CopyKey:
    return CopyKey(Surface.ENTRY, IDENTITY, name)


def show(shelf: Shelf, n: int) -> None:
    page: dict[str, str] = dict(PAGE)
    shelf.show(Snapshot(head_of(n).cursor, n, page, [], older=False, began_at="", withdrawals=[]))  # type: ignore[arg-type]


def test_excerpts_take_no_more_bytes_than_they_may() -> None:
    shelf = Shelf("storm", 1_000)
    for number in range(50):
        shelf.put(entry_of(str(number)), copy_of(1, 90))
        assert shelf.measure() <= 1_000
    assert shelf.measure() == 990
    assert shelf.copy(entry_of("38")) is None
    assert shelf.copy(entry_of("39"))
    shelf.put(entry_of("49"), copy_of(2, 1_001))  # it would push all others out
    assert shelf.copy(entry_of("49")) is None
    assert shelf.measure() == 900


def test_the_excerpt_that_was_asked_for_least_recently_goes_first() -> None:
    shelf = Shelf("storm", 2**20)
    for number in range(EXCERPTS):
        shelf.put(entry_of(str(number)), copy_of(1))
    assert shelf.copy(entry_of("0"))
    shelf.put(entry_of("another"), copy_of(1))
    assert shelf.copy(entry_of("0"))
    assert shelf.copy(entry_of("1")) is None
    assert shelf.measure() == 10 * EXCERPTS


def test_a_newer_copy_takes_the_place_of_the_one_before() -> None:
    shelf = Shelf("storm", 1_000)
    for n in range(1, 5):
        shelf.put(entry_of("one"), copy_of(n, 100 * n))
    copy = shelf.copy(entry_of("one"))
    assert copy
    assert (copy.head.n, shelf.measure()) == (4, 400)


@pytest.mark.parametrize("entry_id", ["one", None])
def test_what_is_withdrawn_takes_every_copy_with_it(entry_id: str | None) -> None:
    shelf = Shelf("storm", 1_000)
    show(shelf, 1)
    shelf.put(CopyKey(Surface.PAGE, IDENTITY), copy_of(1))
    shelf.put(CopyKey(Surface.PAGE, IDENTITY, "9.x"), copy_of(1))
    shelf.put(entry_of("one"), copy_of(1))
    assert shelf.measure() == 30
    shelf.clear(entry_id)
    assert shelf.measure() == 0
    for key in (CopyKey(Surface.PAGE, IDENTITY), CopyKey(Surface.PAGE, IDENTITY, "9.x"), entry_of("one")):
        assert shelf.copy(key) is None


def test_a_surface_of_an_older_event_takes_no_place() -> None:
    shelf = Shelf("storm", 1_000)
    show(shelf, 2)
    shelf.put(CopyKey(Surface.PAGE, IDENTITY), copy_of(1))
    assert shelf.copy(CopyKey(Surface.PAGE, IDENTITY)) is None
    shelf.put(CopyKey(Surface.PAGE, IDENTITY), copy_of(2))
    assert shelf.copy(CopyKey(Surface.PAGE, IDENTITY))
    show(shelf, 3)
    assert shelf.copy(CopyKey(Surface.PAGE, IDENTITY)) is None
