"""Server-Sent Events out (WHATWG HTML, 9.2): the frames of a stream to whoever cannot have a WebSocket.

Each frame is one event without a type, its data the frame's JSON, its id the cursor that a reader comes back with. What
was lost is told by a frame, as everywhere: an EventSource cannot read headers or close codes.
"""

from __future__ import annotations

import random

from starlette.types import Send

from ..wire.codes import Close
from ..wire.frames import Told
from .asgi import AsgiReader

RETRY_LEAST_MS, RETRY_MOST_MS = 1_000, 5_000  # after which a browser comes back by itself; each is told its own


class SseReader(AsgiReader):
    """A reader on an HTTP answer that does not end. `transmit` is set before it runs."""

    __slots__ = ("transmit",)

    transmit: Send

    async def _send(self, frame: Told) -> None:
        await self._body(frame.wire(self.format, self.coding))

    async def _end(self, code: Close) -> None:
        await self.transmit({"type": "http.response.body", "body": b""})

    async def run(self) -> None:
        await self._body(f"retry: {random.randint(RETRY_LEAST_MS, RETRY_MOST_MS)}\n\n".encode())
        await super().run()

    async def _body(self, part: bytes) -> None:
        await self.transmit({"type": "http.response.body", "body": part, "more_body": True})
