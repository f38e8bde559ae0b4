"""One HTTP connection to one worker, over which requests are sent one after the other."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """An answer as it came."""

    status: int
    fields: dict[str, str]
    body: bytes


class Connection:
    """A connection stays with the worker that accepted it. Its requests raise OSError or EOFError where it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.port: int = writer.get_extra_info("sockname")[1]

    @classmethod
    async def open(cls, url: str) -> Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, limit=2**24))

    async def send(self, method: str, path: str, body: bytes = b"", **fields: str) -> Answer:
        """Send a request and await its answer."""
        fields = {"Host": "x", "Content-Length": str(len(body)), "Content-Type": "application/json", **fields}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answered = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        status = int(head[0].split()[1])
        length = 0 if status in (204, 304) else int(answered.get("content-length", 0))
        return Answer(status, answered, await self._reader.readexactly(length))

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
