from __future__ import annotations

from pathlib import Path

import pytest
import redis.asyncio as aioredis

from pushserver.store.embedded import embedded
from pushserver.store.folder import CannotStart, LogDamaged
from pushserver.store.repair import CannotRepair, damage, repair_log

pytestmark = pytest.mark.anyio

NAMES = frozenset({b"set", b"multi", b"exec", b"xadd"})
SET = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
EVENTS = 100


@pytest.mark.parametrize(
    ("content", "at"),
    [
        (SET * 3, None),
        (b"", None),
        (b"#TS:1\r\n" + SET, None),
        (SET + SET[:-5], None),  # cut off while it was written: the store takes that
        (SET + b"*3\r\n$3", None),
        (SET + bytes(10) + SET, len(SET)),
        (SET + bytes(20), len(SET)),
        (SET + SET.replace(b"SET", b"S\x00T") + SET, len(SET)),
        (SET + SET.replace(b"$1\r\nk", b"$2\r\nk") + SET, len(SET)),
        (SET + b"*0\r\n" + SET, len(SET)),
        (SET + MULTI + SET + b"rubbish" + b"x" * 20 + EXEC, len(SET)),  # a transaction is kept or cut whole
        (MULTI + SET + EXEC + b"rubbish" + b"x" * 20, len(MULTI + SET + EXEC)),
    ],
)
def test_damage_is_where_the_last_whole_command_ends(tmp_path: Path, content: bytes, at: int | None) -> None:
    file = tmp_path / "a.1.incr.aof"
    file.write_bytes(content)
    assert damage(file, NAMES) == at


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """The folder of a store that has ended, with events in its log."""
    data = tmp_path / "data"
    async with embedded(data) as url, aioredis.Redis.from_url(url) as store:
        for number in range(EVENTS):
            async with store.pipeline(transaction=True) as pipeline:
                pipeline.xadd("log", {"text": "x" * 50})
                pipeline.set("number", number)
                await pipeline.execute()
    return data


def spoil(file: Path, *, size: int = 600) -> None:
    """Write zeros into the middle of a file, as a broken disk does."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + size] = bytes(size)
    file.write_bytes(content)


async def test_a_log_that_is_damaged_in_its_middle_is_cut_there_and_a_copy_is_kept(data: Path) -> None:
    file = data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    spoil(file)
    whole = file.read_bytes()
    with pytest.raises(LogDamaged, match="pushserver repair --data"):
        async with embedded(data):
            pass
    done = await repair_log(data)
    assert done is not None
    assert (done.file, done.at + done.bytes, done.manifest) == (file.name, len(whole), False)
    assert (done.copy / file.name).read_bytes() == whole
    async with embedded(data) as url, aioredis.Redis.from_url(url, decode_responses=True) as store:
        events = await store.xlen("log")
        assert EVENTS / 3 < events < EVENTS * 2 / 3
        assert events + done.events <= EVENTS
        assert done.events > EVENTS / 3
        assert await store.get("number") == str(events - 1)
    assert await repair_log(data) is None


@pytest.mark.parametrize("manifest", [None, b"", b"rubbish\n", b"\xff\xfe"])
async def test_a_manifest_that_cannot_be_read_is_made_again(data: Path, manifest: bytes | None) -> None:
    path = data / "appendonlydir" / "appendonly.aof.manifest"
    before = path.read_bytes()
    path.unlink() if manifest is None else path.write_bytes(manifest)
    with pytest.raises(LogDamaged, match="pushserver repair --data"):
        async with embedded(data):
            pass
    done = await repair_log(data)
    assert done is not None
    assert (done.file, done.bytes, done.events, done.manifest) == ("", 0, 0, True)
    assert path.read_bytes() == before
    async with embedded(data) as url, aioredis.Redis.from_url(url) as store:
        assert await store.xlen("log") == EVENTS


async def test_a_log_that_is_not_damaged_stays_as_it_is(data: Path) -> None:
    before = {path: path.read_bytes() for path in data.glob("appendonlydir/*")}
    assert await repair_log(data) is None
    assert {path: path.read_bytes() for path in data.glob("appendonlydir*/*")} == before


async def test_a_snapshot_that_is_damaged_is_not_repaired(data: Path) -> None:
    async with embedded(data) as url, aioredis.Redis.from_url(url) as store:
        await store.bgrewriteaof()
        while (await store.info("persistence"))["aof_rewrite_in_progress"]:
            pass
    (base,) = data.glob("appendonlydir/*.base.rdb")
    spoil(base, size=20)
    with pytest.raises(CannotRepair, match="restore a backup"):
        await repair_log(data)


async def test_a_file_that_is_missing_is_named(data: Path) -> None:
    file = data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    file.unlink()
    with pytest.raises(CannotRepair, match=f"expected {file}"):
        await repair_log(data)


async def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotRepair, match="restore a backup"):
        await repair_log(tmp_path)


async def test_the_log_of_a_server_that_runs_is_not_touched(data: Path) -> None:
    async with embedded(data):
        with pytest.raises(CannotStart, match="another server runs on"):
            await repair_log(data)
