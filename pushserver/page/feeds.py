"""A stream for machines: Atom (RFC 4287) with tombstones (RFC 6721), JSON Feed 1.1, and JSON-LD for the page's head.

Pure. Nothing in them is of the moment they are asked for: the same state of a stream makes the same bytes.
`base` is where the server is seen from, as https://news.example.
"""

from __future__ import annotations

import json
import re
import zoneinfo
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree as xml

from markupsafe import Markup

from ..codec import dumps
from ..content import markup
from ..content.fields import BLOCK_TYPES
from . import render
from .render import Place

ATOM, TOMBSTONES = "http://www.w3.org/2005/Atom", "http://purl.org/atompub/tombstones/1.0"
TITLE_LIMIT = 100  # characters of an entry's text that stand for the headline it has not
UPDATES, BODY_LIMIT = 50, 1_000  # entries, and characters of each, in JSON-LD, which every reader of the page loads

xml.register_namespace("", ATOM)
xml.register_namespace("at", TOMBSTONES)


class Issue(NamedTuple):
    """What is published: the page, its newest entries as stored, and the newest withdrawals."""

    base: str
    stream: str
    page: dict[str, Any]
    entries: list[dict[str, Any]]
    withdrawals: list[dict[str, Any]]
    began_at: str

    @property
    def url(self) -> str:
        return f"{self.base}/streams/{self.stream}"

    def entry_url(self, id: str) -> str:
        return f"{self.url}/entries/{id}"

    def title(self, entry: dict[str, Any]) -> str:
        """The headline, or the beginning of the text."""
        headline: str | None = entry.get("headline")
        if headline:
            return headline
        return _cut(_text(entry), TITLE_LIMIT)

    def content(self, entry: dict[str, Any]) -> Markup:
        """The entry as HTML that stands by itself: with whole addresses of pictures, and with its direction."""
        blocks = [_with_source(block, self.base) for block in entry["blocks"] if block["type"] in BLOCK_TYPES]
        content = render.content({**entry, "blocks": blocks}, Place.of(self.page))
        return Markup('<div dir="rtl">{}</div>').format(content) if self.page["dir"] == "rtl" else content

    def organization(self) -> dict[str, str]:
        """Who publishes, as far as an address says it."""
        return {"@type": "Organization", "name": urlsplit(self.base).netloc, "url": f"{self.base}/"}


def _with_source(block: dict[str, Any], base: str) -> dict[str, Any]:
    return {**block, "src": base + block["src"]} if block.get("src", "").startswith("/") else block


def _text(entry: dict[str, Any]) -> str:
    """The words of an entry, without its headline."""
    return " ".join(words for block in entry["blocks"] for words in _words(block))


