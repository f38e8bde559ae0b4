"""A backup of a running store: one file from which a data folder is made again.

The store sends a snapshot of itself as it would send it to a new replica (SYNC): everything that it acknowledged before
the backup began is in it. Nothing is written to the disk of the data folder. The backup is a tar archive of what the
folder has: the marker, and a log that consists of the snapshot and nothing after it.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from .folder import LOG_FOLDER, MANIFEST, MARKER

ANSWER_LIMIT = 60.0  # seconds without a byte of the store; it sends an empty line while it prepares the snapshot
BASE, INCR = "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"
MANIFEST_TEXT = f"file {BASE} seq 1 type b\nfile {INCR} seq 1 type i\n"
MARK_SIZE = 40  # bytes of the mark that ends a snapshot whose size was not known at its begin
PIECE = 2**20  # bytes that are read and written at once
MAGIC = (b"REDIS", b"VALKEY")


class BackupFailed(Exception):
    """BackupFailed says why there is no backup."""


async def back_up(socket: Path, file: Path, id: str) -> int:
    """Write a backup of the store on a unix socket to a file that does not exist; return its size in bytes.

    `id` is the store's, for the marker. The file gets its name once it is whole and on the disk. Raises BackupFailed,
    OSError.
    """
    if file.exists():
        raise FileExistsError(f"expected a file that does not exist, got {file}")
    draft = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            await _write(socket, output, id)
            output.flush()
            os.fsync(output.fileno())
            size = output.tell()
        os.link(draft, file)  # unlike a rename it does not replace a file that was made meanwhile
    finally:
        draft.unlink(missing_ok=True)
    _sync(file.parent)
    return size


async def _write(socket: Path, output: IO[bytes], id: str) -> None:
    """Write the archive: the small files, then the snapshot, whose size stands before it and is known after it."""
    now = int(time.time())
    for name, content in (
        (MARKER, f"{id}\n"),
        (f"{LOG_FOLDER}/{MANIFEST}", MANIFEST_TEXT),
        (f"{LOG_FOLDER}/{INCR}", ""),
    ):
        output.write(_header(name, len(content), now))
        output.write(_padded(content.encode()))
    at = output.tell()
    output.write(_header(f"{LOG_FOLDER}/{BASE}", 0, now))
    size = await _snapshot(socket, output)
    output.write(_padded(b"", size))
    output.write(bytes(2 * tarfile.BLOCKSIZE))
    output.seek(at)
    output.write(_header(f"{LOG_FOLDER}/{BASE}", size, now))
    output.seek(0, io.SEEK_END)


def _header(name: str, size: int, at: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, at, 0o600
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padded(content: bytes, size: int | None = None) -> bytes:
    """The content, and the zeros that fill its last block; `size` counts what was written before it, too."""
    return content + bytes(-(len(content) if size is None else size) % tarfile.BLOCKSIZE)


async def _snapshot(socket: Path, output: IO[bytes]) -> int:
    """Write the snapshot that the store sends; return its size. Raises BackupFailed, OSError."""
    reader, writer = await asyncio.open_unix_connection(socket, limit=PIECE)
    try:
        for command in (b"REPLCONF rdb-only 1", b"REPLCONF capa eof"):
            writer.write(command + b"\r\n")
            await _expect(reader, b"+OK")
        writer.write(b"SYNC\r\n")
        length = await _expect(reader, b"$")
        if length.startswith(b"$EOF:"):
            return await _copy_to_mark(reader, output, length[5:])
        return await _copy(reader, output, int(length[1:]))
    except asyncio.IncompleteReadError:
        raise BackupFailed("the store ended before the backup was whole") from None
    except TimeoutError:
        raise BackupFailed(f"the store sent nothing for {ANSWER_LIMIT:.0f} s") from None
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _expect(reader: asyncio.StreamReader, beginning: bytes) -> bytes:
    """The next line that is not empty. Raises BackupFailed where it begins with something else."""
    line = b"\n"
    while line == b"\n":
        async with asyncio.timeout(ANSWER_LIMIT):
            line = await reader.readline()
    if not line.startswith(beginning):
        raise BackupFailed(
            f"expected a snapshot of the store, got {line.decode(errors='replace').strip() or 'nothing'}"
        )
    return line.strip()


async def _copy_to_mark(reader: asyncio.StreamReader, output: IO[bytes], mark: bytes) -> int:
    """Copy up to the mark, which is the last that comes."""
    size, rest = 0, b""
    while True:
        async with asyncio.timeout(ANSWER_LIMIT):
            piece = await reader.read(PIECE)
        if not piece:
            raise asyncio.IncompleteReadError(rest, None)
        rest += piece
        is_last = rest.endswith(mark)
        copied = rest[:-MARK_SIZE]
        _check_begin(size, copied)
        output.write(copied)
        size, rest = size + len(copied), rest[-MARK_SIZE:]
        if is_last:
            return size


async def _copy(reader: asyncio.StreamReader, output: IO[bytes], length: int) -> int:
    left = length
    while left:
        async with asyncio.timeout(ANSWER_LIMIT):
            piece = await reader.read(min(left, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        _check_begin(length - left, piece)
        output.write(piece)
        left -= len(piece)
    return length


def _check_begin(at: int, piece: bytes) -> None:
    if at == 0 and len(piece) > max(map(len, MAGIC)) and not piece.startswith(MAGIC):
        raise BackupFailed(f"expected a snapshot of the store, got {piece[:20]!r}")


def _sync(folder: Path) -> None:
    """Have the name of a new file survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
