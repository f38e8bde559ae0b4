"""Records: a record of a log in Redis as an Event, and a change as the arguments of the script that appends it.

`is_event` of events.lua judges records by the same shapes. The two must agree: a record that only one of them counts as
an event would break the numbers that readers check.
"""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any, cast

from .. import metrics, model
from ..codec import dumps, loads
from ..model import Append, Cursor, Event, StoredPage

logger = logging.getLogger(__name__)

PLAIN = re.compile(rb"[\w.:+-]*", re.ASCII)
SHAPES = {  # of the fields of an event
    b"e": re.compile(rb"[0-9a-f]{16}"),  # epoch
    b"n": re.compile(rb"[1-9][0-9]{0,14}"),
    b"p": re.compile(rb"[0-9]+-[0-9]+\.[0-9a-f]+"),  # the event before: redis id and nonce
    b"u": re.compile(rb"[0-9a-f]{16}"),  # nonce
    **dict.fromkeys((b"t", b"s", b"k"), PLAIN),  # type, instant shown, entry id
    b"d": re.compile(rb"\{.*\}", re.DOTALL),  # data
}


def event_of(record: list[Any]) -> Event | None:
    """The event that a record of a log is; None, counted and logged, for a record that something else wrote."""
    id, pairs = record
    fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
    if not all(name in fields and pattern.fullmatch(fields[name]) for name, pattern in SHAPES.items()):
        metrics.SKIPPED.inc()
        logger.warning("record %s skipped: its fields are not those of an event", id.decode())
        return None
    epoch = fields[b"e"].decode()
    prev_id, prev_nonce = fields[b"p"].decode().split(".")
    return Event(
        cursor=Cursor(epoch, id.decode(), fields[b"u"].decode()),
        prev=Cursor(epoch, prev_id, prev_nonce),
        n=int(fields[b"n"]),
        type=fields[b"t"].decode(),
        data=fields[b"d"],
        shown_at=fields[b"s"].decode(),
        entry_id=fields[b"k"].decode(),
        request=fields.get(b"i", b"").decode(errors="replace"),
        by=fields.get(b"b", b"").decode(errors="replace"),
    )


def append_arguments(append: Append, *, log_events: int, entry_limit: int, idempotency: int) -> list[str | int]:
    """The ARGV of append.lua, in its order. `idempotency` is the seconds for which the key is remembered."""
    return [
        *(append.type, dumps(append.data), append.at, secrets.token_hex(8), secrets.token_hex(8)),
        *(append.entry_id, append.rev, dumps(append.state), append.order),
        *(append.shown_at, append.stream, log_events, entry_limit),
        *(append.key, append.body_hash, idempotency, append.state.get("state", "")),
        append.rev - 1 if append.replaces is None else append.replaces,
        append.began_at,
        model.new_feed_id(),
        append.by,
    ]


def withdrawal_data(withdrawal: bytes) -> bytes:
    """The data of a withdrawal's event, made from the stored withdrawal: all of it but the headline and `erased_at`.

    The headline is for the entry's own page alone; readers of the stream get neither.
    """
    return dumps({name: value for name, value in loads(withdrawal).items() if name not in _OWN}).encode()


_OWN = ("headline", "erased_at")  # of a stored withdrawal, what its event does not have


def shown_page(stream: str, page_json: bytes | None, updated_at: bytes) -> StoredPage:
    """A stream's page as it is shown: the stored one, or one made of the stream's name, and when it last changed."""
    page = cast(StoredPage, loads(page_json)) if page_json else model.unwritten_page(stream)
    return {**page, "updated_at": updated_at.decode()}
