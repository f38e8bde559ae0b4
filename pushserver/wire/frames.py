"""An event as the bytes of the wire, made once per worker and variant. What a frame holds is in docs/protocol.md.

No frame has a field of one reader in it: the same bytes go to every reader of the stream and variant, which is a format
and a coding.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from ..codec import dumps
from ..model import Cursor, Event

PIECE = 65_536  # bytes from which on a piece, which is written at once, is full; it ends with a whole frame
DEFLATED_FROM = 256  # bytes of a text; below them deflating costs more than it saves


class Format(Enum):
    """What a reader asked for: the fields of an entry, or the entry as the page shows it."""

    JSON = "json"
    HTML = "html"

    __hash__ = object.__hash__  # Enum's own is written in Python, and every look into a dict would call it


class Coding(Enum):
    """How a text becomes bytes: as a WebSocket's message, plain or deflated, or as a Server-Sent Event."""

    MESSAGE = "message"
    DEFLATED = "deflated"
    EVENT = "event"

    __hash__ = object.__hash__  # as above


class Told:
    """What a frame tells: its text in each format, and its bytes in each variant, made when a reader first wants them.

    `cursor` is where it moves a reader to, if it does.
    """

    __slots__ = ("__weakref__", "_bytes", "_texts")

    def __init__(self) -> None:
        self._texts: dict[Format, str] = {}
        self._bytes: dict[tuple[Format, Coding], bytes] = {}

    @property
    def cursor(self) -> Cursor | None:
        return None

    def text(self, format: Format) -> str:
        """The frame's text; the first call for a format encodes it."""
        text = self._texts.get(format)
        if text is None:
            text = self._texts[format] = self._encode(format)
        return text

    def wire(self, format: Format, coding: Coding) -> bytes:
        """The frame's bytes; the first call for a variant makes them."""
        found = self._bytes.get((format, coding))
        if found is None:
            found = self._bytes[format, coding] = coded(self.text(format), coding, self.cursor)
        return found

    def _encode(self, format: Format) -> str:
        raise NotImplementedError


