"""Commands take the key and the URL of the store from files, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pushserver.__main__ import main

from ..support.commands import DONE, REFUSED, headlines
from ..support.server import Running


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PUSHSERVER_KEY", "PUSHSERVER_KEY_FILE", "PUSHSERVER_REDIS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_key_comes_from_a_file(server: Running, stream: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{server.key}\n")
    arguments = ["publish", stream, "--headline", "One", "--url", server.url, "--data", str(tmp_path / "none")]
    done = CliRunner().invoke(main, [*arguments, "--key-file", str(file)])
    assert done.exit_code == DONE, done.output
    assert headlines(server, stream) == ["One"]
    file.write_text("short\n")
    done = CliRunner().invoke(main, arguments, env={"PUSHSERVER_KEY_FILE": str(file)})
    assert done.exit_code == REFUSED
    assert f"--key-file (PUSHSERVER_KEY_FILE), {file}: expected 16" in done.stderr


def test_the_url_of_the_store_comes_from_a_file(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"unix://{server.data}/valkey.sock\n")
    done = CliRunner().invoke(main, ["keys", "list", "--redis-file", str(file)])
    assert done.exit_code == DONE, done.output
    done = CliRunner().invoke(main, ["keys", "list", "--redis-file", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "expected a file that can be read" in done.stderr
