from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pushserver.store.condition import Condition
from pushserver.store.folder import FULL_BELOW, LEAST_RESERVE, DataFolder, reachable, read_manifest, socket_url


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "appendonlydir").mkdir()
    return tmp_path


def sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def test_the_reserve_is_what_the_last_rewrite_took_and_64_mib_at_least(data: Path) -> None:
    assert DataFolder(data).reserve() == LEAST_RESERVE == 67_108_864
    sparse(data / "appendonlydir" / "appendonly.aof.7.base.rdb", 100 * 2**20)
    assert DataFolder(data).reserve() == 100 * 2**20
    sparse(data / "appendonlydir" / "appendonly.aof.7.base.rdb", 2**20)
    assert DataFolder(data).reserve() == LEAST_RESERVE


@pytest.mark.parametrize(
    ("free", "before", "condition"),
    [
        (LEAST_RESERVE, Condition.SOUND, Condition.SOUND),
        (LEAST_RESERVE - 4096, Condition.SOUND, Condition.DISK_RESERVE),
        (LEAST_RESERVE + 4096, Condition.DISK_RESERVE, Condition.DISK_RESERVE),  # it does not flutter
        (LEAST_RESERVE * 2, Condition.DISK_RESERVE, Condition.SOUND),
        (LEAST_RESERVE * 2, Condition.DISK_FULL, Condition.SOUND),
        (LEAST_RESERVE, Condition.FOLDER_LOST, Condition.SOUND),
        (FULL_BELOW, Condition.DISK_FULL, Condition.DISK_RESERVE),
        (FULL_BELOW - 4096, Condition.SOUND, Condition.DISK_FULL),
        (0, Condition.DISK_RESERVE, Condition.DISK_FULL),
    ],
)
def test_a_disk_is_judged_by_what_is_free(
    data: Path, free: int, before: Condition, condition: Condition, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda path: disk)
    assert DataFolder(data).condition(before) == condition


def test_a_manifest_names_the_files_of_the_log_in_their_order() -> None:
    lines = [
        "file a.2.base.rdb seq 2 type b",
        "file a.1.base.rdb seq 1 type h",
        "file a.5.incr.aof seq 5 type i startoffset 9",
    ]
    assert read_manifest("\n".join(lines)) == ["a.2.base.rdb", "a.5.incr.aof"]


@pytest.mark.parametrize(
    "text", ["", "\n", "rubbish\n", "file a seq x type b\n", "file a.1.base.rdb seq 1 type b\nrubbish\n"]
)
def test_a_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected lines of the form"):
        read_manifest(text)


def test_a_marker_is_written_whole_and_read_again(data: Path) -> None:
    assert DataFolder(data).marker() == ""
    DataFolder(data).mark("0123")
    assert DataFolder(data).marker() == "0123"
    assert [path.name for path in data.glob("store.id*")] == ["store.id"]


@pytest.mark.parametrize(
    ("name", "url"), [("a#b", "a%23b"), ("a?b c", "a%3Fb%20c"), ("100%", "100%25"), ("zoë", "zo%C3%AB")]
)
def test_a_socket_has_a_url_whatever_its_path(name: str, url: str) -> None:
    with reachable(Path("/x") / name / "valkey.sock") as path:
        assert socket_url(path) == f"unix:///x/{url}/valkey.sock"


@pytest.mark.parametrize("name", [b"x" * 200, b"latin-\xe9"])
def test_a_path_that_is_no_address_is_reached_by_a_link(tmp_path: Path, name: bytes) -> None:
    target = tmp_path / os.fsdecode(name) / "valkey.sock"
    with reachable(target) as path:
        assert len(os.fsencode(path)) <= 100
        assert path.parent.readlink() == target.parent
    assert not path.parent.is_symlink()