class Frame(Told):
    """An event, and what is known of its delivery.

    `sent` counts the readers that were given it live, by how many milliseconds after it was stored.
    """

    __slots__ = ("_html", "event", "sent")

    def __init__(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self.event = event
        self.sent: Counter[int] = Counter()
        self._html = html

    @property
    def cursor(self) -> Cursor:
        return self.event.cursor

    def become(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        """Tell something else in the same place: also to those who hold the frame and have not sent it yet."""
        self.event = event
        self._html = html
        self._texts, self._bytes = {}, {}

    def note_sent(self, readers: int, at: int) -> None:
        """So many readers were given it at this instant, in milliseconds. Above 100 ms, two digits tell enough."""
        late = max(0, at - self.event.stored_at)
        digits = 10 ** max(0, len(str(late)) - 2)
        self.sent[-(-late // digits) * digits] += readers

    def _encode(self, format: Format) -> str:
        return encode(self.event) if format is Format.JSON else _head_of(self.event) + dumps(self._html())[1:]


def encode(event: Event) -> str:
    """An event in the json format. The log holds most of it as JSON already: it is not parsed to be sent."""
    return _head_of(event) + event.data.decode()[1:]


def _head_of(event: Event) -> str:
    return f'{{"type":"{event.type}","n":{event.n},"cursor":"{event.cursor}","prev":"{event.prev}",'


class Notice(Told):
    """A frame that is about no event."""

    __slots__ = ("body",)

    def __init__(self, body: str) -> None:
        super().__init__()
        self.body = body

    def _encode(self, format: Format) -> str:
        return self.body


class View(Told):
    """A frame that shows a whole stream."""

    __slots__ = ("_cursor", "_make")

    def __init__(self, cursor: Cursor, make: Callable[[Format], str]) -> None:
        super().__init__()
        self._cursor = cursor
        self._make = make

    def become(self, make: Callable[[Format], str]) -> None:
        """Show something else: also to those who hold it and have not sent it yet."""
        self._make = make
        self._texts, self._bytes = {}, {}

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    def _encode(self, format: Format) -> str:
        return self._make(format)


class Batch:
    """What one write to a reader carries: whole frames, in order, in one variant; shared by all who miss the same."""

    __slots__ = ("_first", "_rest", "coding", "format", "frames", "readers")

    def __init__(self, frames: Sequence[Told], format: Format, coding: Coding = Coding.MESSAGE) -> None:
        self.frames = frames
        self.format = format
        self.coding = coding
        self.readers = 0  # that were given it live and are not counted in its frames yet
        self._first: tuple[bytes, bool] | None = None
        self._rest = 0  # the first frame that `first` does not carry

    def settle(self, at: int) -> None:
        """Count its readers in its frames."""
        for frame in self.frames:
            if isinstance(frame, Frame):
                frame.note_sent(self.readers, at)
        self.readers = 0

    def texts(self) -> Iterator[str]:
        """What is sent, each made when it is about to be."""
        return (frame.text(self.format) for frame in self.frames)

    def first(self) -> tuple[bytes, bool]:
        """What is written at once, and whether that is all: a piece of it, joined once for all who share it."""
        found = self._first
        if found is None:
            piece, self._rest = self._piece(0)
            found = self._first = piece, self._rest == len(self.frames)
        return found

    def rest(self) -> Iterator[bytes]:
        """What comes after `first`, piece by piece, each made when it is about to be sent: frames may have changed."""
        at = self._rest
        while at < len(self.frames):
            piece, at = self._piece(at)
            yield piece

    def _piece(self, start: int) -> tuple[bytes, int]:
        parts, size, end = [], 0, start
        while end < len(self.frames) and size < PIECE:
            part = self.frames[end].wire(self.format, self.coding)
            parts.append(part)
            size += len(part)
            end += 1
        return b"".join(parts), end


def coded(text: str, coding: Coding, cursor: Cursor | None) -> bytes:
    """A text as a reader's transport sends it."""
    if coding is Coding.EVENT:
        # The text is JSON on one line. To the standard these two are no ends of a line, to many a client they are.
        data = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        id = f"id: {cursor}\n" if cursor else ""
        return f"{id}data: {data}\n\n".encode()
    payload = text.encode()
    if coding is Coding.DEFLATED and len(payload) >= DEFLATED_FROM:
        return message(deflated(payload), TEXT | RSV1)
    return message(payload, TEXT)


FIN, RSV1, TEXT, CLOSE = 0x80, 0x40, 0x1, 0x8


def message(payload: bytes, kind: int) -> bytes:
    """A whole WebSocket frame from a server (RFC 6455, 5.2): its length in 7, 16 or 64 bits, and no mask."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", FIN | kind, size) + payload
    if size < 65_536:
        return struct.pack("!BBH", FIN | kind, 126, size) + payload
    return struct.pack("!BBQ", FIN | kind, 127, size) + payload


def close_message(code: int) -> bytes:
    """A close frame (5.5.1)."""
    return message(struct.pack("!H", code), CLOSE)


def deflated(payload: bytes) -> bytes:
    """A payload compressed by itself (RFC 7692, 7.2.1): with no context, it is the same for every reader."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def hello(stream: str, cursor: Cursor, n: int, *, start: int, reason: str | None, heartbeat: float) -> Notice:
    """The first frame: what follows is everything after event `start`, or, with a reason, a snapshot."""
    whole = {"complete": True} if reason is None else {"complete": False, "reason": reason}
    fields = {"type": "hello", "stream": stream, "epoch": cursor.epoch, "head": _head(cursor, n), "from": start}
    return Notice(dumps({**fields, **whole, "heartbeat": heartbeat}))


def snapshot(
    cursor: Cursor,
    n: int,
    *,
    page: Mapping[str, Any],
    entries: Sequence[str] = (),
    parts: Mapping[str, str] | None = None,
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
