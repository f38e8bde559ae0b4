"""A start makes the checks of `pushserver check`: it logs their warnings, stops at an error, and notes what it uses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushserver import findings
from pushserver.access.keys import fingerprint
from pushserver.access.keystore import SERVER_KEYS, SERVER_KEYS_LIMIT
from pushserver.server import checks
from pushserver.settings import Settings
from pushserver.store.folder import CannotStart
from pushserver.store.store import Store

from ..support.server import KEY
from ..support.stores import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def memory_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A store that does not sync, and has no replica."""
    server = Server(tmp_path_factory.mktemp("store"), "--appendonly", "no")
    yield server
    server.close()


async def start_on(server: Server, key: str, replicas: int = 0) -> None:
    """Make the checks of a start."""
    settings = Settings(redis=f"redis://127.0.0.1:{server.port}", key=key, replicas=replicas)
    store = Store(settings.redis, partitions=16, replicas=replicas)
    try:
        async for finding in checks.examine_store(store, settings, writes=True, is_shared=True):
            checks.insist([finding])
    finally:
        await store.close()


async def test_a_start_warns_of_what_the_store_does_not_promise(
    memory_store: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await start_on(memory_store, KEY, replicas=1)
    assert "durability: memory: the store is not known to sync" in caplog.text
    assert "set appendonly yes and appendfsync always" in caplog.text
    assert "replicas: expected 1 to acknowledge" in caplog.text
    assert "another key" not in caplog.text
    assert memory_store.ask("GET", "pushserver:partitions") == "16"


async def test_a_start_warns_of_a_server_with_another_key(
    memory_store: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await start_on(memory_store, KEY)
    await start_on(memory_store, KEY)
    assert "another key" not in caplog.text
    await start_on(memory_store, f"{KEY}-other")
    assert "publish key: a server of this store started with another key at 20" in caplog.text
    noted = memory_store.client.hgetall(SERVER_KEYS)
    assert {fingerprint(KEY), fingerprint(f"{KEY}-other")} == set(noted)
    assert KEY not in str(noted)


async def test_the_keys_that_are_noted_are_bounded(memory_store: Server) -> None:
    for number in range(SERVER_KEYS_LIMIT + 3):
        await start_on(memory_store, f"{KEY}-{number}")
    noted = memory_store.client.hgetall(SERVER_KEYS)
    assert len(noted) == SERVER_KEYS_LIMIT
    assert fingerprint(f"{KEY}-{SERVER_KEYS_LIMIT + 2}") in noted


def test_a_start_stops_at_the_first_error(caplog: pytest.LogCaptureFixture) -> None:
    results = [findings.ok("a", "well"), findings.warning("b", "doubtful"), findings.error("c", "wrong", "mend it")]
    with pytest.raises(CannotStart, match=r"^c: wrong; mend it$"):
        checks.insist(results)
    assert "b: doubtful" in caplog.text
    assert "well" not in caplog.text


def test_a_folder_is_made_by_a_start_alone(tmp_path: Path) -> None:
    data = tmp_path / "one" / "two"
    assert "which the start makes" in checks.check_folder(data, make=False).says
    assert not data.exists()
    assert checks.check_folder(data, make=True).level is findings.Level.OK
    assert data.stat().st_mode & 0o777 == 0o700


def test_the_readers_of_a_worker_fit_the_files_that_it_may_open() -> None:
    fewer = checks.check_readers(Settings(readers=100_000_000))
    assert fewer.level is findings.Level.WARNING
    assert "raise the hard limit to " in fewer.do
    assert checks.check_readers(Settings(readers=10)).level is findings.Level.OK
