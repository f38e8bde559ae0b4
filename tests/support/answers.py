"""A server that speaks RESP, and gives to each command the answer that a test wrote down; or none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


def encoded(value: Any) -> bytes:
    """A value as an answer (RESP 2): a text with `-` before it is an error, a list an array."""
    if isinstance(value, list):
        return f"*{len(value)}\r\n".encode() + b"".join(map(encoded, value))
    if value.startswith("-"):
        return f"{value}\r\n".encode()
    return f"${len(value)}\r\n{value}\r\n".encode()


@asynccontextmanager
async def answering(answers: dict[str, Any] | None) -> AsyncIterator[int]:
    """The port of such a server: answers by the beginning of the command, `OK` to any other; None is silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                words = await command(reader)
                if answers is not None:
                    line = " ".join(words)
                    writer.write(
                        encoded(next((value for name, value in answers.items() if line.startswith(name)), "OK"))
                    )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def command(reader: asyncio.StreamReader) -> list[str]:
    """The words of the next command."""
    words = []
    for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2].decode())
    return words
