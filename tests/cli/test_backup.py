"""`pushserver backup` and `repair`: the embedded store's data as a file, restored, and repaired."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pushserver.client import Publisher

from ..support.commands import DONE, NOT_REACHED, REFUSED
from ..support.processes import Start, stored
from ..support.server import LIMIT, ROOT, Run, Running, clean_environment, reader, receive

pytestmark = pytest.mark.anyio


def pushserver(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command; what it says on an error is one line."""
    done = subprocess.run(
        [sys.executable, "-m", "pushserver", *arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Publishing:
    """Entry after entry in a thread, until the block ends; `acknowledged` grows meanwhile."""

    def __init__(self, server: Running, stream: str) -> None:
        self.acknowledged: list[str] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._publish, args=(server, stream))
        self._ending = False

    def _publish(self, server: Running, stream: str) -> None:
        with Publisher(server.url, server.key) as publisher:
            while not self._ending:
                answer = publisher.publish(stream, {"headline": f"entry {len(self.acknowledged)}"})
                self.acknowledged.append(answer["cursor"])
                if len(self.acknowledged) == 20:
                    self._enough.set()

    def __enter__(self) -> Publishing:
        self._thread.start()
        assert self._enough.wait(LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._thread.join()


async def test_a_backup_while_publishing_goes_on_restores_all_that_was_acknowledged_before(
    start: Start, stream: str, tmp_path: Path
) -> None:
    server = start()
    file = tmp_path / "backup of today.tar"
    with Publishing(server, stream) as publishing:
        before = list(publishing.acknowledged)
        done = await asyncio.to_thread(pushserver, "backup", str(file), "--data", str(server.data))
        assert (done.returncode, done.stderr) == (DONE, "")
        assert done.stdout == f"{shlex.quote(str(file))}: {file.stat().st_size} bytes\n"
    server.stop()
    subprocess.run(["mkdir", "-m", "700", tmp_path / "restored"], check=True)
    subprocess.run(["tar", "-xf", file, "-C", tmp_path / "restored"], check=True)
    restored = start(name="restored")
    entries = stored(restored, stream)
    assert [entry["headline"] for entry in entries] == [f"entry {number}" for number in range(len(entries))]
    assert len(before) <= len(entries) < len(publishing.acknowledged)
    async with reader(restored, stream, cursor=before[0]) as socket:  # who read before the backup goes on
        hello = await receive(socket, "hello")
        assert (hello["complete"], hello["from"]) == (True, 1)
    async with reader(restored, stream, cursor=publishing.acknowledged[-1]) as socket:  # who read more is told
        assert (await receive(socket, "hello"))["complete"] is False
    assert restored.publish_ok(stream, "after")["n"] == len(entries) + 1


def test_a_backup_does_not_replace_a_file(server: Running, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    file.write_text("precious")
    done = run("backup", str(file))
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert done.stderr == f"pushserver: no backup: expected a file that does not exist, got {file}\n"
    assert file.read_text() == "precious"


def test_a_backup_into_no_folder_is_refused(run: Run, tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / "none" / "backup.tar"))
    assert (done.returncode, done.stderr.count("\n")) == (REFUSED, 1)
    assert done.stderr.endswith(f"expected a folder that exists, got {tmp_path / 'none'}\n")


def test_a_backup_of_a_server_that_does_not_run_is_refused(tmp_path: Path) -> None:
    done = pushserver("backup", str(tmp_path / "backup.tar"), "--data", str(tmp_path))
    assert (done.returncode, list(tmp_path.iterdir())) == (NOT_REACHED, [])
    assert done.stderr.startswith("pushserver: expected a running server with its embedded store in")


def test_a_server_whose_log_is_damaged_says_the_command_that_repairs_it(
    start: Start, stream: str, tmp_path: Path
) -> None:
    server = start(name="my data")
    for number in range(20):
        server.publish_ok(stream, str(number))
    server.stop()
    log = server.data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    content = bytearray(log.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2_000] = bytes(2_000)
    log.write_bytes(content)
    refused = pushserver("serve", "--port", "0", "--data", str(server.data))
    assert refused.returncode == NOT_REACHED
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("pushserver: cannot start")]
    command = f"pushserver repair --data {shlex.quote(str(server.data))}"
    assert command in line
    done = pushserver(*shlex.split(command)[1:])
    assert done.returncode == DONE, done.stderr
    assert f"{log.name} was cut at byte {log.stat().st_size}: " in done.stdout
    assert "the append-only file as it was is in " in done.stdout
    again = start(name="my data")
    assert 5 < again.publish_ok(stream, "after")["n"] < 20
    again.stop()
    done = pushserver(*shlex.split(command)[1:])
    assert (done.returncode, done.stdout) == (DONE, "the append-only file is not damaged; nothing was changed\n")


def test_a_folder_without_a_log_is_not_repaired(tmp_path: Path) -> None:
    done = pushserver("repair", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert done.stderr.startswith("pushserver: not repaired: expected an append-only file in ")


def test_a_folder_that_lost_its_log_starts_empty_where_that_is_accepted(
    start: Start, stream: str, tmp_path: Path
) -> None:
    server = start()
    server.publish_ok(stream, "one")
    server.stop()
    subprocess.run(["rm", "-r", server.data / "appendonlydir"], check=True)
    refused = pushserver("serve", "--port", "0", "--data", str(server.data))
    assert (refused.returncode, "--accept-empty-store" in refused.stderr) == (NOT_REACHED, True)
    server = start("--accept-empty-store")
    assert server.publish_ok(stream, "two")["n"] == 1
    server.stop()
    assert start().publish_ok(stream, "three")["n"] == 2
