"""WebSocket framing (RFC 6455) from the server's side: the messages it sends, and the frames that clients send.

A client may ping, pong and close; it has no message to send. Most clients never send a frame, so a parser is made when
bytes arrive and dropped at the end of a frame. This module is pure: it opens no connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from functools import lru_cache

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CTRL_OPCODES
from websockets.headers import parse_extension
from websockets.protocol import Protocol, Side

from .codes import Close

# --- outbound

FIN, RSV1, TEXT, CLOSE = 0x80, 0x40, 0x1, 0x8


def message(payload: bytes, kind: int) -> bytes:
    """A message is one frame from the server (RFC 6455, 5.2): unmasked, its length in 7, 16 or 64 bits.

    `kind` is the opcode, with RSV1 where the payload is compressed.
    """
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", FIN | kind, size) + payload
    if size < 65_536:
        return struct.pack("!BBH", FIN | kind, 126, size) + payload
    return struct.pack("!BBQ", FIN | kind, 127, size) + payload


def close_message(code: int) -> bytes:
    """A close frame carries its code in two bytes (RFC 6455, 5.5.1)."""
    return message(struct.pack("!H", code), CLOSE)


DEFLATE_STEP = 65_536  # bytes that are compressed in one step, in some two milliseconds


def deflated(payload: bytes) -> bytes:
    """Compression without context (RFC 7692, 7.2.1) gives the same bytes for every client."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def deflate_steps(payload: bytes) -> Generator[None, None, bytes]:
    """Compress as `deflated` does, DEFLATE_STEP bytes a step."""
    deflate, parts = zlib.compressobj(wbits=-15), []
    for at in range(0, len(payload), DEFLATE_STEP):
        parts.append(deflate.compress(payload[at : at + DEFLATE_STEP]))
        yield
    parts.append(deflate.flush(zlib.Z_SYNC_FLUSH))
    return b"".join(parts).removesuffix(b"\x00\x00\xff\xff")


# --- inbound

FRAME_BYTES = 4_096  # a client's frame with a longer payload is refused and not read
RECEIVE_BYTES = FRAME_BYTES + 14  # one such frame with its header; a client that sends more at once floods
CONTROL_HEADER = 6  # bytes before the payload of a masked control frame

# The only agreement on compression: no context is carried from one message to the next.
DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


class ClientFrames:
    """ClientFrames parses the frames of one client and decides how to reply.

    `code` is the code to close with, or None while the client keeps the protocol. `reply` is the frame to send: the
    echo of a close frame, or the pong to the newest ping, which answers all pings before it (RFC 6455, 5.5.3).
    `close_received` says whether the client sent a close frame.
    """

    __slots__ = ("_pending", "_protocol", "close_received", "code", "reply")

    def __init__(self, *, deflated: bool) -> None:
        self._protocol = Protocol(Side.SERVER, max_size=FRAME_BYTES)
        if deflated:
            self._protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
        self._pending = 0  # bytes of a frame that has not ended
        self.reply = b""
        self.code: Close | None = None
        self.close_received = False

    def receive(self, data: bytes) -> None:
        """Parse bytes from the client. The first violation decides the code."""
        self._pending += len(data)
        self._protocol.receive_data(data[:RECEIVE_BYTES])
        for frame in self._protocol.events_received():
            if frame.opcode not in CTRL_OPCODES:  # type: ignore[union-attr]
                self.code = Close.BAD_MESSAGE
                return
            self._pending -= CONTROL_HEADER + len(frame.data)  # type: ignore[union-attr]
        if self._protocol.parser_exc is not None:
            assert self._protocol.close_sent is not None
            self.code = Close(self._protocol.close_sent.code)
        elif len(data) > RECEIVE_BYTES:
            self.code = Close.FLOOD
        self.close_received = self._protocol.close_rcvd is not None
        self.reply = next((reply for reply in reversed(self._protocol.data_to_send()) if reply), b"")

    def is_between_frames(self) -> bool:
        """Whether the parser has no state to keep: the last frame has ended, and no other has begun."""
        return not self._pending and not self.code


@lru_cache(maxsize=64)
def accepts_deflate(offers: str) -> bool:
    """Whether one of a client's offers (RFC 7692, 7.1) allows `DEFLATE`: every message compressed by itself."""
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    try:
        for name, parameters in parse_extension(offers):
            if name == factory.name:
                try:
                    _, agreed = factory.process_request_params(parameters, [])
                except NegotiationError:
                    continue
                if agreed.local_max_window_bits == 15:
                    return True
    except InvalidHeader:
        pass  # a malformed offer counts as no offer: the connection goes on uncompressed
    return False
