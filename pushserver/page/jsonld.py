"""JSON-LD in the vocabulary of schema.org, for the head of a page: a LiveBlogPosting, or a BlogPosting. Pure."""

from __future__ import annotations

import json
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from markupsafe import Markup

from ..model import StoredCorrection, StoredEntry
from .edition import Edition, opening, present

UPDATES, BODY_LIMIT = 50, 1_000  # entries, and characters of each: every reader of the page loads them


class Credits(NamedTuple):
    """Credits are what a live blog takes from every entry: its authors, each as JSON, and its first picture."""

    authors: tuple[Markup, ...]
    picture: dict[str, Any] | None


def live_blog(edition: Edition, updates: Sequence[Markup], credits: Sequence[Credits]) -> Markup:
    """The LiveBlogPosting for the head of the stream's page, joined of texts that are made once per revision.

    `updates` are `update` of the first UPDATES entries, `credits` are `credits_of` of each entry.
    """
    page, zone = edition.page, zoneinfo.ZoneInfo(edition.page["timezone"])
    authors = dict.fromkeys(author for named in credits for author in named.authors)
    blog = _script(
        {
            "@context": "https://schema.org",
            "@type": "LiveBlogPosting",
            "headline": page["headline"],
            "description": page.get("dek"),
            "inLanguage": page["lang"],
            "url": edition.url,
            "mainEntityOfPage": {"@type": "WebPage", "@id": edition.url},
            "datePublished": _at(min(page.get("coverage_start") or edition.began_at, edition.began_at), zone),
            "dateModified": _at(page["updated_at"], zone),
            "coverageStartTime": _at(page.get("coverage_start") or edition.began_at, zone),
            "coverageEndTime": _at(page.get("coverage_end"), zone),
            "about": [_thing(topic) for topic in page["topics"]] or None,
            "keywords": [topic["label"] for topic in page["topics"]] or None,
            "image": [named.picture for named in credits if named.picture][:1] or None,
            "author": None if authors else _organization(edition),
            "publisher": _organization(edition),
        }
    )
    names = f', "author": [{", ".join(authors)}]' if authors else ""
    return Markup(f'{blog[:-1]}{names}, "liveBlogUpdate": [{", ".join(updates[:UPDATES])}]}}')


def update(edition: Edition, entry: StoredEntry) -> Markup:
    """An entry as an update of the live blog."""
    return _script(_update(edition, entry, zoneinfo.ZoneInfo(edition.page["timezone"])))


def credits_of(edition: Edition, entry: StoredEntry) -> Credits:
    """The authors and the first picture of an entry."""
    return Credits(tuple(map(_script, _people(entry))), next(iter(_pictures(edition, entry)), None))


def posting(edition: Edition, entry: StoredEntry) -> Markup:
    """The BlogPosting for the head of an entry's own page."""
    update = _update(edition, entry, zoneinfo.ZoneInfo(edition.page["timezone"]))
    about = {"url": edition.entry_url(entry["id"]), "publisher": _organization(edition)}
    return _script({"@context": "https://schema.org", **update, **about})


def _update(edition: Edition, entry: StoredEntry, zone: zoneinfo.ZoneInfo) -> dict[str, Any]:
    return present(
        {
            "@type": "BlogPosting",
            "headline": entry.get("headline") or edition.page["headline"],
            "url": f"{edition.url}#e-{entry['id']}",
            "datePublished": _at(entry["published_at"], zone),
            "dateModified": _at(entry.get("updated_at"), zone),
            "articleBody": opening(entry, BODY_LIMIT) or entry.get("headline"),
            "author": _people(entry) or _organization(edition),
            "image": _pictures(edition, entry) or None,
            "keywords": entry["tags"] or None,
            "correction": _correction(entry.get("correction"), zone),
        }
    )


def _correction(correction: StoredCorrection | None, zone: zoneinfo.ZoneInfo) -> dict[str, Any] | None:
    if correction is None:
        return None
    at = _at(correction["at"], zone)
    return {"@type": "CorrectionComment", "text": correction["note"], "datePublished": at}


def _organization(edition: Edition) -> dict[str, Any] | None:
    """The publisher, by the name of the site, else by the host of the server; None where neither is known."""
    if not edition.site_name:
        return None
    address, logo = f"{edition.base}/" if edition.host else None, edition.masthead.logo
    image = {"@type": "ImageObject", "url": logo} if logo else None
    return present({"@type": "Organization", "name": edition.site_name, "url": address, "logo": image})


def _people(entry: StoredEntry) -> list[dict[str, Any]]:
    return [
        present(
            {
                "@type": "Person",
                "name": person["name"],
                "jobTitle": person.get("role"),
                "affiliation": {"@type": "Organization", "name": person["org"]} if "org" in person else None,
            }
        )
        for person in entry["bylines"]
    ]


def _pictures(edition: Edition, entry: StoredEntry) -> list[dict[str, Any]]:
    return [
        {
            "@type": "ImageObject",
            "url": picture["src"],
            "width": picture["width"],
            "height": picture["height"],
            "caption": picture["caption"],
            "creditText": picture["credit"],
        }
        for picture in edition.pictures(entry)
    ]


def _thing(topic: Mapping[str, str]) -> dict[str, Any]:
    return present({"@type": "Thing", "name": topic["label"], "url": topic.get("url")})


def _at(instant: str | None, zone: zoneinfo.ZoneInfo) -> str | None:
    """An instant with the offset that the page's zone has at that instant."""
    return datetime.fromisoformat(instant).astimezone(zone).isoformat(timespec="seconds") if instant else None


def _script(fields: dict[str, Any]) -> Markup:
    """JSON for a script element: every character that could end the element, or one of its lines, is escaped."""
    source = json.dumps(present(fields), ensure_ascii=False)
    return Markup(re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", source))
