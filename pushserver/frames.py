"""An event as the bytes of the wire, encoded once per worker and format. What a frame holds is in docs/protocol.md.

No frame has a field of one reader in it: the same text goes to every reader of the stream and format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from .model import Cursor, Event


class Format(Enum):
    """What a reader asked for: the fields of an entry, or the entry as the page shows it."""

    JSON = "json"
    HTML = "html"


class Frame:
    """An event, its text in each format that a reader has wanted so far, and what is known of its delivery.

    `sent` counts the readers that were given it live, by how many milliseconds after it was stored.
    """

    __slots__ = ("_html", "_texts", "event", "sent")

    def __init__(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        self.event = event
        self.sent: Counter[int] = Counter()
        self._html = html
        self._texts: dict[Format, str] = {}

    @property
    def cursor(self) -> Cursor:
        return self.event.cursor

    def become(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        """Tell something else in the same place: also to those who hold the frame and have not sent it yet."""
        self.event = event
        self._html = html
        self._texts = {}

    def note_sent(self, readers: int, at: int) -> None:
        """So many readers were given it at this instant, in milliseconds. Above 100 ms, two digits tell enough."""
        late = max(0, at - self.event.stored_at)
        digits = 10 ** max(0, len(str(late)) - 2)
        self.sent[-(-late // digits) * digits] += readers

    def text(self, format: Format) -> str:
        """The frame's text; the first call for a format encodes it."""
        text = self._texts.get(format)
        if text is None:
            text = self._texts[format] = self._encode(format)
        return text

    def _encode(self, format: Format) -> str:
        return encode(self.event) if format is Format.JSON else _head_of(self.event) + dumps(self._html())[1:]


def dumps(value: Any) -> str:
    """Compact JSON, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(event: Event) -> str:
    """An event in the json format. The log holds most of it as JSON already: it is not parsed to be sent."""
    return _head_of(event) + event.data.decode()[1:]


def _head_of(event: Event) -> str:
    return f'{{"type":"{event.type}","n":{event.n},"cursor":"{event.cursor}","prev":"{event.prev}",'


class Notice(NamedTuple):
    """A frame that is about no event. `cursor` is where it moves a reader to, if it does."""

    body: str
    cursor: Cursor | None = None

    def text(self, format: Format) -> str:
        return self.body


class View:
    """A frame that shows a whole stream, made once for each format that is wanted."""

    __slots__ = ("_make", "_texts", "cursor")

    def __init__(self, cursor: Cursor, make: Callable[[Format], str]) -> None:
        self.cursor = cursor
        self._make = make
        self._texts: dict[Format, str] = {}

    def text(self, format: Format) -> str:
        if format not in self._texts:
            self._texts[format] = self._make(format)
        return self._texts[format]


Told = Frame | Notice | View


class Batch:
    """What one write to a reader carries: whole frames, in order, in one format; shared by all who miss the same."""

    __slots__ = ("format", "frames", "readers")

    def __init__(self, frames: Sequence[Told], format: Format) -> None:
        self.frames = frames
        self.format = format
        self.readers = 0  # that were given it live and are not counted in its frames yet

    def settle(self, at: int) -> None:
        """Count its readers in its frames."""
        for frame in self.frames:
            if isinstance(frame, Frame):
                frame.note_sent(self.readers, at)
        self.readers = 0

    def texts(self) -> Iterator[str]:
        """What is sent, each made when it is about to be."""
        return (frame.text(self.format) for frame in self.frames)


def hello(stream: str, cursor: Cursor, n: int, *, start: int, reason: str | None, heartbeat: float) -> Notice:
    """The first frame: what follows is everything after event `start`, or, with a reason, a snapshot."""
    whole = {"complete": True} if reason is None else {"complete": False, "reason": reason}
    fields = {"type": "hello", "stream": stream, "epoch": cursor.epoch, "head": _head(cursor, n), "from": start}
    return Notice(dumps({**fields, **whole, "heartbeat": heartbeat}))


def snapshot(
    cursor: Cursor, n: int, *, page: dict[str, Any], entries: Sequence[str] = (), parts: Mapping[str, str] | None = None
) -> str:
    """The newest entries, whole: as JSON in the order of the page, or, in the html format, as the parts of the page."""
    content = f'"entries":[{",".join(entries)}]' if parts is None else f'"parts":{dumps(parts)}'
    return f'{{"type":"snapshot","n":{n},"cursor":"{cursor}","page":{dumps(page)},{content}}}'


def heartbeat(cursor: Cursor, n: int, *, readers: int, at: str, stale: str | None) -> Notice:
    """The newest event again, so that a reader who lost it finds out; `readers` are those of this worker.

    `stale` is since when the log has not been read: there may be newer events.
    """
    late = {"stale": stale} if stale else {}
    return Notice(dumps({"type": "head", "head": _head(cursor, n), "readers": readers, "at": at, **late}))


def bye(reason: str, retry_ms: int) -> Notice:
    """The last frame before a close: come back, spread over `retry_ms`."""
    return Notice(dumps({"type": "bye", "reason": reason, "retry_ms": retry_ms}))


def reset(reason: str, withdrawn: Sequence[str]) -> Notice:
    """The log lost what it had acknowledged: these entries, or revisions of them, are not there; a snapshot follows."""
    return Notice(dumps({"type": "reset", "reason": reason, "withdrawn": withdrawn}))


def _head(cursor: Cursor, n: int) -> dict[str, Any]:
    """The newest event, as frames name it."""
    return {"n": n, "cursor": str(cursor)}
