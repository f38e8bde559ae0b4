"""The connection of a tail reads the logs of one partition as they grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..model import Event
from .connection import BlockingConnection
from .records import event_of

BLOCK_MS = 2_000  # milliseconds of a tail's read; well below COMMAND_TIMEOUT, which would else end each quiet read
READ_EVENTS = 256  # of each log in one read: redis-py reads a reply into memory whole


class TailConnection:
    """TailConnection reads the logs of a partition as they grow, on a connection of its own."""

    def __init__(self, connection: BlockingConnection, key: Callable[[str], bytes]) -> None:
        self._connection = connection
        self._key = key
        self._streams: dict[bytes, str] = {}  # that the last read named, by their logs' keys
        self.unblock = connection.unblock
        self.close = connection.close

    async def read(self, after: Mapping[str, str]) -> list[tuple[str, str, list[Event]]]:
        """Wait up to BLOCK_MS for events after these redis ids: (stream, last redis id, events). Raises StoreError.

        The ids are concrete: `$` is the end of the log when the command arrives, so that what was appended between two
        reads would be skipped.
        """
        if list(self._streams.values()) != list(after):
            self._streams = {self._key(stream): stream for stream in after}
        streams, ids = self._streams, [after[stream] for stream in self._streams.values()]
        reply = await self._connection.execute(
            *("XREAD", "COUNT", READ_EVENTS, "BLOCK", BLOCK_MS, "STREAMS"), *streams, *ids
        )
        return [
            (streams[key], records[-1][0].decode(), [event for event in map(event_of, records) if event])
            for key, records in reply or ()
        ]
