"""The door lets a new connection in, or answers it before its first byte and closes it.

It refuses a connection of an address that has too many, and any connection while the worker has hardly a file left:
where the kernel refused it for want of a file, it would be reset without an answer.
"""

from __future__ import annotations

import logging
import time
from asyncio import Transport
from http import HTTPStatus

from .. import metrics
from ..access.addresses import Addresses, AddressPlace
from ..errors import Refused, TooMany, Unavailable
from ..refusal_response import answer

logger = logging.getLogger(__name__)

PLACE = "pushserver.place"  # scope extension: the AddressPlace of the connection, or None
FILES_RETRY = 2  # seconds after which a client is asked to come back that was refused for want of files
LOGGED_EVERY = 60.0  # seconds between two log lines that say so


class Door:
    """Door decides about new connections. From the descriptor `last_file` on it refuses all; None sets no limit.

    Once `is_leaving` is set, each answer of the worker is the last one of its connection.
    """

    def __init__(self, addresses: Addresses, *, last_file: int | None) -> None:
        self._addresses = addresses
        self._last_file = last_file
        self._logged_at = float("-inf")
        self.is_leaving = False

    def enter(self, transport: Transport) -> AddressPlace | None:
        """Let a connection in and count it for its address; or answer it and close it. None where it is not counted."""
        try:
            self._check_files(transport)
            peer = transport.get_extra_info("peername")
            return self._addresses.connect(peer[0] if isinstance(peer, tuple) else None)
        except Refused as refused:
            kind = "address_connections" if isinstance(refused, TooMany) else "files"
            metrics.LIMITED.inc(kind)
            transport.write(_bytes(refused))
            transport.close()
            return None

    def _check_files(self, transport: Transport) -> None:
        """Raises Unavailable where all descriptors below `last_file` are in use."""
        if self._last_file is None or transport.get_extra_info("socket").fileno() < self._last_file:
            return
        now = time.monotonic()
        if now - self._logged_at >= LOGGED_EVERY:
            self._logged_at = now
            logger.warning("%d files are open, near the limit; new connections get 503", self._last_file)
        raise Unavailable("This worker has too many connections; retry later.", FILES_RETRY)


def leave(place: AddressPlace | None) -> None:
    """Give back the place of a connection, if it has one."""
    if place is not None:
        place.leave()


def _bytes(refused: Refused) -> bytes:
    """The HTTP/1.1 answer of a refusal, after which the connection is closed."""
    response = answer(refused)
    response.headers["Connection"] = "close"
    status = HTTPStatus(response.status_code)
    lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *(b"%b: %b" % pair for pair in response.raw_headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
