"""Commands take the key and the URL of the store from files, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pushserver.__main__ import main
from pushserver.cli.options import chosen_key

from ..support.commands import DONE, REFUSED
from ..support.server import KEY, Running


def test_a_key_comes_from_a_file_or_the_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert chosen_key("", str(file), str(tmp_path)) == KEY
    assert chosen_key("pk_of_a_flag_0123456", str(file), str(tmp_path)) == "pk_of_a_flag_0123456"
    assert chosen_key("", "", str(tmp_path)) == ""
    (tmp_path / "publish.key").write_text("pk_of_a_folder_01234\n")
    assert chosen_key("", "", str(tmp_path)) == "pk_of_a_folder_01234"
    file.write_text("short\n")
    with pytest.raises(SystemExit) as ended:
        chosen_key("", str(file), str(tmp_path))
    assert ended.value.code == REFUSED
    assert f"--key-file (PUSHSERVER_KEY_FILE), {file}: expected 16" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("streams",), ("doctor", "http://127.0.0.1:1"), ("bench", "http://127.0.0.1:1")])
def test_a_key_that_cannot_be_read_can_be_passed(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "publish.key").symlink_to("/proc/self/mem")  # a read of its begin fails, for root as well
    done = CliRunner().invoke(main, command, env={"PUSHSERVER_DATA": str(tmp_path), "PUSHSERVER_KEY": ""})
    assert (done.exit_code, done.output.count("\n")) == (REFUSED, 1)
    assert done.stderr.startswith("pushserver: the publish key cannot be read: [Errno 5]")
    assert done.stderr.endswith("; pass one in PUSHSERVER_KEY or with --key\n")


def test_the_url_of_the_store_comes_from_a_file(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PUSHSERVER_REDIS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "url"
    file.write_text(f"unix://{server.data}/valkey.sock\n")
    done = CliRunner().invoke(main, ["keys", "list", "--redis-file", str(file)])
    assert done.exit_code == DONE, done.output
    done = CliRunner().invoke(main, ["keys", "list", "--redis-file", str(tmp_path / "none")])
    assert done.exit_code == REFUSED
    assert "expected a file that can be read" in done.stderr
