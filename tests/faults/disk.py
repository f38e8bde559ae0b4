"""A small disk of the tests' own, and how it becomes full. Only root may have one."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 512 * 2**20  # bytes


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount one on a folder; False where that is not allowed, and the folder is what it was."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def is_small(folder: Path) -> bool:
    """Whether what is in the folder is on a disk that may be filled."""
    disk = os.statvfs(folder)
    return disk.f_blocks * disk.f_frsize <= SIZE


@contextmanager
def filled(folder: Path, but: int = 0) -> Iterator[None]:
    """The folder's disk has no byte left, or so many, as far as others do not write to it meanwhile."""
    assert is_small(folder), "this disk is somebody's"
    ballast = folder / "ballast"
    try:
        with ballast.open("wb") as file:
            while not _takes_what_is_left(file.fileno(), but):
                pass
        yield
    finally:
        ballast.unlink()


def _takes_what_is_left(file: int, but: int) -> bool:
    """Whether nobody else took some of it meanwhile."""
    disk = os.fstatvfs(file)
    left = disk.f_bavail * disk.f_frsize - but
    try:
        if left > 0:
            os.posix_fallocate(file, 0, left)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
