"""The close codes of a WebSocket (RFC 6455, 7.4; 4000 and above are ours)."""

from __future__ import annotations

from enum import IntEnum


class Close(IntEnum):
    """Close codes. 4400 to 4407 and 4410 mean: do not come back; the others: come back with your cursor.

    After 4401 a reader may come back with a new token.
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
