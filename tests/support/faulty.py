"""A server for the benchmark that makes mistakes on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pushserver.bench.reader import STAMP, Endpoint


def frame(opcode: int, payload: bytes) -> bytes:
    """A server's frame (RFC 6455, 5.2)."""
    head = bytes([128 | opcode])
    return head + (bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2)) + payload


class FaultyServer:
    """FaultyServer sends entries too often, too late or never: `copies` and seconds of `stalls` by entry number."""

    def __init__(self, copies: dict[int, int] | None = None, stalls: dict[int, float] | None = None) -> None:
        self.copies = copies or {}
        self.stalls = stalls or {}
        self.deferred = 0  # handshakes that are answered with 503
        self._readers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"Upgrade" in head and self.deferred:
                self.deferred -= 1
                writer.write(b"HTTP/1.1 503 Later\r\nRetry-After: 0\r\n\r\n")
                writer.close()
                return
            if b"Upgrade" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                self._readers.append(writer)
                await reader.read()
                writer.close()
                return
            body = await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
            match = STAMP.search(body)
            assert match
            number = int(match[1])
            await asyncio.sleep(self.stalls.get(number, 0))
            for other in self._readers:
                other.write(frame(1, body) * self.copies.get(number, 1))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@asynccontextmanager
async def listening(faulty: FaultyServer) -> AsyncIterator[Endpoint]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await faulty.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield Endpoint("127.0.0.1", port, "/ws/{group}", "127.0.0.1")
    finally:
        server.close()
