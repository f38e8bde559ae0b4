"""The condition of an embedded store's folder and disk: the supervisor notes it, and every worker acts on it.

It is one byte of memory that the processes share by an inherited descriptor. So it needs no disk, which may be full, no
folder, which may be gone, and no answer of the store; and a worker that is started later has it at once.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DiskReserve, FolderLost

URGENT = frozenset(
    {"entry.withdraw", "stream.end", "stream.delete"}
)  # types of events, and what makes room, that are taken while the disk has its reserve left
RETRY_AFTER = 10  # seconds


class Condition(enum.IntEnum):
    """A condition says what the embedded store may be asked to write."""

    SOUND = 0  # everything
    DISK_RESERVE = 1  # withdrawals, ends and deletions: the disk has no more than its reserve left
    DISK_FULL = 2  # nothing: a write would fail, and the store ends on a write that fails
    FOLDER_LOST = 3  # nothing: it would be written to files that nobody finds again


class StoreCondition:
    """StoreCondition is the condition of a store that somebody else runs: its folder and disk are not looked at."""

    def get(self) -> Condition:
        return Condition.SOUND

    def may_write(self) -> bool:
        """Whether the server may write what it needs for itself, such as the mark of a check."""
        return self.get() < Condition.DISK_FULL

    def check(self, type: str) -> None:
        """Raises DiskReserve or FolderLost where an event of this type cannot be stored now."""
        condition = self.get()
        if condition == Condition.FOLDER_LOST:
            detail = "The server's data folder is gone or was replaced; nothing was stored. Its operator has to act."
            raise FolderLost(detail, RETRY_AFTER)
        if condition == Condition.DISK_FULL:
            raise DiskReserve("The server's disk is full; nothing was stored. Retry later.", RETRY_AFTER)
        if condition == Condition.DISK_RESERVE and type not in URGENT:
            detail = (
                "The server's disk is almost full: it takes only withdrawals, ends and deletions; nothing was stored."
            )
            raise DiskReserve(f"{detail} Retry later.", RETRY_AFTER)


class SharedCondition(StoreCondition):
    """SharedCondition is the condition of the embedded store, in memory that processes share by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def create(cls) -> SharedCondition:
        """A new one, which is sound. The caller closes it."""
        condition = cls(os.memfd_create("pushserver-condition"))
        condition.set(Condition.SOUND)
        return condition

    def get(self) -> Condition:
        return Condition(os.pread(self.descriptor, 1, 0)[0])

    def set(self, condition: Condition) -> None:
        os.pwrite(self.descriptor, bytes([condition]), 0)

    def close(self) -> None:
        os.close(self.descriptor)


@contextmanager
def shared(condition: SharedCondition | None = None) -> Iterator[SharedCondition]:
    """Yield a condition, or a new one that is closed at the end."""
    if condition is not None:
        yield condition
        return
    own = SharedCondition.create()
    try:
        yield own
    finally:
        own.close()
