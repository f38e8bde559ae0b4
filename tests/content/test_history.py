from __future__ import annotations

from pushserver.content import history
from pushserver.model import Author, instant

DESK = Author("0123456789ab", "Storm desk")


def test_a_row_is_read_as_it_was_written() -> None:
    made = history.by(DESK, "correct", ["blocks", "headline"])
    (revision,) = history.revisions(f"3 1700000000123 {made}".encode())
    assert revision == history.Revision(3, instant(1700000000123), DESK, "correct", ["blocks", "headline"])
    assert revision.row() == f"3 1700000000123 {made}"
    assert history.restored({"id": "x", "revisions": [revision.shown()]}) == [revision]


def test_a_name_cannot_end_a_row_and_is_cut_off() -> None:
    made = history.by(Author("0123456789ab", "two\nlines " + "x" * 500), "publish")
    (revision,) = history.revisions(f"1 0 {made}".encode())
    assert revision.author.name == ("two\nlines " + "x" * 500)[: history.NAME_LIMIT]


def test_nothing_is_said_of_a_maker_that_is_not_known() -> None:
    assert history.by(None, "publish") == ""
    assert history.revisions(None) == []


def test_the_names_of_changed_fields_are_those_of_content() -> None:
    current = {"id": "x", "rev": 1, "url": "/", "headline": "a", "tags": [], "updated_at": "1"}
    entry = {"id": "x", "rev": 2, "url": "/", "tags": ["a"], "updated_at": "2", "correction": {}}
    assert history.changed_fields(entry, current) == ["correction", "headline", "tags"]
    assert history.changed_fields(entry, None) == []
