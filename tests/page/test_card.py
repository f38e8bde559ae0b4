"""The card of a link: what other sites show of a page and of an entry."""

from __future__ import annotations

import re
from html import unescape

from pushserver.model import StoredEntry, StoredPage
from pushserver.page import card
from pushserver.page.edition import Edition
from pushserver.page.masthead import Masthead

from ..support.samples import ENTRY, PAGE, STORED_ENTRY, STORED_PAGE
from ..support.server import Running

MASTHEAD = Masthead("The Courier", "", "@courier")
AT = "2023-07-11T15:53:00.000Z"


def edition_of(page: StoredPage, base: str = "https://news.example") -> Edition:
    return Edition(base, "storm", page, [], AT, masthead=MASTHEAD)


def tags_of(html: str) -> dict[str, str]:
    tags = re.findall(r'<meta (?:property|name)="([^"]*)" content="([^"]*)">', html)
    return {name: unescape(value) for name, value in tags}


def test_the_card_of_a_page_has_its_headline_its_dek_and_the_newest_picture() -> None:
    page: StoredPage = {**STORED_PAGE, "headline": 'A "b" & <c>', "dek": "All of it.", "lang": "pt-BR"}
    pictures = [
        {"url": "/relative.jpg", "width": 1, "height": 1},
        {"url": "https://p.example/1.jpg", "width": 12, "height": 8},
    ]
    assert tags_of(card.page_card(edition_of(page), pictures)) == {
        "og:type": "article",
        "og:title": 'A "b" & <c>',
        "og:description": "All of it.",
        "og:url": "https://news.example/streams/storm",
        "og:site_name": "The Courier",
        "og:locale": "pt_BR",
        "og:image": "https://p.example/1.jpg",
        "og:image:width": "12",
        "og:image:height": "8",
        "twitter:card": "summary_large_image",
        "twitter:site": "@courier",
    }


def test_the_card_of_an_entry_has_the_beginning_of_its_text() -> None:
    blocks = [{"type": "paragraph", "html": "word &amp; " * 100}]
    entry: StoredEntry = {**STORED_ENTRY, "blocks": blocks}
    tags = tags_of(card.entry_card(edition_of(STORED_PAGE), entry))
    assert tags["description"] == tags["og:description"]
    assert len(tags["description"]) <= 200
    assert tags["twitter:card"] == "summary"
    assert "og:image" not in tags


def test_a_card_has_no_address_where_the_public_one_is_not_known() -> None:
    tags = tags_of(card.page_card(edition_of(STORED_PAGE, ".."), []))
    assert "og:url" not in tags


def test_the_pages_have_their_cards(server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    for path, title in (("", PAGE["headline"]), ("/entries/first", ENTRY["headline"])):
        tags = tags_of(server.http.get(f"/streams/{stream}{path}", headers={"Accept": "text/html"}).text)
        assert tags["og:title"] == title
        assert tags["og:description"] == tags["description"]
