from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pushserver.access.keystore import KEYS_USED, KeyStore
from pushserver.errors import DiskReserve, FolderLost, Unavailable
from pushserver.store.condition import Condition, StoreCondition, shared
from pushserver.store.log import Log
from pushserver.store.store import Store

from ..support.server import ROOT, entry_append, withdrawal_append

pytestmark = pytest.mark.anyio

ALL = ("entry.put", "page.put", "entry.withdraw", "stream.end")


@pytest.mark.parametrize(
    ("condition", "taken", "error"),
    [
        (Condition.SOUND, ALL, None),
        (Condition.DISK_RESERVE, ("entry.withdraw", "stream.end"), DiskReserve),
        (Condition.DISK_FULL, (), DiskReserve),
        (Condition.FOLDER_LOST, (), FolderLost),
    ],
)
def test_a_condition_says_what_is_stored(
    condition: Condition, taken: tuple[str, ...], error: type[Unavailable] | None
) -> None:
    with shared() as noted:
        noted.set(condition)
        for type in ALL:
            if type in taken:
                noted.check(type)
            else:
                assert error
                with pytest.raises(error) as refused:
                    noted.check(type)
                assert refused.value.headers["Retry-After"] == "10"
                assert "nothing was stored" in refused.value.detail
        assert noted.may_write() == (condition in (Condition.SOUND, Condition.DISK_RESERVE))


def test_a_store_of_somebody_else_is_sound() -> None:
    for type in ALL:
        StoreCondition().check(type)


def test_another_process_reads_what_was_noted() -> None:
    with shared() as noted:
        noted.set(Condition.DISK_FULL)
        program = (
            "import sys; from pushserver.store.condition import *; print(SharedCondition(int(sys.argv[1])).get().name)"
        )
        command = [sys.executable, "-c", program, str(noted.descriptor)]
        done = subprocess.run(
            command, cwd=ROOT, pass_fds=[noted.descriptor], capture_output=True, text=True, check=True
        )
        assert done.stdout == "DISK_FULL\n"


def test_a_condition_that_was_made_for_a_moment_is_closed() -> None:
    with shared() as noted:
        os.fstat(noted.descriptor)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(noted.descriptor)


async def test_a_log_whose_disk_has_its_reserve_left_takes_withdrawals_alone(store_url: str, stream: str) -> None:
    with shared() as noted:
        store = Store(store_url, partitions=16, condition=noted)
        try:
            log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
            entry = await log.append(entry_append(stream, "one"))
            noted.set(Condition.DISK_RESERVE)
            with pytest.raises(DiskReserve):
                await log.append(entry_append(stream, "two"))
            assert (await log.append(withdrawal_append(stream, entry.entry_id, rev=1))).n == 2
        finally:
            await store.close()


async def test_a_check_of_a_store_whose_disk_is_full_writes_nothing(store_url: str) -> None:
    with shared() as noted:
        store = Store(store_url, partitions=16, condition=noted)
        try:
            await store.check()
            await store.call(KEYS_USED, lambda redis: redis.delete(KEYS_USED, "{p00}:written"))
            noted.set(Condition.DISK_FULL)
            await store.ping()
            await KeyStore(store).note_use("0a1b", "2026-01-01T00:00:00.000Z")
            assert await store.call(KEYS_USED, lambda redis: redis.exists(KEYS_USED, "{p00}:written")) == 0
            noted.set(Condition.DISK_RESERVE)
            await store.ping()
            assert await store.call(KEYS_USED, lambda redis: redis.exists("{p00}:written")) == 1
        finally:
            await store.close()
