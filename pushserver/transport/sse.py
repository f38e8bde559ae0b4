"""Server-Sent Events (WHATWG HTML, 9.2) carry a stream's frames to clients that cannot open a WebSocket.

Each frame is one event without a type: its data is the frame's JSON, its id the cursor to reconnect with. Every outcome
is a frame, also a close, because an EventSource shows a page neither headers nor close codes. `wire/frames` writes the
text of an event.
"""

from __future__ import annotations

import random

from starlette.types import Send

from ..wire.codes import Close
from ..wire.frames import Frame
from .asgi import AsgiReader

MIN_RETRY_MS, MAX_RETRY_MS = 1_000, 5_000  # after which a browser reconnects; random, so that not all come at once


class SseReader(AsgiReader):
    """SseReader is a reader on an HTTP answer that stays open. `transmit` is set before `run`."""

    transport = "sse"

    __slots__ = ("_first", "transmit")

    transmit: Send
    _first: bytes

    async def _send(self, frame: Frame) -> None:
        # `retry` stands in the block of the first event: a block of its own is an empty event to many clients.
        await self._body(self._first + frame.encoded(self.format, self.coding))
        self._first = b""

    async def _end(self, code: Close) -> None:
        await self.transmit({"type": "http.response.body", "body": b""})

    async def run(self) -> None:
        self._first = b"retry: %d\n" % random.randint(MIN_RETRY_MS, MAX_RETRY_MS)
        await super().run()

    async def _body(self, part: bytes) -> None:
        await self.transmit({"type": "http.response.body", "body": part, "more_body": True})
