from __future__ import annotations

import asyncio
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from pushserver.store.backup import BackupFailed, back_up
from pushserver.store.embedded import embedded
from pushserver.store.folder import SOCKET

pytestmark = pytest.mark.anyio

MARK = b"m" * 40


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a store that runs, with a key in it."""
    data = tmp_path / "data"
    async with embedded(data) as url, aioredis.Redis.from_url(url) as store:
        await store.set("key", "x" * 3_000_000)
        yield data


async def test_a_backup_is_a_data_folder(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    assert await back_up(data / SOCKET, file, "0123") == file.stat().st_size
    assert (file.stat().st_mode & 0o777, file.stat().st_size % 512) == (0o600, 0)
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.tar"]
    (tmp_path / "restored").mkdir()
    subprocess.run(["tar", "-xf", file, "-C", tmp_path / "restored"], check=True)
    async with (
        embedded(tmp_path / "restored") as url,
        aioredis.Redis.from_url(url, decode_responses=True) as store,
    ):
        assert await store.get("key") == "x" * 3_000_000
        assert (tmp_path / "restored" / "store.id").read_text().strip() == await store.get("pushserver:store")


async def test_a_file_that_exists_is_not_replaced(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    file.write_text("precious")
    with pytest.raises(FileExistsError):
        await back_up(data / SOCKET, file, "0123")
    assert file.read_text() == "precious"


async def test_a_file_that_cannot_be_made_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await back_up(data / SOCKET, tmp_path / "none" / "backup.tar", "0123")


@asynccontextmanager
async def fake_store(path: Path, answer: bytes) -> AsyncIterator[None]:
    """A store that answers SYNC with these bytes, and ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readline()
            writer.write(b"+OK\r\n")
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"\n\n$EOF:" + MARK + b"\r\nREDIS0011" + b"x" * 5000, "ended before"),
        (b"$5000\r\nREDIS0011" + b"x" * 100, "ended before"),
        (b"$EOF:" + MARK + b"\r\n" + b"x" * 5000 + MARK, "expected a snapshot"),
        (b"-LOADING it is loading\r\n", "got -LOADING"),
        (b"", "got nothing"),
    ],
)
async def test_a_snapshot_that_is_not_whole_is_no_backup(tmp_path: Path, answer: bytes, error: str) -> None:
    async with fake_store(tmp_path / "sock", answer):
        with pytest.raises(BackupFailed, match=error):
            await back_up(tmp_path / "sock", tmp_path / "backup.tar", "0123")
    assert list(tmp_path.glob("backup*")) == []


@pytest.mark.parametrize(
    "frame", [lambda body: b"$EOF:" + MARK + b"\r\n" + body + MARK, lambda body: b"$%d\r\n" % len(body) + body]
)
async def test_a_snapshot_comes_with_its_length_or_up_to_a_mark(
    tmp_path: Path, frame: Callable[[bytes], bytes]
) -> None:
    body = b"VALKEY080" + bytes(range(256)) * 9_001
    async with fake_store(tmp_path / "sock", frame(body)):
        await back_up(tmp_path / "sock", tmp_path / "backup.tar", "0123")
    with tarfile.open(tmp_path / "backup.tar") as archive:
        content = archive.extractfile("appendonlydir/appendonly.aof.1.base.rdb")
        assert content is not None
        assert content.read() == body
