"""A card is what other sites show of a link to a page: Open Graph, and the tags of X where they differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..model import StoredEntry
from .edition import Edition, opening
from .words import words

DESCRIPTION_LIMIT = 200  # characters of an entry's text; the sites that show cards cut longer ones


def page_card(edition: Edition, pictures: Sequence[Mapping[str, Any]]) -> Markup:
    """The tags of a stream's page. `pictures` are those of its entries, as schema.org has them, the newest first."""
    page = edition.page
    return _tags(edition, page["headline"], page.get("dek") or "", edition.url, pictures)


def entry_card(edition: Edition, entry: StoredEntry) -> Markup:
    """The tags of an entry's own page, and its description."""
    text = opening(entry, DESCRIPTION_LIMIT)
    pictures = [{"url": picture["src"], **picture} for picture in edition.pictures(entry)]
    description = Markup('<meta name="description" content="{}">\n').format(text) if text else Markup("")
    return description + _tags(edition, edition.title(entry), text, edition.entry_url(entry["id"]), pictures)


def _tags(edition: Edition, title: str, description: str, url: str, pictures: Sequence[Mapping[str, Any]]) -> Markup:
    locale = words(edition.page["lang"]).locale
    # The sites that show cards take no address that is relative to the page.
    image = next((picture for picture in pictures if picture["url"].startswith(("https://", "http://"))), None)
    properties = {
        "og:type": "article",
        "og:title": title,
        "og:description": description,
        "og:url": url if url.startswith("http") else "",
        "og:site_name": edition.site_name,
        "og:locale": f"{locale.language}_{locale.territory}" if locale.territory else "",
        **({f"og:image{part}": str(image[name]) for part, name in IMAGE_PARTS.items()} if image else {}),
    }
    names = {"twitter:card": "summary_large_image" if image else "summary", "twitter:site": edition.masthead.handle}
    return Markup("").join(
        Markup('<meta {}="{}" content="{}">\n').format(attribute, name, value)
        for attribute, tags in (("property", properties), ("name", names))
        for name, value in tags.items()
        if value
    )


IMAGE_PARTS = {"": "url", ":width": "width", ":height": "height"}
