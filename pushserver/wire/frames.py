"""Frames are the messages of the reader protocol (docs/protocol.md), encoded once per worker and variant.

No frame has a field of one reader: the same bytes go to every reader of the stream and variant. A variant is a format
and a coding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from ..codec import dumps
from ..model import Cursor, Event
from .accounts import Account, Encodings
from .websocket import RSV1, TEXT, deflate_steps, deflated, message

PROTOCOL = 1  # the version of the reader protocol, as `hello` names it
PIECE = 65_536  # bytes; a piece is written at once, and ends with the frame that makes it this long
DEFLATED_FROM = 256  # bytes; compressing a shorter text costs more than it saves
STEP = 65_536  # characters that are encoded in one step
EVENT_END = b"\n\n"  # of a Server-Sent Event
FRAME_BYTES = 1_792  # of an event in memory, beside its data and its encodings: `python -m bench.rings --frame`


class Format(Enum):
    """A format is what a reader asks for: the fields of an entry, or the entry as HTML of the page."""

    JSON = "json"
    HTML = "html"

    __hash__ = object.__hash__  # Enum's own hash is Python code, and every dict lookup would call it


class Coding(Enum):
    """A coding makes bytes of a text: a WebSocket message, plain or compressed, or a Server-Sent Event."""

    MESSAGE = "message"
    DEFLATED = "deflated"
    EVENT = "event"

    __hash__ = object.__hash__  # as above


class Frame:
    """Frame is a message to readers: its text in each format and its bytes in each variant, made on first use.

    `cursor` is the event that the frame moves a reader to, or None. What the frame has made is counted in `encodings`,
    if it has one, which may make it forget that: the next reader who needs it makes it again.
    """

    __slots__ = ("__weakref__", "_bytes", "_texts", "encodings")

    def __init__(self) -> None:
        self.encodings: Encodings | None = None
        self._texts: dict[Format, str] = {}
        self._bytes: dict[tuple[Format, Coding], bytes] = {}

    @property
    def size(self) -> int:
        """The bytes that it keeps in memory, without its texts and bytes for readers."""
        return FRAME_BYTES

    @property
    def cursor(self) -> Cursor | None:
        return None

    def text(self, format: Format) -> str:
        """The frame's text; the first call for a format makes it."""
        text = self._texts.get(format)
        if text is None:
            text = self._encode(format)
            self._keep_text(format, text)
        return text

    def encoded(self, format: Format, coding: Coding) -> bytes:
        """The frame's bytes; the first call for a variant makes them."""
        data = self._bytes.get((format, coding))
        if data is None:
            data = encode_text(self.text(format), coding, self.cursor)
            self._keep_bytes(format, coding, data)
        return data

    def _keep_text(self, format: Format, text: str) -> None:
        self._texts[format] = text
        if self.encodings is not None:
            self.encodings.add(self, text)

    def _keep_bytes(self, format: Format, coding: Coding, data: bytes) -> None:
        self._bytes[format, coding] = data
        if self.encodings is not None:
            self.encodings.add(self, data)

    def forget(self) -> None:
        """Drop the texts and bytes; only `encodings` calls this, which counts them."""
        self._texts, self._bytes = {}, {}

    def _encode(self, format: Format) -> str:
        raise NotImplementedError

    def _clear(self) -> None:
        """Drop the texts and bytes: they show content that was replaced."""
        if self.encodings is not None:
            self.encodings.remove(self)
        self.forget()