def _cut(text: str, limit: int) -> str:
    """The beginning of a text, up to the last word that fits where there are any."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    return f"{kept.rpartition(' ')[0] or kept}…"


def _words(block: dict[str, Any]) -> list[str]:
    match block["type"]:
        case "list":
            return [markup.text(item) for item in block["items"]]
        case "heading" | "social_post":
            return [block["text"]]
        case "image":
            return [block["caption"]]
        case "embed":
            return [block["title"]]
        case "paragraph" | "quote":
            return [markup.text(block["html"])]
        case _:  # a later version stored it
            return []


# --- Atom


def atom(issue: Issue) -> bytes:
    """The Atom feed, and a tombstone for each entry that was withdrawn."""
    page = issue.page
    feed = xml.Element(_atom("feed"), {"xml:lang": page["lang"]})
    _add(feed, "id", issue.url)
    _add(feed, "title", page["headline"])
    if page.get("dek"):
        _add(feed, "subtitle", page["dek"])
    _add(feed, "updated", page["updated_at"])
    _add(_add(feed, "author"), "name", urlsplit(issue.base).netloc)
    _add(feed, "link", rel="self", type="application/atom+xml", href=f"{issue.url}/feed.atom")
    _add(feed, "link", rel="alternate", type="text/html", href=issue.url)
    for entry in issue.entries:
        _add_entry(feed, issue, entry)
    for withdrawal in issue.withdrawals:
        deleted = xml.SubElement(
            feed,
            f"{{{TOMBSTONES}}}deleted-entry",
            {"ref": issue.entry_url(withdrawal["id"]), "when": withdrawal["at"]},
        )
        if withdrawal.get("note"):
            xml.SubElement(deleted, f"{{{TOMBSTONES}}}comment").text = withdrawal["note"]
    text: bytes = xml.tostring(feed, "utf-8", xml_declaration=True)
    return text + b"\n"


def _add_entry(feed: xml.Element, issue: Issue, entry: dict[str, Any]) -> None:
    url = issue.entry_url(entry["id"])
    item = _add(feed, "entry")
    _add(item, "id", url)
    _add(item, "title", issue.title(entry))
    _add(item, "published", entry["published_at"])
    _add(item, "updated", entry.get("updated_at") or entry["published_at"])
    for person in entry["bylines"]:
        _add(_add(item, "author"), "name", person["name"])
    _add(item, "link", rel="alternate", type="text/html", href=url)
    for tag in entry["tags"]:
        _add(item, "category", term=tag)
    _add(item, "content", issue.content(entry), type="html")


def _atom(name: str) -> str:
    return f"{{{ATOM}}}{name}"


def _add(parent: xml.Element, name: str, text: str | None = None, /, **attributes: str) -> xml.Element:
    child = xml.SubElement(parent, _atom(name), attributes)
    child.text = str(text) if text is not None else None
    return child


# --- JSON Feed


def json_feed(issue: Issue) -> str:
    """The JSON Feed; what it has no name for, withdrawals among it, is under `_pushserver`."""
    page = issue.page
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": page["headline"],
        "home_page_url": issue.url,
        "feed_url": f"{issue.url}/feed.json",
        "description": page.get("dek"),
        "language": page["lang"],
        "expired": True if page["state"] == "ended" else None,
        "items": [_item(issue, entry) for entry in issue.entries],
        "_pushserver": {
            "withdrawn": [
                {"id": issue.entry_url(withdrawal["id"]), **_named(withdrawal, "at", "rev", "reason", "note")}
                for withdrawal in issue.withdrawals
            ]
        },
    }
    return dumps(_filled(feed)) + "\n"


def _item(issue: Issue, entry: dict[str, Any]) -> dict[str, Any]:
    url = issue.entry_url(entry["id"])
    item = {
        "id": url,
        "url": url,
        "title": entry.get("headline"),
        "content_html": str(issue.content(entry)),
        "date_published": entry["published_at"],
        "date_modified": entry.get("updated_at"),
        "authors": [{"name": person["name"]} for person in entry["bylines"]] or None,
        "tags": entry["tags"] or None,
        "image": next(iter(_pictures(issue, entry)), None),
        "_pushserver": {"rev": entry["rev"], **entry["flags"]},
    }
    return _filled(item)


def _pictures(issue: Issue, entry: dict[str, Any]) -> list[str]:
    return [_with_source(block, issue.base)["src"] for block in entry["blocks"] if block["type"] == "image"]


def _named(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# --- JSON-LD


def live_blog(issue: Issue) -> Markup:
    """schema.org's LiveBlogPosting, for the head of the page."""
    page, zone = issue.page, zoneinfo.ZoneInfo(issue.page["timezone"])
    pictures = [src for entry in issue.entries for src in _pictures(issue, entry)]
    names = {person["name"]: None for entry in issue.entries for person in entry["bylines"]}
    return _script(
        {
            "@context": "https://schema.org",
            "@type": "LiveBlogPosting",
            "headline": page["headline"],
            "description": page.get("dek"),
            "inLanguage": page["lang"],
            "url": issue.url,
            "mainEntityOfPage": {"@type": "WebPage", "@id": issue.url},
            "datePublished": _at(min(page.get("coverage_start") or issue.began_at, issue.began_at), zone),
            "dateModified": _at(page["updated_at"], zone),
            "coverageStartTime": _at(page.get("coverage_start") or issue.began_at, zone),
            "coverageEndTime": _at(page.get("coverage_end"), zone),
            "keywords": [topic["label"] for topic in page["topics"]] or None,
            "image": pictures[:1] or None,
            "author": _people(names) or issue.organization(),
            "publisher": issue.organization(),
            "liveBlogUpdate": [_update(issue, entry, zone) for entry in issue.entries[:UPDATES]],
        }
    )


def posting(issue: Issue, entry: dict[str, Any]) -> Markup:
    """schema.org's BlogPosting, for the head of an entry's own page."""
    update = _update(issue, entry, zoneinfo.ZoneInfo(issue.page["timezone"]))
    return _script({"@context": "https://schema.org", **update, "url": issue.entry_url(entry["id"])})


def _update(issue: Issue, entry: dict[str, Any], zone: zoneinfo.ZoneInfo) -> dict[str, Any]:
    correction = entry.get("correction")
    return _filled(
        {
            "@type": "BlogPosting",
            "headline": entry.get("headline") or issue.page["headline"],
            "url": f"{issue.url}#e-{entry['id']}",
            "datePublished": _at(entry["published_at"], zone),
            "dateModified": _at(entry.get("updated_at"), zone),
            "articleBody": _cut(_text(entry), BODY_LIMIT) or entry.get("headline"),
            "author": _people({person["name"]: None for person in entry["bylines"]}) or issue.organization(),
            "image": _pictures(issue, entry) or None,
            "correction": correction
            and {
                "@type": "CorrectionComment",
                "text": correction["note"],
                "datePublished": _at(correction["at"], zone),
            },
        }
    )


def _people(names: dict[str, None]) -> list[dict[str, str]]:
    return [{"@type": "Person", "name": name} for name in names]


def _at(instant: str | None, zone: zoneinfo.ZoneInfo) -> str | None:
    """An instant with the offset that the page's zone had then."""
    return datetime.fromisoformat(instant).astimezone(zone).isoformat(timespec="seconds") if instant else None


def _script(fields: dict[str, Any]) -> Markup:
    """JSON that can stand in a script element: whatever could end it, or a line of it, is escaped."""
    text = json.dumps(_filled(fields), ensure_ascii=False)
    return Markup(re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text))
