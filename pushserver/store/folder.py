"""The data folder of an embedded store: its files, whether they are still those that the store writes to, and its disk.

server.lock, valkey.lock       locks of the server and of its store
store.id                       marker: the id of the store whose append-only file the folder has
appendonlydir/                 the append-only file: a manifest, a base (RDB), and what was written since (AOF)
valkey.sock, valkey.log, …     the store's socket, its own log, its pid
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from .condition import Condition

SOCKET, MARKER, LOG_FOLDER = "valkey.sock", "store.id", "appendonlydir"
SERVER_LOCK, STORE_LOCK = "server.lock", "valkey.lock"
MANIFEST = "appendonly.aof.manifest"
MANIFEST_LINE = re.compile(r"file (\S+) seq ([0-9]+) type ([bi])(?: .*)?")  # a line of type h names a file to delete
SOCKET_PATH_LIMIT = 100  # bytes; Linux has room for 107
LEAST_RESERVE = 64 * 2**20  # bytes of free disk, below which publishing is refused
FULL_BELOW = 4 * 2**20  # bytes of free disk, below which nothing is written: room for what is under way
LEAVING = 1.125  # times the reserve that has to be free until publishing goes on: else it would flutter

Identity = tuple[int, int]  # device and inode


class CannotStart(Exception):
    """CannotStart says why the server or its store cannot start."""


class LogDamaged(CannotStart):
    """LogDamaged refuses an append-only file that the store cannot read."""


class DataFolder:
    """DataFolder is a data folder, which is to stay the one that it was when this object was made. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = _identity(path)
        self._files: dict[str, Identity] = {}  # by their names, as they were seen first

    # --- its append-only file

    def log_files(self) -> list[str]:
        """The names of the parts of the append-only file in their order, the base first. Raises OSError, ValueError."""
        return read_manifest((self.path / LOG_FOLDER / MANIFEST).read_text())

    def marker(self) -> str:
        """The id of the store whose append-only file the folder has, or had; '' where it never had one."""
        path = self.path / MARKER
        return path.read_text(errors="replace").strip() if path.is_file() else ""

    def mark(self, id: str) -> None:
        """Write the marker, whole or not at all."""
        draft = self.path / f"{MARKER}.{os.getpid()}"
        draft.write_text(f"{id}\n")
        draft.replace(self.path / MARKER)

    def check_log(self, *, accept_empty: bool) -> None:
        """Raises CannotStart where the folder had an append-only file, and has none any more.

        With `accept_empty` the files that are left of it are moved aside, since an empty store would write over them.
        """
        if (self.path / LOG_FOLDER / MANIFEST).exists():
            return
        left = any((self.path / LOG_FOLDER).glob("*.base.*")) or any((self.path / LOG_FOLDER).glob("*.incr.*"))
        if accept_empty:
            if left:
                (self.path / LOG_FOLDER).rename(self.path / f"{LOG_FOLDER}.{time.strftime('%Y%m%dT%H%M%S')}")
        elif left:
            says = f"{self.path / LOG_FOLDER} has parts of an append-only file, and no {MANIFEST}"
            raise LogDamaged(f"{says}: {self.repair_hint()}")
        elif self.marker():
            raise CannotStart(self.empty("its append-only file"))

    def repair_hint(self) -> str:
        """The command that repairs a damaged append-only file, as a sentence."""
        command = f"pushserver repair --data {shlex.quote(str(self.path))}"
        return f"{command} cuts it at the damage, keeps a copy and says what is lost; or restore a backup"

    def empty(self, missing: str) -> str:
        """Why the store does not start empty, and what the operator can do."""
        return (
            f"{self.path} had a store ({MARKER}), and {missing} is gone: restore a backup, or start with an empty one: "
            f"pushserver serve --accept-empty-store --data {shlex.quote(str(self.path))}"
        )

    # --- whether it is still the same

    def fault(self) -> str:
        """Why what the store writes would not be found again: a sentence about the folder, '' where all is well."""
        if _identity(self.path) != self._identity:
            return f"the data folder {self.path} is gone, or was replaced by another"
        for _ in range(3):  # a rewrite of the file may replace the manifest and delete the older files meanwhile
            name = self._changed()
            if not name:
                return ""
        return f"{self.path / name} is gone, or was replaced by another file"

    def _changed(self) -> str:
        try:
            names = [SERVER_LOCK, STORE_LOCK, *(f"{LOG_FOLDER}/{name}" for name in self.log_files())]
        except (OSError, ValueError):
            return f"{LOG_FOLDER}/{MANIFEST}"
        for name in names:
            identity = _identity(self.path / name)
            if identity is None or self._files.setdefault(name, identity) != identity:
                return name
        return ""

    # --- its disk

    def free(self) -> int:
        """Bytes that are free on its disk. Raises OSError."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def reserve(self) -> int:
        """Bytes that are to stay free: as many as the next rewrite of the file needs, which is as large as the last."""
        bases = (self.path / LOG_FOLDER).glob("*.base.*")
        return max(LEAST_RESERVE, *(_size(base) for base in bases), 0)

    def condition(self, before: Condition) -> Condition:
        """The condition of its disk, after the one that it had before. Raises OSError."""
        free = self.free()
        if free < FULL_BELOW:
            return Condition.DISK_FULL
        factor = LEAVING if before in (Condition.DISK_RESERVE, Condition.DISK_FULL) else 1
        return Condition.DISK_RESERVE if free < self.reserve() * factor else Condition.SOUND


def read_manifest(text: str) -> list[str]:
    """The names of the files in a manifest, in their order. Raises ValueError where it is none."""
    lines = [line for line in text.splitlines() if line.strip() and not re.search(r" type h\b", line)]
    matches = [MANIFEST_LINE.fullmatch(line.strip()) for line in lines]
    if not matches or not all(matches):
        raise ValueError(f"expected lines of the form: file NAME seq NUMBER type b, got {text[:120]!r}")
    return [match[1] for match in matches if match]


@contextmanager
def reachable(path: Path) -> Iterator[Path]:
    """Yield a path by which a unix socket can be connected to.

    It is a link in the folder for temporary files where the path is too long for the address of a socket, or is not
    UTF-8, which a URL must be.
    """
    raw = os.fsencode(path)
    if len(raw) <= SOCKET_PATH_LIMIT and os.fsencode(raw.decode(errors="replace")) == raw:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="pushserver-") as folder:
        link = Path(folder) / "data"
        link.symlink_to(path.parent)
        if len(os.fsencode(link / path.name)) > SOCKET_PATH_LIMIT:
            raise CannotStart(f"expected a folder for temporary files (TMPDIR) with a short path, got {folder}")
        yield link / path.name


def socket_url(path: Path) -> str:
    """The URL of a store on a unix socket."""
    return f"unix://{quote(str(path))}"


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the rewrite that made another has deleted it
        return 0
