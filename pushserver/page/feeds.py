"""The feeds of a stream: Atom (RFC 4287) with tombstones (RFC 6721), and JSON Feed 1.1. Pure.

They are written here and not with feedgen, which has neither tombstones nor JSON Feed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as xml

from ..codec import dumps
from ..model import StoredEntry, StoredWithdrawal
from .edition import Edition, credit, present

ATOM, TOMBSTONES = "http://www.w3.org/2005/Atom", "http://purl.org/atompub/tombstones/1.0"

xml.register_namespace("", ATOM)
xml.register_namespace("at", TOMBSTONES)


# --- Atom


def atom(edition: Edition, entries: Sequence[bytes]) -> bytes:
    """The Atom feed, and a tombstone for each withdrawal. `entries` are `atom_entry` of each entry."""
    page = edition.page
    feed = xml.Element(_atom("feed"), {"xml:lang": page["lang"]})
    _add(feed, "id", edition.feed_id)
    _add(feed, "title", page["headline"])
    if page.get("dek"):
        _add(feed, "subtitle", page["dek"])
    _add(feed, "updated", page["updated_at"])
    # RFC 4287, 4.1.1: a feed has an author.
    _add(_add(feed, "author"), "name", edition.site_name or page["headline"])
    _add(feed, "link", rel="self", type="application/atom+xml", href=f"{edition.url}/feed.atom")
    _add(feed, "link", rel="alternate", type="text/html", href=edition.url)
    for topic in page["topics"]:
        _add(feed, "category", term=topic["label"])
    if edition.masthead.logo:
        _add(feed, "logo", edition.masthead.logo)
    # RFC 4287, appendix B: the entries come last.
    for withdrawal in edition.withdrawals:
        _add_tombstone(feed, edition, withdrawal)
    _add(feed, "entry")  # stands for the entries
    text: bytes = xml.tostring(feed, "utf-8", xml_declaration=True)
    return text.replace(b"<entry />", b"".join(entries), 1) + b"\n"


def atom_entry(edition: Edition, entry: StoredEntry) -> bytes:
    """One entry of the Atom feed, as a part of its text."""
    feed = xml.Element(_atom("feed"))
    _add_entry(feed, edition, entry)
    text: bytes = xml.tostring(feed, "utf-8")
    # The namespace is declared by the feed, once for all entries.
    return text[text.index(b"<entry>") : text.rindex(b"</feed>")]


def _add_entry(feed: xml.Element, edition: Edition, entry: StoredEntry) -> None:
    url = edition.entry_url(entry["id"])
    item = _add(feed, "entry")
    _add(item, "id", edition.entry_id(entry["id"]))
    _add(item, "title", edition.title(entry))
    _add(item, "published", entry["published_at"])
    _add(item, "updated", entry.get("updated_at") or entry["published_at"])
    for person in entry["bylines"]:
        _add(_add(item, "author"), "name", credit(person))
    _add(item, "link", rel="alternate", type="text/html", href=url)
    for tag in entry["tags"]:
        _add(item, "category", term=tag)
    _add(item, "content", edition.content(entry), type="html")


def _add_tombstone(feed: xml.Element, edition: Edition, withdrawal: StoredWithdrawal) -> None:
    attributes = {"ref": edition.entry_id(withdrawal["id"]), "when": withdrawal["at"]}
    tombstone = xml.SubElement(feed, f"{{{TOMBSTONES}}}deleted-entry", attributes)
    if withdrawal.get("note"):
        xml.SubElement(tombstone, f"{{{TOMBSTONES}}}comment").text = withdrawal["note"]
    _add(tombstone, "link", rel="alternate", type="text/html", href=edition.entry_url(withdrawal["id"]))


def _atom(name: str) -> str:
    return f"{{{ATOM}}}{name}"


def _add(parent: xml.Element, name: str, text: str | None = None, /, **attributes: str) -> xml.Element:
    child = xml.SubElement(parent, _atom(name), attributes)
    child.text = str(text) if text is not None else None
    return child


# --- JSON Feed


def json_feed(edition: Edition, items: Sequence[bytes]) -> bytes:
    """The JSON Feed. Fields that the format does not define, such as withdrawals, are under `_pushserver`.

    `items` are `feed_item` of each entry.
    """
    page = edition.page
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": page["headline"],
        "home_page_url": edition.url,
        "feed_url": f"{edition.url}/feed.json",
        "description": page.get("dek"),
        "language": page["lang"],
        "authors": [{"name": edition.site_name}] if edition.site_name else None,
        "icon": edition.masthead.logo or None,
        "expired": True if page["state"] == "ended" else None,
        "items": ["\x00"],  # stands for the items: no text has this character
        "_pushserver": {
            "withdrawn": [
                {
                    "id": edition.entry_id(withdrawal["id"]),
                    "url": edition.entry_url(withdrawal["id"]),
                    **_named(withdrawal, "at", "rev", "reason", "note"),
                }
                for withdrawal in edition.withdrawals
            ]
        },
    }
    return dumps(present(feed)).encode().replace(b'"\\u0000"', b",".join(items), 1) + b"\n"


def feed_item(edition: Edition, entry: StoredEntry) -> str:
    """One item of the JSON Feed, as a part of its text."""
    url = edition.entry_url(entry["id"])
    item = {
        "id": edition.entry_id(entry["id"]),
        "url": url,
        "title": entry.get("headline"),
        "content_html": str(edition.content(entry)),
        "date_published": entry["published_at"],
        "date_modified": entry.get("updated_at"),
        "authors": [{"name": credit(person)} for person in entry["bylines"]] or None,
        "tags": entry["tags"] or None,
        "image": next((picture["src"] for picture in edition.pictures(entry)), None),
        "_pushserver": {"rev": entry["rev"], **entry["flags"]},
    }
    return dumps(present(item))


def _named(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}
