"""The nouns of the project: instants, streams, cursors, events, and entries and pages as they are stored. Pure.

An instant is a UTC string of milliseconds, `2023-07-11T15:53:00.000Z`: always 24 characters, so that strings
compare as instants do.
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, NotRequired, TypedDict
from zlib import crc32

from .errors import Fault, Invalid, shorten

STREAM = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")  # of an entry; publishers may bring their own
REMADE_WITHIN = 64  # bytes of a page.put that begin with its instant and, if it has them, the changed fields
EVENT_TYPES = frozenset({"entry.put", "entry.withdraw", "page.put", "stream.end"})  # a later version may have more
PINNED = 2**52  # above every instant in milliseconds, and with one added still exact in a double


# --- instants and names


def instant(ms: int) -> str:
    """Milliseconds since 1970 as an instant."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=16)  # a publish asks several times for the same second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def milliseconds(at: str) -> int:
    """An instant as milliseconds since 1970."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A new entry's id: 15 characters that sort by the microsecond they were made in, 20 of the 75 bits random."""
    value = (time.time_ns() // 1_000) << 20 | secrets.randbits(20)
    return "".join("0123456789abcdefghjkmnpqrstvwxyz"[value >> shift & 31] for shift in range(70, -1, -5))


def check_stream(name: str) -> str:
    """Returns the name if it is a stream's. Raises Invalid."""
    if not STREAM.fullmatch(name):
        stream, _, id = name.partition("/entries/")
        if id and STREAM.fullmatch(stream):  # `/streams/storm/entries/a/b`: a slash in the id leaves no such address
            check_id(id)
        # `/streams/storm/entry`: more often a wrong address than a name with a slash.
        hint = ", or the stream has no such address" if STREAM.fullmatch(name.partition("/")[0]) else ""
        raise Invalid(
            f"The name of the stream is not valid{hint}.",
            Fault("stream", "1 to 64 characters of a-z, 0-9 and -, not beginning with -", shorten(name)),
        )
    return name


def check_id(id: str) -> str:
    """Returns the id if it is an entry's. Raises Invalid."""
    if not ID.fullmatch(id):
        expected = "1 to 64 characters of A-Z, a-z, 0-9, - and _, beginning with a letter or digit"
        raise Invalid("The id of the entry is not valid.", Fault("id", expected, shorten(id)))
    return id


def partition_of(stream: str, partitions: int) -> int:
    """The partition, from 0, of a stream: its keys share a hash tag."""
    return crc32(stream.encode()) % partitions


def tag(partition: int) -> str:
    """The hash tag that a partition's keys begin with, so that one server of a cluster has all of them."""
    return f"{{p{partition:02d}}}"


# --- events


class Cursor(NamedTuple):
    """A cursor names one event. The nonce tells two events apart that got the same Redis id across a failover."""

    epoch: str
    id: str
    nonce: str

    @classmethod
    def beginning(cls, epoch: str) -> Cursor:
        """The cursor that the first event of a log names as the event before it."""
        return cls(epoch, "0-0", "0" * 16)

    def __str__(self) -> str:
        return f"v1.{self.epoch}.{self.id}.{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor in a text that a reader sent, None where the text is no cursor."""
        match = re.fullmatch(r"v1\.([0-9a-f]{16})\.([0-9]{1,19}-[0-9]{1,19})\.([0-9a-f]{16})", text)
        return cls(*match.groups()) if match else None


class Event(NamedTuple):
    """An event is one record of the log.

    `data` is a JSON object: its members join those of the frame. `shown_at` is the newest instant that the page shows
    because of the event. `entry_id` names the entry that the event is about and is '' for the page. `request` is the
    idempotency key and the hash of the body that it was published with, '' where there was no key. `by` says which
    publish key made it, as a row of a history has it; no reader is sent it.
    """

    cursor: Cursor
    prev: Cursor
    n: int
    type: str
    data: bytes
    shown_at: str
    entry_id: str = ""
    request: str = ""
    by: str = ""

    @property
    def stored_at(self) -> int:
        """When the store appended it, in milliseconds since 1970, by the store's clock."""
        return int(self.cursor.id.partition("-")[0])

    @property
    def is_known(self) -> bool:
        """Whether this version knows the type. An unknown event is sent to readers as it is, and shown on no page."""
        return self.type in EVENT_TYPES

    @property
    def remakes_page(self) -> bool:
        """Whether the page has another language, direction or zone after it: every entry on it looks different."""
        return self.type == "page.put" and b',"changed":' in self.data[:REMADE_WITHIN]

    def withdrawn(self, data: bytes) -> Event:
        """The event after its entry was withdrawn: the same place in the order, with the withdrawal as its content.

        An event of an unknown type is replaced too, as it may contain the entry's text.
        """
        return self._replace(type="entry.withdraw", data=data, request="") if self.type != "entry.withdraw" else self


class Deletion(NamedTuple):
    """A deletion is the mark that a deleted stream leaves: the instant, and the epoch of its log, "-" for none."""

    at: str
    epoch: str

    @classmethod
    def parse(cls, mark: bytes) -> Deletion:
        """The deletion that a mark names."""
        at, _, epoch = mark.decode().partition(" ")
        return cls(at, epoch)


# --- entries and pages as they are stored


class StoredCorrection(TypedDict):
    """The last correction of an entry, as readers see it; the key `class` is always "correction"."""

    note: str
    at: str


class StoredEntry(TypedDict):
    """An entry at one revision. Instants are strings, as in `instant`."""

    id: str
    rev: int
    url: str
    headline: NotRequired[str]
    blocks: list[dict[str, Any]]
    bylines: list[dict[str, str]]
    tags: list[str]
    flags: dict[str, bool]
    published_at: str
    sort_at: str
    updated_at: NotRequired[str]
    correction: NotRequired[StoredCorrection]


class StoredWithdrawal(TypedDict):
    """The mark that a withdrawn entry leaves behind."""

    id: str
    rev: int
    at: str
    reason: str
    note: NotRequired[str]
    headline: NotRequired[str | None]
    erased_at: NotRequired[str]  # since when no record of the log has the text


class StoredPage(TypedDict):
    """A stream's own fields at one revision; revision 0 is a page that nobody has written yet."""

    rev: int
    headline: str
    kicker: NotRequired[str]
    dek: NotRequired[str]
    background: list[dict[str, Any]]
    intro: NotRequired[str]
    timezone: str
    lang: str
    dir: str
    state: str
    coverage_start: NotRequired[str]
    coverage_end: NotRequired[str]
    previous: list[dict[str, str]]
    next: NotRequired[dict[str, str]]
    topics: list[dict[str, str]]
    updated_at: str
    began_at: NotRequired[str]


def order_of(entry: StoredEntry) -> int:
    """An entry's score in the order of the page: pinned entries first, then by `sort_at`; the id decides ties."""
    return milliseconds(entry["sort_at"]) + (PINNED if entry["flags"].get("pinned") else 0)


def unwritten_page(stream: str) -> StoredPage:
    """The page of a stream that has entries and was given no page yet."""
    return {
        "rev": 0,
        "headline": stream.replace("-", " ").capitalize(),
        "timezone": "UTC",
        "lang": "en",
        "dir": "ltr",
        "background": [],
        "previous": [],
        "topics": [],
        "state": "live",
        "updated_at": instant(0),
    }


# --- one publish


def new_feed_id() -> str:
    """The id of the feeds of a new stream (RFC 4287, 4.2.6): it has no address in it, and so outlives every address."""
    return uuid.uuid4().urn


class Author(NamedTuple):
    """An Author is the publish key of a request: its id, and the name that it was made with."""

    id: str
    name: str


class Idempotency(NamedTuple):
    """The idempotency key of a request and the hash of its body, both empty where there is none; and its publish key.

    `from_client` is false for a key that the server made: then no answer can have been given before.
    """

    key: str = ""
    body_hash: str = ""
    from_client: bool = False
    author: Author | None = None


class Append(NamedTuple):
    """One publish as the log stores it: an event, and the state that the event makes.

    `rev` is the revision that it makes, `replaces` the revision before it where that is not `rev` - 1. `order` is the
    score of an entry, or of a withdrawal among the withdrawals. `began_at` is when the coverage began, where that was
    before `shown_at`. `at` is in milliseconds since 1970. `by` is a row of the entry's history, as `history` makes it.
    """

    stream: str
    type: str
    data: Mapping[str, Any]
    at: int
    state: Mapping[str, Any]
    rev: int
    shown_at: str
    entry_id: str = ""
    order: int = 0
    key: str = ""
    body_hash: str = ""
    replaces: int | None = None
    began_at: str = ""
    by: str = ""
