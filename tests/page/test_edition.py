"""An edition gives feeds and structured data the same titles, texts and addresses."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.page.edition import Edition, beginning, credit, opening, present

from ..support.samples import STORED_ENTRY, STORED_PAGE

EDITION = Edition("https://news.example:8443", "storm", STORED_PAGE, [], "2023-07-11T15:53:00.000Z")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", ""),
        ("ten letter", "ten letter"),
        ("two more words", "two more…"),
        ("two wordsmore", "two…"),
        ("onlyonewordhere", "onlyonewo…"),
        ("字" * 11, "字" * 9 + "…"),
    ],
)
def test_a_beginning_ends_with_a_word_where_it_can(source: str, expected: str) -> None:
    assert beginning(source, 10) == expected
    assert len(expected) <= 10


def test_the_words_of_an_entry_are_those_of_all_its_blocks() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "heading", "text": "Heading"},
        {"type": "paragraph", "html": "One<br>two &amp; <em>three</em>"},
        {"type": "list", "items": ["four", "<b>five</b>"]},
        {
            "type": "list",
            "items": [{"html": "a", "list": {"items": ["<i>b</i>", {"html": "c", "list": {"items": ["d"]}}]}}],
        },
        {"type": "table", "head": ["e", ""], "align": [None, None], "rows": [["<b>f</b>", "g"]]},
        {"type": "break"},
        {"type": "quote", "html": "six", "cite": "Ada"},
        {"type": "image", "caption": "seven", "alt": "no", "credit": "no"},
        {"type": "embed", "title": "eight", "url": "https://a.example/"},
        {"type": "social_post", "text": "nine", "author_name": "no"},
    ]
    assert (
        opening({**STORED_ENTRY, "blocks": blocks}, 1_000)
        == "Heading One two & three four five a b c d e f g six seven eight nine"
    )


def test_blocks_behind_the_beginning_are_not_read() -> None:
    blocks: list[dict[str, Any]] = [{"type": "paragraph", "html": "one two"}, {"type": "heading"}]  # without its text
    assert opening({**STORED_ENTRY, "blocks": blocks}, 5) == "one…"


def test_a_byline_is_a_name_with_its_organisation() -> None:
    assert credit({"name": "Ada Brook", "org": "The Courier", "role": "Editor"}) == "Ada Brook, The Courier"
    assert credit({"name": "Cy Roe"}) == "Cy Roe"


def test_addresses_are_absolute() -> None:
    assert EDITION.url == "https://news.example:8443/streams/storm"
    assert EDITION.entry_url("e1") == "https://news.example:8443/streams/storm/entries/e1"
    assert EDITION.host == "news.example:8443"
    (picture,) = EDITION.pictures(STORED_ENTRY)
    assert (picture["src"], picture["credit"]) == (
        "https://news.example:8443/static/demo/harbour.svg",
        "Ada",
    )
    elsewhere = {"type": "image", "src": "https://pictures.example/a.jpg"}
    assert EDITION.pictures({**STORED_ENTRY, "blocks": [elsewhere]}) == [elsewhere]


def test_a_field_without_a_value_is_left_out() -> None:
    assert present({"a": None, "b": [], "c": "", "d": False}) == {"b": [], "c": "", "d": False}
