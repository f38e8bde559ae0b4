from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pushserver.access.keyfile import KEY_FILE, local_key, make_local_key

from ..support.server import KEY


def test_a_folder_without_a_key_gets_one_that_only_its_owner_reads(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert local_key(data) is None
    key = make_local_key(data)
    assert key.startswith("pk_")
    assert local_key(data) == make_local_key(data) == key
    assert stat.S_IMODE((data / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in data.iterdir()] == [KEY_FILE], "a draft was left"


def test_a_key_that_is_there_is_the_key(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text(f"{KEY}\n")
    assert make_local_key(tmp_path) == KEY


def test_a_key_that_is_there_needs_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / KEY_FILE).write_text(f"{KEY}\n")
    monkeypatch.delattr("os.link")
    assert make_local_key(tmp_path) == KEY


def test_a_key_file_of_another_editor_has_the_same_key(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
    assert local_key(tmp_path) == make_local_key(tmp_path) == KEY


@pytest.mark.parametrize("content", [b"", b"\n", b"two words of a key\n", b"\xff" * 16, b"fifteen-letters"])
def test_a_file_without_a_key_in_it_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=KEY_FILE):
        make_local_key(tmp_path)


def test_servers_that_start_at_the_same_time_have_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = iter(range(1, 17))
    monkeypatch.setattr("os.getpid", lambda: next(pids))  # each thread stands for a process
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make_local_key, [tmp_path] * 16))) == 1
