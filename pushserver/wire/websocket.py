"""What a reader says on a WebSocket (RFC 6455): it may ping, pong and close, and has nothing else to say.

Pure. Most readers never say a word: this is made when bytes come, and dropped at the end of a frame.
"""

from __future__ import annotations

from functools import lru_cache

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CTRL_OPCODES
from websockets.headers import parse_extension
from websockets.protocol import Protocol, Side

from .codes import Close

MESSAGE_BYTES = 4_096  # of a frame, at most; a larger one is not read
HEARD_BYTES = MESSAGE_BYTES + 14  # that may come at once: such a frame, with its header
MASKED = 6  # bytes before what a control frame says

DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"  # all that is ever agreed to


class Hearing:
    """What has been heard so far.

    `code` is what to close with, None while nothing is wrong; `answer` the frame that is due: the close frame's echo,
    or a pong to the newest ping, which answers all before it (5.5.3); `has_closed` whether a close frame came.
    """

    __slots__ = ("_left", "_protocol", "answer", "code", "has_closed")

    def __init__(self, *, deflated: bool) -> None:
        self._protocol = Protocol(Side.SERVER, max_size=MESSAGE_BYTES)
        if deflated:
            self._protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
        self._left = 0  # bytes that no frame was made of yet
        self.answer = b""
        self.code: Close | None = None
        self.has_closed = False

    def hear(self, data: bytes) -> None:
        """Judge what came. The first thing that is wrong decides."""
        self._left += len(data)
        self._protocol.receive_data(data[:HEARD_BYTES])
        for frame in self._protocol.events_received():
            if frame.opcode not in CTRL_OPCODES:  # type: ignore[union-attr]
                self.code = Close.BAD_MESSAGE
                return
            self._left -= MASKED + len(frame.data)  # type: ignore[union-attr]
        if self._protocol.parser_exc is not None:
            assert self._protocol.close_sent is not None
            self.code = Close(self._protocol.close_sent.code)
        elif len(data) > HEARD_BYTES:
            self.code = Close.FLOOD
        self.has_closed = self._protocol.close_rcvd is not None
        self.answer = next((answer for answer in reversed(self._protocol.data_to_send()) if answer), b"")

    def is_over(self) -> bool:
        """Whether nothing has to be remembered: a frame has ended, and no other has begun."""
        return not self._left and not self.code


@lru_cache(maxsize=64)
def agrees_to_deflate(offers: str) -> bool:
    """Whether one of a client's offers (RFC 7692, 7.1) allows what `DEFLATE` says: every frame compressed by itself."""
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
        pass  # an offer that cannot be read is one that is not made
    return False
