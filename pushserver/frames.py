"""An event as the bytes of the wire, encoded once per worker and format. What a frame holds is in docs/protocol.md.

No frame has a field of one reader in it: the same text goes to every reader of the stream and format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from .model import Cursor, Event

Batch = Sequence[str]  # what one write to a reader carries: whole frames, in order


class Format(Enum):
    """What a reader asked for: the fields of an entry, or the entry as the page shows it."""

    JSON = "json"
    HTML = "html"


class Frame:
    """An event, and its text in each format that a reader has wanted so far."""

    __slots__ = ("_html", "_texts", "event")

    def __init__(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        self.event = event
        self._html = html
        self._texts: dict[Format, str] = {}

    def text(self, format: Format) -> str:
        """The frame's text; the first call for a format encodes it."""
        text = self._texts.get(format)
        if text is None:
            text = self._texts[format] = self._encode(format)
        return text

    def _encode(self, format: Format) -> str:
        event = self.event
        head = f'{{"type":"{event.type}","n":{event.n},"cursor":"{event.cursor}","prev":"{event.prev}",'
        # The log holds the rest of the frame as JSON already: it is not parsed to be sent.
        return head + (event.data.decode()[1:] if format is Format.JSON else dumps(self._html())[1:])


def dumps(value: Any) -> str:
    """Compact JSON, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def batch(frames: Sequence[Frame], format: Format) -> Batch:
    """The frames as one write carries them."""
    return [frame.text(format) for frame in frames]


def hello(stream: str, cursor: Cursor, n: int, *, start: int, reason: str | None, heartbeat: float) -> str:
    """The first frame: what follows is everything after event `start`, or, with a reason, a snapshot."""
    whole = {"complete": True} if reason is None else {"complete": False, "reason": reason}
    fields = {"type": "hello", "stream": stream, "epoch": cursor.epoch, "head": _head(cursor, n), "from": start}
    return dumps({**fields, **whole, "heartbeat": heartbeat})


def snapshot(
    cursor: Cursor, n: int, *, page: dict[str, Any], entries: Sequence[str] = (), parts: Mapping[str, str] | None = None
) -> str:
    """The newest entries, whole: as JSON in the order of the page, or, in the html format, as the parts of the page."""
    content = f'"entries":[{",".join(entries)}]' if parts is None else f'"parts":{dumps(parts)}'
    return f'{{"type":"snapshot","n":{n},"cursor":"{cursor}","page":{dumps(page)},{content}}}'


def heartbeat(cursor: Cursor, n: int, *, readers: int, at: str) -> str:
    """The newest event again, so that a reader who lost it finds out; `readers` are those of this worker."""
    return dumps({"type": "head", "head": _head(cursor, n), "readers": readers, "at": at})


def bye(reason: str, retry_ms: int) -> str:
    """The last frame before a close: come back, spread over `retry_ms`."""
    return dumps({"type": "bye", "reason": reason, "retry_ms": retry_ms})


def _head(cursor: Cursor, n: int) -> dict[str, Any]:
    """The newest event, as frames name it."""
    return {"n": n, "cursor": str(cursor)}
