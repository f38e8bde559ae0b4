"""What an instant, a stream, an event, a cursor and a stored entry are.

Pure. An instant is a UTC string of milliseconds, `2023-07-11T15:53:00.000Z`: always 24 characters, so that strings
compare as instants do.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zlib import crc32

from .errors import Fault, Invalid, shorten

STREAM = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")  # of an entry; publishers may bring their own
EVENT_TYPES = frozenset({"entry.put", "entry.withdraw", "page.put", "stream.end"})  # a later version may have more
PINNED = 2**52  # above every instant in milliseconds, and with one added still exact in a double


# --- instants and names


def instant(ms: int) -> str:
    """Milliseconds since 1970 as an instant."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


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
    """A stream's name, or a refusal that says what one is."""
    if not STREAM.fullmatch(name):
        raise Invalid(
            "That is not the name of a stream.",
            Fault("stream", "1 to 64 characters of a-z, 0-9 and -, not beginning with -", shorten(name)),
        )
    return name


def check_id(id: str) -> str:
    """An entry's id, or a refusal that says what one is."""
    if not ID.fullmatch(id):
        expected = "1 to 64 characters of A-Z, a-z, 0-9, - and _, beginning with a letter or digit"
        raise Invalid("That is not the id of an entry.", Fault("id", expected, shorten(id)))
    return id


def partition_of(stream: str, partitions: int) -> int:
    """Which of the hash tags a stream's keys share."""
    return crc32(stream.encode()) % partitions


def tag(partition: int) -> str:
    """The hash tag of a partition: what its keys begin with, so that one server has them all."""
    return f"{{p{partition:02d}}}"


# --- the log's records


class Cursor(NamedTuple):
    """One event and its identity: the nonce tells apart two events that got the same id across a failover."""

    epoch: str
    id: str
    nonce: str

    @classmethod
    def beginning(cls, epoch: str) -> Cursor:
        """What the first event of a log names as the one before it."""
        return cls(epoch, "0-0", "0" * 16)

    def __str__(self) -> str:
        return f"v1.{self.epoch}.{self.id}.{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor that a reader sent, or None where it is not one."""
        found = re.fullmatch(r"v1\.([0-9a-f]{16})\.([0-9]{1,19}-[0-9]{1,19})\.([0-9a-f]{16})", text)
        return cls(*found.groups()) if found else None


class Event(NamedTuple):
    """One record of the log.

    `data` is what its frame carries beside the fields that are here, a JSON object as bytes; `shown_at` the newest
    instant that the page shows because of it; `entry_id` the entry that it is about, '' for the page; `request` the
    idempotency key and the body's hash that it was published with, '' where there was no key.
    """

    cursor: Cursor
    prev: Cursor
    n: int
    type: str
    data: bytes
    shown_at: str
    entry_id: str = ""
    request: str = ""

    @property
    def stored_at(self) -> int:
        """When the store took it, in milliseconds since 1970, by the store's clock."""
        return int(self.cursor.id.partition("-")[0])

    @property
    def is_known(self) -> bool:
        """Whether this version knows the type. One of a later version is sent to readers as it is, and not shown."""
        return self.type in EVENT_TYPES

    def withdrawn(self, data: bytes) -> Event:
        """The same event when its entry has been withdrawn: its place in the order, and the withdrawal for content.

        An event of an unknown type is replaced too: it may have the text of its entry in it.
        """
        return self._replace(type="entry.withdraw", data=data, request="") if self.type != "entry.withdraw" else self


class Append(NamedTuple):
    """An append is one change of a stream: the event that joins the log, and the state that moves with it.

    `state` is the entry, page or withdrawal as it is stored, `data` the JSON object that the event carries. `rev` is
    the revision that the change makes, `replaces` the one before it, where that is not `rev` - 1. `at` is milliseconds
    since 1970. `order` is an entry's score in the order of the page, or a withdrawal's among withdrawals. `began_at` is
    the instant at which the coverage began, where that is before `shown_at`. An append with the idempotency key `key`
    is stored once; `body_hash` tells a repeated request from another one under the same key.
    """

    stream: str
    type: str
    data: dict[str, Any]
    at: int
    state: dict[str, Any]
    rev: int
    shown_at: str
    entry_id: str = ""
    order: int = 0
    key: str = ""
    body_hash: str = ""
    replaces: int | None = None
    began_at: str = ""


# --- what is stored


def order_of(entry: dict[str, Any]) -> int:
    """A stored entry's score in the order of the page: pinned ones first, then by `sort_at`; ties go by id."""
    return milliseconds(entry["sort_at"]) + (PINNED if entry["flags"].get("pinned") else 0)


def unwritten_page(stream: str) -> dict[str, Any]:
    """The page of a stream that has entries and was given no page yet."""
    words = {"headline": stream.replace("-", " ").capitalize(), "timezone": "UTC", "lang": "en", "dir": "ltr"}
    lists: dict[str, Any] = {"background": [], "previous": [], "topics": []}
    return {"rev": 0, **words, **lists, "state": "live", "updated_at": instant(0)}
