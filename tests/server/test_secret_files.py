"""Secrets by file: read at the start, refused by name, and read anew by a restart of the workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pushserver.server.secret_files import LIMIT, with_secrets
from pushserver.settings import Settings
from pushserver.store.folder import CannotStart

from ..support.processes import Start
from ..support.server import KEY, until

NEW_KEY = "pk_test_fedcba9876543210"


def test_a_key_and_a_url_come_from_their_files(tmp_path: Path) -> None:
    key, url = tmp_path / "key", tmp_path / "url"
    key.write_bytes(f"\ufeff{KEY}\r\n".encode())
    url.write_text("redis://u:p%40ss@127.0.0.1/0\n")
    chosen = with_secrets(Settings(key_file=str(key), redis_file=str(url)))
    assert (chosen.key, chosen.redis) == (KEY, "redis://u:p%40ss@127.0.0.1/0")
    assert with_secrets(Settings()) == Settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "expected a file that can be read"),
        (b"", "expected 16 to 512"),
        (b"short", "openssl rand"),
        (b"\xff" * 20, "expected a text in UTF-8"),
        (b"x" * (LIMIT + 1), f"expected {LIMIT} bytes at most"),
    ],
)
def test_a_file_without_a_key_is_refused_by_its_setting(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CannotStart, match=r"^--key-file \(PUSHSERVER_KEY_FILE\)") as refused:
        with_secrets(Settings(key_file=str(file)))
    assert said in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_secret_and_a_file_of_it_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="got both"):
        with_secrets(Settings(key=KEY, key_file=str(tmp_path / "key")))


@pytest.mark.full
def test_a_restart_reads_the_key_anew(start: Start, tmp_path: Path, stream: str) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    server = start("--key-file", str(file))
    assert f"publish key  {file}\n" in server.greeting
    (server.data / "publish.key").write_text(KEY)
    said = server.greeting + server.log + Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert KEY not in said

    def status(key: str) -> int:
        return server.publish(stream, {"headline": "One"}, Authorization=f"Bearer {key}").status_code

    assert (status(KEY), status(NEW_KEY)) == (201, 401)
    file.write_text("short")
    os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: "not restarted, the workers go on as they are: --key-file" in server.log)
    file.write_text(NEW_KEY)
    os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: "all workers have been restarted" in server.log)
    assert (status(KEY), status(NEW_KEY)) == (401, 201)
