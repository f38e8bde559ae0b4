from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pushserver.store.condition import Condition, SharedCondition, shared
from pushserver.store.embedded import embedded
from pushserver.store.folder import CannotStart

from ..faults.disk import filled, small_disk
from ..support.processes import stores_on
from ..support.server import ROOT, is_alive

pytestmark = pytest.mark.anyio

LIMIT = 90.0  # seconds after which what is waited for will not come


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder; a store that is left on it at the end is ended."""
    data = tmp_path / "data"
    yield data
    for pid in stores_on(data):
        os.kill(pid, signal.SIGKILL)


def store_pid(data: Path) -> int:
    (pid,) = stores_on(data)
    assert int((data / "valkey.pid").read_text()) == pid
    return pid


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True) as store:
        yield store


async def eventually(is_true: Callable[[], bool]) -> None:
    """Wait for what happens in another process."""
    async with asyncio.timeout(LIMIT):
        while not is_true():
            await asyncio.sleep(0.01)


async def answers(store: aioredis.Redis) -> None:
    """Wait until the store answers."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await store.ping()  # which is refused while it loads, unlike INFO
                return
            except RedisError:
                await asyncio.sleep(0.001)


async def test_one_store_for_a_folder(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        pid = store_pid(data)
        with pytest.raises(CannotStart, match=re.escape(f"another server runs on {data}")):
            async with embedded(data):
                pass
        await store.set("key", "value")
        assert store_pid(data) == pid
    async with embedded(data) as url, client_of(url) as store:
        assert await store.get("key") == "value"


async def test_what_was_acknowledged_survives_a_stop(data: Path) -> None:
    for number in range(3):
        async with embedded(data) as url, client_of(url) as store:
            assert len(await store.keys("key*")) == number
            await store.set(f"key{number}", "value")
            pid = store_pid(data)
        assert not is_alive(pid)
        assert stores_on(data) == []


async def test_what_was_acknowledged_survives_a_kill(data: Path) -> None:
    acknowledged: list[int] = []

    async def write(url: str, ending: asyncio.Event) -> None:
        async with client_of(url) as store:
            number = 0
            while not ending.is_set():
                number += 1
                try:
                    await store.set(f"key{number}", number)
                    acknowledged.append(number)
                except RedisError:
                    await asyncio.sleep(0.01)

    async def kill_again_and_again(store: aioredis.Redis) -> None:
        pids = {store_pid(data)}
        for _ in range(3):
            more = len(acknowledged) + 200
            await eventually(lambda more=more: len(acknowledged) >= more)  # type: ignore[misc]
            os.kill(store_pid(data), signal.SIGKILL)
            await answers(store)
            expected = tuple(acknowledged)
            stored = await store.mget([f"key{number}" for number in expected])
            assert stored == [str(number) for number in expected]
            pids.add(store_pid(data))
        assert len(pids) == 4

    async with embedded(data) as url, client_of(url) as store:
        ending = asyncio.Event()
        writing = asyncio.create_task(write(url, ending))
        try:
            await kill_again_and_again(store)
        finally:
            ending.set()
            await writing


async def test_it_is_not_handed_over_before_it_has_loaded_its_data(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        for first in range(0, 100_000, 5_000):
            async with store.pipeline(transaction=False) as pipeline:
                for number in range(first, first + 5_000):
                    pipeline.set(f"key{number}", "x" * 200)
                await pipeline.execute()
    async with embedded(data) as url, client_of(url) as store:
        assert await store.dbsize() == 100_001  # with the store's id


async def test_only_this_user_reaches_it_and_only_over_the_socket(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        for path in (data, data / "valkey.sock"):
            assert stat.filemode(path.stat().st_mode)[1:] == "rwx------"
        assert (data / "valkey.sock").is_socket()
        assert (await store.config_get("port"))["port"] == "0"
        assert tcp_sockets(store_pid(data)) == []


def tcp_sockets(pid: int) -> list[str]:
    """The lines of the kernel's TCP tables that are this process's."""
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    assert inodes, "not even a unix socket was found"
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [line for line in lines if line.split()[9] in inodes]


async def test_it_syncs_each_write_and_never_evicts(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        config = await store.config_get("*")
        names = ("appendonly", "appendfsync", "maxmemory-policy", "save")
        assert [config[name] for name in names] == ["yes", "always", "noeviction", ""]


async def test_it_is_in_a_process_group_of_its_own(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        assert await store.ping()
        assert os.getsid(store_pid(data)) == os.getpgid(store_pid(data)) == store_pid(data)


async def test_it_is_stopped_when_what_comes_next_fails_at_once(data: Path) -> None:
    server = await start_server(data, 'raise OSError("no room for the key")')
    await server.communicate()
    assert server.returncode == 1
    assert "OSError: no room for the key" in data.with_name("errors").read_text()
    assert stores_on(data) == []


async def test_an_orphan_is_replaced_by_the_next_start(data: Path) -> None:
    orphan = await leave_orphan(data)
    async with embedded(data) as url, client_of(url) as store:
        assert not is_alive(orphan)
        assert store_pid(data) != orphan
        assert await store.get("key") == "value"


async def test_an_orphan_that_does_not_stop_is_killed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.store.locks.TERM_LIMIT", 0.3)
    orphan = await leave_orphan(data)
    os.kill(orphan, signal.SIGSTOP)
    async with embedded(data) as url, client_of(url) as store:
        assert not is_alive(orphan)
        assert await store.get("key") == "value"


async def start_server(data: Path, does: str) -> asyncio.subprocess.Process:
    """A process that runs a store, and does something while it runs."""
    script = f"""
import asyncio, pathlib
import redis.asyncio
from pushserver.store.embedded import embedded

async def main():
    async with embedded(pathlib.Path({str(data)!r})) as url:
        {does}

asyncio.run(main())
"""
    with data.with_name("errors").open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
        )


async def leave_orphan(data: Path) -> int:
    """The pid of a store whose server was killed. It holds a key."""
    does = """async with redis.asyncio.Redis.from_url(url) as store:
            await store.set("key", "value")
            print("ready", flush=True)
            await asyncio.Event().wait()"""
    server = await start_server(data, does)
    assert server.stdout is not None
    assert await server.stdout.readline() == b"ready\n"
    server.kill()
    await server.communicate()
    pid = store_pid(data)
    assert is_alive(pid)
    return pid


async def test_a_store_that_is_killed_with_its_server_is_no_hindrance(data: Path) -> None:
    """The next start may come while it is dying: it has its lock still, and its pid is nobody's any more."""
    for _ in range(4):
        os.kill(await leave_orphan(data), signal.SIGKILL)
        async with embedded(data) as url, client_of(url) as store:
            assert await store.get("key") == "value"


async def test_no_other_process_is_ended_in_place_of_a_store(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose server was killed while it started has not written its pid yet: the file names another."""
    monkeypatch.setattr("pushserver.store.locks.TERM_LIMIT", 0.3)
    await leave_orphan(data)
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (data / "valkey.pid").write_text(f"{innocent.pid}\n")
        with suppress(CannotStart):
            async with embedded(data) as url, client_of(url) as store:
                assert await store.get("key") == "value"
        assert is_alive(innocent.pid)
    finally:
        if innocent.returncode is None:
            innocent.kill()
        await innocent.wait()


@pytest.mark.parametrize(
    "name",
    [
        "news#1",
        "a?b",
        "100%20",
        "My Project",
        'it\'s "quoted"',
        "zoë",
        "a\nb",
        b"latin-\xe9",
        "x" * 250,
        "-data",
        "a@b:c",
    ],
)
async def test_every_path_that_the_file_system_takes_works(tmp_path: Path, name: str | bytes) -> None:
    data = tmp_path / (os.fsdecode(name) if isinstance(name, bytes) else name)
    async with embedded(data) as url, client_of(url) as store:
        await store.set("key", "value")
        assert store_pid(data)
    async with embedded(data) as url, client_of(url) as store:
        assert await store.get("key") == "value"


async def test_a_socket_that_no_address_reaches_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("y" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(CannotStart, match="TMPDIR"):
        async with embedded(deep / "data"):
            pass


@pytest.mark.parametrize("content", [b"rubbish\n", b"file missing.aof seq 1 type b\n", b""])
async def test_a_store_that_cannot_start_says_where_to_look(data: Path, content: bytes) -> None:
    async with embedded(data) as url, client_of(url) as store:
        assert await store.ping()
    (manifest,) = data.glob("appendonlydir/*.manifest")
    whole = manifest.read_bytes()
    manifest.write_bytes(content)
    with pytest.raises(CannotStart, match=re.escape(str(data / "valkey.log"))) as refused:
        async with embedded(data):
            pass
    assert f"pushserver repair --data {data}" in str(refused.value)
    assert (data / "valkey.log").read_text().strip()
    assert stores_on(data) == []
    manifest.write_bytes(whole)
    async with embedded(data) as url, client_of(url) as store:
        assert await store.ping()


async def test_a_log_that_was_cut_off_while_it_was_written_loads_up_to_there_and_is_told(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded(data) as url, client_of(url) as store:
        await store.set("first", "1")
        await store.set("second", "2")
    (file,) = data.glob("appendonlydir/*.incr.aof")
    os.truncate(file, file.stat().st_size - 5)
    async with embedded(data) as url, client_of(url) as store:
        assert (await store.get("first"), await store.get("second")) == ("1", None)
    assert "the embedded store says: !!! Warning: short read while loading the AOF" in caplog.text
    caplog.clear()
    async with embedded(data) as url, client_of(url) as store:
        assert await store.get("first") == "1"
    assert "short read" not in caplog.text


async def test_a_store_that_cannot_start_again_is_tried_again(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with embedded(data) as url, client_of(url) as store:
        await store.set("key", "value")
        folder = data / "appendonlydir"
        (manifest,) = folder.glob("*.manifest")
        whole = manifest.read_bytes()
        manifest.write_bytes(b"rubbish\n")
        with caplog.at_level(logging.ERROR, "pushserver.store.embedded"):
            os.kill(store_pid(data), signal.SIGKILL)
            await eventually(lambda: caplog.text.count("did not start") >= 2)
        manifest.write_bytes(whole)
        await answers(store)
        assert await store.get("key") == "value"
    assert stores_on(data) == []


async def test_it_is_stopped_even_while_it_is_being_started_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in the start of the next store its keeper is when it is told."""
    monkeypatch.setattr("pushserver.store.embedded.RESTART_DELAY", 0.0)
    for turn in range(25):
        async with asyncio.timeout(LIMIT):
            async with embedded(data) as url, client_of(url) as store:
                await store.ping()
                os.kill(store_pid(data), signal.SIGKILL)
                await answers(store)
                for _ in range(turn):
                    await asyncio.sleep(0.001)
        assert stores_on(data) == []


# --- a folder that had a log does not start empty


@pytest.mark.parametrize("harm", ["manifest", "folder", "files", "content"])
async def test_a_folder_that_had_a_log_does_not_start_empty(data: Path, harm: str) -> None:
    async with embedded(data) as url, client_of(url) as store:
        await store.set("key", "value")
    log = data / "appendonlydir"
    if harm == "manifest":
        (log / "appendonly.aof.manifest").unlink()
    elif harm == "folder":
        shutil.rmtree(log)
    elif harm == "files":
        for file in log.iterdir():
            file.unlink()
    else:
        os.truncate(log / "appendonly.aof.1.incr.aof", 0)
    with pytest.raises(CannotStart, match=r"restore a backup"):
        async with embedded(data):
            pass
    assert stores_on(data) == []
    async with embedded(data, accept_empty=True) as url, client_of(url) as store:
        assert await store.get("key") is None
        await store.set("other", "value")
    assert bool(list(data.glob("appendonlydir.*"))) == (
        harm == "manifest"
    )  # what is left of the log is never written over
    async with embedded(data) as url, client_of(url) as store:
        assert await store.get("other") == "value"


async def test_a_log_of_an_earlier_version_gets_its_marker_at_the_next_start(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        await store.set("key", "value")
        await store.delete("pushserver:store")
    (data / "store.id").unlink()
    async with embedded(data) as url, client_of(url) as store:
        assert await store.get("key") == "value"
        assert (data / "store.id").read_text().strip() == await store.get("pushserver:store")


async def test_a_store_that_was_flushed_and_ends_is_started_again(data: Path) -> None:
    async with embedded(data) as url, client_of(url) as store:
        await store.flushall()
        os.kill(store_pid(data), signal.SIGKILL)
        await answers(store)


# --- its folder and its disk


@asynccontextmanager
async def watched(data: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[aioredis.Redis, SharedCondition]]:
    """A store whose folder is looked at all the time, and its condition."""
    monkeypatch.setattr("pushserver.store.embedded.LOOKED_EVERY", 0.01)
    with shared() as condition:
        async with embedded(data, condition=condition) as url, client_of(url) as store:
            yield store, condition


@pytest.mark.parametrize("harm", ["rm -rf", "mv", "mv and mkdir", "rm log", "replace log", "rm lock"])
async def test_a_folder_that_is_gone_or_replaced_is_noticed(
    data: Path, harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aof = data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    async with watched(data, monkeypatch) as (store, condition):
        await store.set("key", "value")
        assert condition.get() == Condition.SOUND
        if harm == "rm -rf":
            shutil.rmtree(data)
        elif harm == "mv":
            data.rename(data.with_name("other"))
        elif harm == "mv and mkdir":
            data.rename(data.with_name("other"))
            data.mkdir()
        elif harm == "rm log":
            aof.unlink()
        elif harm == "replace log":
            shutil.copy(aof, aof.with_name("copy"))
            aof.with_name("copy").replace(aof)
        else:
            (data / "server.lock").unlink()
        await eventually(lambda: condition.get() == Condition.FOLDER_LOST)
        assert "publishing is refused" in caplog.text
        assert ("gone" in caplog.text) or ("replaced" in caplog.text)
        assert await store.get("key") == "value"
        if harm == "mv and mkdir":
            os.kill(store_pid(data.with_name("other")), signal.SIGKILL)
            await eventually(lambda: caplog.text.count("did not start") >= 2)
            assert list(data.iterdir()) == []  # no empty store is started in another folder
            data.rmdir()
        if harm.startswith("mv"):
            data.with_name("other").rename(data)
            await eventually(lambda: condition.get() == Condition.SOUND)
            await answers(store)
            assert await store.get("key") == "value"


async def test_a_rewrite_of_the_log_is_no_other_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(data, monkeypatch) as (store, condition):
        for _ in range(5):
            await store.bgrewriteaof()
            async with asyncio.timeout(LIMIT):
                while (await store.info("persistence"))["aof_rewrite_in_progress"]:
                    await asyncio.sleep(0.01)
        assert list(data.glob("appendonlydir/*.6.base.rdb"))
        assert condition.get() == Condition.SOUND


async def test_where_the_disk_is_full_the_store_writes_nothing_of_its_own(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that expires would be deleted, and on a full disk the store would end on writing that."""
    async with watched(data, monkeypatch) as (store, condition):
        monkeypatch.setattr("pushserver.store.folder.FULL_BELOW", 2**62)
        await eventually(lambda: condition.get() == Condition.DISK_FULL)
        async with asyncio.timeout(LIMIT):
            while (await store.config_get("import-mode"))["import-mode"] != "yes":
                await asyncio.sleep(0.01)
        await store.set("brief", "value", px=1)
        keys = await store.dbsize()
        written = (await store.info("persistence"))["aof_current_size"]
        async with asyncio.timeout(LIMIT):
            while await store.get("brief") is not None:
                await asyncio.sleep(0.01)
        assert await store.dbsize() == keys
        assert (await store.info("persistence"))["aof_current_size"] == written
        os.kill(store_pid(data), signal.SIGKILL)
        await answers(store)
        assert (await store.config_get("import-mode"))["import-mode"] == "yes"
        monkeypatch.undo()
        monkeypatch.setattr("pushserver.store.embedded.LOOKED_EVERY", 0.01)
        await eventually(lambda: condition.get() == Condition.SOUND)
        async with asyncio.timeout(LIMIT):
            while await store.dbsize() == keys:
                await asyncio.sleep(0.01)


async def test_after_a_write_that_failed_nothing_is_written_for_a_while_and_reading_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota does not show in the free space: no look at the disk would have said so."""
    monkeypatch.setattr("pushserver.store.folder.FULL_BELOW", 0)
    monkeypatch.setattr("pushserver.store.folder.LEAST_RESERVE", 0)
    with small_disk(data) as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk to fill")
        async with watched(data, monkeypatch) as (store, condition):
            await store.set("key", "value")
            with filled(data):
                with pytest.raises(RedisError):
                    await store.set("large", "x" * 100_000)
                await eventually(lambda: condition.get() == Condition.DISK_FULL)
                await answers(store)
                assert await store.get("key") == "value"
                assert (await store.config_get("import-mode"))["import-mode"] == "yes"
