"""Close codes say why a WebSocket was closed (RFC 6455, 7.4; codes from 4000 on are this protocol's own)."""

from __future__ import annotations

from enum import IntEnum


class Close(IntEnum):
    """A close code tells a reader whether to reconnect.

    After 4400 to 4407 and 4410 a reader does not reconnect; after 4401 it may, with a new token. After any other code
    it reconnects with its cursor.
    """

    PROTOCOL_ERROR = 1002
    NOT_UTF8 = 1007
    FLOOD = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    OVERLOADED = 1013
    BAD_MESSAGE = 4400
    TOKEN_EXPIRED = 4401
    TOO_SLOW = 4408
    ENDED = 4410

    @property
    def is_final(self) -> bool:
        """Whether a reader must not come back with its cursor."""
        return 4400 <= self <= 4407 or self in (Close.FLOOD, Close.TOO_BIG, Close.ENDED)