class EventFrame(Frame):
    """EventFrame carries one event of the log.

    `latencies` counts the readers that received it live, by milliseconds after it was stored.
    """

    __slots__ = ("_html", "event", "latencies")

    def __init__(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self.event = event
        self.latencies: Counter[int] = Counter()
        self._html = html

    @property
    def cursor(self) -> Cursor:
        return self.event.cursor

    @property
    def size(self) -> int:
        return FRAME_BYTES + len(self.event.data)

    def replace(self, event: Event, html: Callable[[], dict[str, Any]]) -> None:
        """Carry another event in the same place, also to readers whose copy waits to be sent."""
        self.event = event
        self._html = html
        self._clear()

    def count_readers(self, readers: int, at: int) -> None:
        """Count readers that received the frame at this instant, in milliseconds since 1970.

        A latency above 100 ms is rounded up to two digits, so that the counter stays small.
        """
        late = max(0, at - self.event.stored_at)
        digits = 10 ** max(0, len(str(late)) - 2)
        self.latencies[-(-late // digits) * digits] += readers

    def _encode(self, format: Format) -> str:
        return encode(self.event) if format is Format.JSON else _head_of(self.event) + dumps(self._html())[1:]


def encode(event: Event) -> str:
    """An event in the json format. The log stores most of it as JSON already, so it is not parsed."""
    return _head_of(event) + event.data.decode()[1:]


def _head_of(event: Event) -> str:
    return f'{{"type":"{event.type}","n":{event.n},"cursor":"{event.cursor}","prev":"{event.prev}",'


class Notice(Frame):
    """Notice is a frame about the connection or the stream, not about an event: hello, head, reset, bye.

    `reason` is that of a `bye`.
    """

    __slots__ = ("body", "reason")

    def __init__(self, body: str, reason: str = "") -> None:
        super().__init__()
        self.body = body
        self.reason = reason

    def _encode(self, format: Format) -> str:
        return self.body


class SnapshotFrame(Frame):
    """SnapshotFrame shows a whole stream as of one event; `make` gives its text in a format, in parts.

    `size` is the bytes that it keeps in memory, without its texts and bytes for readers.
    """

    __slots__ = ("_cursor", "_make", "_size")

    def __init__(self, cursor: Cursor, make: Callable[[Format], Iterable[str]], *, size: int = FRAME_BYTES) -> None:
        super().__init__()
        self._cursor = cursor
        self._make = make
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def steps(self, format: Format, coding: Coding) -> Generator[None, None, None]:
        """Make the bytes of a variant, a part a step: those of a large stream, made at once, would hold up everyone.

        Nothing is kept where another text takes its place meanwhile.
        """
        if (format, coding) in self._bytes:
            return
        make, text = self._make, self._texts.get(format)
        if text is None:
            parts = []
            for part in make(format):
                parts.append(part)
                yield
            text = "".join(parts)
        data = yield from encode_steps(text, coding, self._cursor)
        if self._make is make:
            self._keep(format, coding, text, data)

    def _keep(self, format: Format, coding: Coding, text: str, data: bytes) -> None:
        if format not in self._texts:
            self._keep_text(format, text)
        if (format, coding) not in self._bytes:
            self._keep_bytes(format, coding, data)

    def replace(self, make: Callable[[Format], Iterable[str]]) -> None:
        """Show another text, also to readers whose copy waits to be sent."""
        self._make = make
        self._clear()

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    def _encode(self, format: Format) -> str:
        return "".join(self._make(format))


class Batch:
    """Batch is the content of one write: whole frames, in order, in one variant, shared by readers that miss the same.

    `readers` counts the readers that received it live and are not yet counted in its frames; the fanout adds to it.
    The first piece is counted in `account` where it is a copy.
    """

    __slots__ = ("_account", "_first", "_first_end", "coding", "format", "frames", "readers")

    def __init__(
        self,
        frames: Sequence[Frame],
        format: Format,
        coding: Coding = Coding.MESSAGE,
        *,
        account: Account | None = None,
    ) -> None:
        self.frames = frames
        self.format = format
        self.coding = coding
        self.readers = 0
        self._account = account
        self._first: tuple[bytes, bool] | None = None
        self._first_end = 0  # index of the first frame after the first piece

    def count_readers(self, at: int) -> int:
        """Count its readers in its frames, at an instant in milliseconds since 1970; how many events they were sent."""
        events = 0
        for frame in self.frames:
            if isinstance(frame, EventFrame):
                frame.count_readers(self.readers, at)
                events += 1
        written, self.readers = self.readers * events, 0
        return written

    def texts(self) -> Iterator[str]:
        """The texts of the frames, each made when it is about to be sent."""
        return (frame.text(self.format) for frame in self.frames)

    def first(self) -> tuple[bytes, bool]:
        """The first piece, joined once for all readers, and whether it is the whole batch."""
        first = self._first
        if first is None:
            piece, self._first_end = self._piece(0)
            first = self._first = piece, self._first_end == len(self.frames)
            if self._account is not None and self._first_end > 1:
                self._account.grow(len(piece))
        return first

    def rest(self) -> Iterator[bytes]:
        """The pieces after the first, each made when it is about to be sent: a frame may be replaced meanwhile."""
        at = self._first_end
        while at < len(self.frames):
            piece, at = self._piece(at)
            yield piece

    def _piece(self, start: int) -> tuple[bytes, int]:
        parts, size, end = [], 0, start
        while end < len(self.frames) and size < PIECE:
            part = self.frames[end].encoded(self.format, self.coding)
            parts.append(part)
            size += len(part)
            end += 1
        return b"".join(parts), end


def encode_text(text: str, coding: Coding, cursor: Cursor | None) -> bytes:
    """The bytes of a text in a coding. `cursor` becomes the id of a Server-Sent Event (WHATWG HTML, 9.2)."""
    payload = _payload(text, coding)
    if coding is Coding.EVENT:
        return _event_start(cursor) + payload + EVENT_END
    if coding is Coding.DEFLATED and len(payload) >= DEFLATED_FROM:
        return message(deflated(payload), TEXT | RSV1)
    return message(payload, TEXT)


def encode_steps(text: str, coding: Coding, cursor: Cursor | None) -> Generator[None, None, bytes]:
    """Encode as `encode_text` does. A long text takes many steps."""
    yield
    if len(text) <= STEP:
        return encode_text(text, coding, cursor)
    parts = []
    for at in range(0, len(text), STEP):
        parts.append(_payload(text[at : at + STEP], coding))
        yield
    if coding is Coding.EVENT:
        return b"".join((_event_start(cursor), *parts, EVENT_END))
    payload = b"".join(parts)
    yield
    if coding is Coding.DEFLATED:
        return message((yield from deflate_steps(payload)), TEXT | RSV1)
    return message(payload, TEXT)


def _payload(text: str, coding: Coding) -> bytes:
    """The bytes of a text. That of a Server-Sent Event is JSON on one line.

    U+2028 and U+2029 end no line by the standard (WHATWG HTML, 9.2), but many clients split there.
    """
    if coding is Coding.EVENT:
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode()


def _event_start(cursor: Cursor | None) -> bytes:
    return (f"id: {cursor}\n" if cursor else "").encode() + b"data: "


# --- the frames that are about no event, and snapshots


def hello(stream: str, cursor: Cursor, n: int, *, start: int, reason: str | None, heartbeat: float) -> Notice:
    """The first frame: the events after number `start` follow, or, with a reason, a snapshot.

    `cursor` and `n` name the newest event; `heartbeat` is the seconds between two head frames.
    """
    whole = {"complete": True} if reason is None else {"complete": False, "reason": reason}
    fields = {
        "type": "hello",
        "protocol": PROTOCOL,
        "stream": stream,
        "epoch": cursor.epoch,
        "head": _head(cursor, n),
        "from": start,
    }
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


def heartbeat(
    cursor: Cursor, n: int, *, readers: int, at: str, stale: str | None, everywhere: int | None = None
) -> Notice:
    """A head frame repeats the newest event, so that a reader who lost it notices.

    `readers` counts this worker's readers of the stream, `everywhere` those of all workers. `stale` is the instant
    since which the log has not been read: there may be newer events.
    """
    more = {"readers_now": everywhere, "stale": stale}
    known = {name: value for name, value in more.items() if value is not None}
    return Notice(dumps({"type": "head", "head": _head(cursor, n), "readers": readers, "at": at, **known}))


def bye(reason: str, retry_ms: int, *, reload_ms: int | None = None) -> Notice:
    """The last frame before a close: the reader reconnects after a random part of `retry_ms` milliseconds.

    A page that another build made is loaded anew after `reload_ms` milliseconds.
    """
    reload = {} if reload_ms is None else {"reload_ms": reload_ms}
    return Notice(dumps({"type": "bye", "reason": reason, "retry_ms": retry_ms, **reload}), reason)


def reset(reason: str, withdrawn: Sequence[str]) -> Notice:
    """The log lost acknowledged events: the entries `withdrawn`, or revisions of them, are gone; a snapshot follows."""
    return Notice(dumps({"type": "reset", "reason": reason, "withdrawn": withdrawn}))


def _head(cursor: Cursor, n: int) -> dict[str, Any]:
    return {"n": n, "cursor": str(cursor)}
