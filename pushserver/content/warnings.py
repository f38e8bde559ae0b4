"""Warnings about an entry that is valid, and unusual: an editor may want to check it before it is published. Pure.

They are part of the answer to a dry run. No entry is refused because of one.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import Fault, shorten
from ..model import StoredEntry, StoredPage, instant, milliseconds

HEADLINE_SHOWN = 110  # characters that search engines and news apps show of a headline
DAY = 86_400_000  # milliseconds


def warnings(entry: StoredEntry, page: StoredPage, at: int) -> list[Fault]:
    """The warnings about a stored entry at the instant `at`, in milliseconds, on a stream's page."""
    return [*_headline(entry), *_pictures(entry), *_clock(entry, at), *_state(page)]


def _headline(entry: StoredEntry) -> Iterator[Fault]:
    headline = entry.get("headline", "")
    if len(headline) > HEADLINE_SHOWN:
        yield Fault(
            "headline", f"at most {HEADLINE_SHOWN} characters, to be shown whole", f"{len(headline)} characters"
        )


def _pictures(entry: StoredEntry) -> Iterator[Fault]:
    for index, block in enumerate(entry["blocks"]):
        if block["type"] == "image" and not block["alt"]:
            yield Fault(
                f"blocks.{index}.alt", "a description of the picture, for readers who cannot see it", shorten("")
            )


def _clock(entry: StoredEntry, at: int) -> Iterator[Fault]:
    """Warn of a clock that is off by days: its entries stand far from the newest ones, where readers miss them."""
    if abs(milliseconds(entry["published_at"]) - at) > DAY:
        yield Fault("published_at", f"within a day of the server's clock, {instant(at)}", entry["published_at"])


def _state(page: StoredPage) -> Iterator[Fault]:
    if page["state"] == "ended":
        yield Fault("stream", "a live one", "ended: the entry would be refused")
