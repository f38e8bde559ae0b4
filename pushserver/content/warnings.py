"""Warnings about an entry that is valid, and unusual: an editor may want to check it before it is published. Pure.

They are part of the answer to a dry run, and of the answer to a publish. No entry is refused because of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import shorten
from ..model import StoredPage, instant, milliseconds
from .schema import EntryIn

HEADLINE_SHOWN = 110  # characters that search engines and news apps show of a headline
SKEW = 60_000  # milliseconds that a publisher's clock may be ahead
DAY = 86_400_000  # milliseconds


class EntryWarning(NamedTuple):
    """An EntryWarning has a code for scripts, the field, what would be usual there, and what came."""

    code: str
    field: str
    expected: str
    got: str


def of_input(entry_in: EntryIn, at: int) -> list[EntryWarning]:
    """The warnings about an entry that is sent at the instant `at`, in milliseconds."""
    return [
        *_headline(entry_in),
        *_pictures(entry_in),
        *_clock(entry_in, at),
        *_place(entry_in, at),
        *_losses(entry_in),
    ]


def of_page(page: StoredPage) -> list[EntryWarning]:
    """The warnings about an entry that would be published on a stream's page."""
    is_ended = page["state"] == "ended"
    return [EntryWarning("ended", "stream", "a live one", "ended: the entry would be refused")] if is_ended else []


def _headline(entry_in: EntryIn) -> Iterator[EntryWarning]:
    length = len(entry_in.headline or "")
    if length > HEADLINE_SHOWN:
        expected = f"at most {HEADLINE_SHOWN} characters, to be shown whole"
        yield EntryWarning("long-headline", "headline", expected, f"{length} characters")


def _pictures(entry_in: EntryIn) -> Iterator[EntryWarning]:
    expected = "a description of the picture, for readers who cannot see it"
    for index, block in enumerate(entry_in.blocks):
        if block.type == "image" and not block.alt:
            yield EntryWarning("no-alt", f"blocks.{index}.alt", expected, shorten(""))


def _clock(entry_in: EntryIn, at: int) -> Iterator[EntryWarning]:
    """Warn of an instant to come, since the entry is public at once, and of one that is days ago."""
    published_at = entry_in.published_at
    if published_at is None:
        return
    if milliseconds(published_at) > at + SKEW:
        expected = f"now, {instant(at)}, or before: the entry is public at once, not at the instant that you sent"
        yield EntryWarning("published-in-future", "published_at", expected, published_at)
    elif milliseconds(published_at) < at - DAY:
        expected = f"within a day of the server's clock, {instant(at)}"
        yield EntryWarning("published-long-ago", "published_at", expected, published_at)


def _place(entry_in: EntryIn, at: int) -> Iterator[EntryWarning]:
    """Warn of a place above every entry that will come for a while."""
    sort_at = entry_in.sort_at
    if sort_at is not None and milliseconds(sort_at) > at + SKEW:
        expected = (
            f"now, {instant(at)}, or before: until the instant that you sent, the entry stands above every new one"
        )
        yield EntryWarning("sorted-in-future", "sort_at", expected, sort_at)


def _losses(entry_in: EntryIn) -> Iterator[EntryWarning]:
    for loss in entry_in.losses:
        yield EntryWarning("not-kept", "body", loss.expected, shorten(loss.got))
