"""An edition of a stream: what its feeds and its structured data are made of. Pure.

Nothing in it depends on when it is asked for: the same state of a stream makes the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from markupsafe import Markup

from ..content import markup
from ..content.blocks import BLOCK_TYPES
from ..model import StoredEntry, StoredPage, StoredWithdrawal
from . import render
from .masthead import NAMELESS, Masthead
from .render import Place

URN = "urn:uuid:"
TITLE_LIMIT = 100  # characters of the text that stands for a headline where an entry has none


class Edition(NamedTuple):
    """Edition is a stream at one instant: its page and its newest withdrawals.

    `base` is the address of the server as its readers see it, such as https://news.example; where it is not known, the
    path from the document to the server's root, such as `..`. `began_at` is the oldest instant that the stream ever
    showed, `feed_id` the id of its feeds.
    """

    base: str
    stream: str
    page: StoredPage
    withdrawals: list[StoredWithdrawal]
    began_at: str
    feed_id: str = ""
    masthead: Masthead = NAMELESS

    @property
    def url(self) -> str:
        return f"{self.base}/streams/{self.stream}"

    @property
    def host(self) -> str:
        """The host of the server, which stands for the publisher's name where no other is known; "" where it is not."""
        return urlsplit(self.base).netloc

    @property
    def site_name(self) -> str:
        """The name of the publisher."""
        return self.masthead.name or self.host

    def entry_url(self, id: str) -> str:
        return f"{self.url}/entries/{id}"

    def entry_id(self, id: str) -> str:
        """The id of an entry in feeds, which follows from that of the feed and never changes."""
        if self.feed_id.startswith(URN):
            return uuid.uuid5(uuid.UUID(self.feed_id), id).urn
        return f"{self.feed_id}/entries/{id}"  # as an earlier version had it

    def title(self, entry: StoredEntry) -> str:
        """The headline, or the beginning of the text."""
        headline: str | None = entry.get("headline")
        return headline or opening(entry, TITLE_LIMIT)

    def content(self, entry: StoredEntry) -> Markup:
        """The entry as HTML for other sites: with its pictures, and with its direction."""
        blocks = [self._with_source(block) for block in entry["blocks"] if block["type"] in BLOCK_TYPES]
        content = render.content({**entry, "blocks": blocks}, Place.of(self.page))
        return Markup('<div dir="rtl">{}</div>').format(content) if self.page["dir"] == "rtl" else content

    def pictures(self, entry: StoredEntry) -> list[dict[str, Any]]:
        """The image blocks of an entry, with absolute addresses where the server's is known."""
        return [self._with_source(block) for block in entry["blocks"] if block["type"] == "image"]

    def _with_source(self, block: dict[str, Any]) -> dict[str, Any]:
        is_local = self.host and block.get("src", "").startswith("/")
        return {**block, "src": urljoin(self.base, block["src"])} if is_local else block


def opening(entry: StoredEntry, limit: int) -> str:
    """The beginning of an entry's words, without its headline. Blocks behind it are not read."""
    text = ""
    for words in (words for block in entry["blocks"] for words in _words(block) if words):
        text = f"{text} {words}" if text else words
        if len(text) > limit:
            break
    return beginning(text, limit)


def credit(person: Mapping[str, str]) -> str:
    """The name of a byline with its organisation, for formats whose authors have a name alone."""
    return ", ".join(filter(None, (person["name"], person.get("org"))))


def beginning(text: str, limit: int) -> str:
    """The beginning of a text, at most `limit` characters, up to the last word that fits where there are any."""
    if len(text) <= limit:
        return text
    start = text[: limit - 1]
    return f"{start.rpartition(' ')[0] or start}…"


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: one that has none is left out, not null."""
    return {name: value for name, value in fields.items() if value is not None}


def _item_words(fields: dict[str, Any]) -> Iterator[str]:
    """The words of each item of a list, and of the lists in it."""
    for item in fields["items"]:
        yield markup.text(item if isinstance(item, str) else item["html"])
        if not isinstance(item, str):
            yield from _item_words(item["list"])


def _words(block: dict[str, Any]) -> list[str]:
    match block["type"]:
        case "list":
            return list(_item_words(block))
        case "table":
            return [markup.text(cell) for row in (block["head"], *block["rows"]) for cell in row if cell]
        case "heading" | "social_post":
            return [block["text"]]
        case "image":
            return [block["caption"]]
        case "embed":
            return [block["title"]]
        case "paragraph" | "quote":
            return [markup.text(block["html"])]
        case _:  # a block of a later version has no words that this version knows
            return []
