from __future__ import annotations

from collections.abc import Callable

import pytest

from pushserver.access.keystore import KeyStore
from pushserver.store.store import Store

from ..support.keys import as_key, create_key, keys_command
from ..support.server import Running

pytestmark = pytest.mark.anyio


async def test_a_key_is_stored_listed_with_its_last_use_and_revoked(log_store: Store) -> None:
    keys = KeyStore(log_store)
    assert await keys.get("0a1b") is None
    await keys.add("0a1b", {"name": "desk – é"})
    await keys.add("0a1c", {"name": "wire"})
    await keys.note_use("0a1b", "2026-01-01T00:00:00.000Z")
    assert await keys.get("0a1b") == {"name": "desk – é"}
    stored = await keys.all()
    assert stored["0a1b"] == {"name": "desk – é", "used": "2026-01-01T00:00:00.000Z"}
    assert stored["0a1c"] == {"name": "wire", "used": ""}
    assert [await keys.revoke(id) for id in ("0a1b", "0a1b", "0a1c")] == [True, False, True]
    assert not {"0a1b", "0a1c"} & (await keys.all()).keys()


def test_a_revoked_key_is_refused_at_once_by_every_worker(start: Callable[..., Running], stream: str) -> None:
    server = start("--workers", "2")
    first, second = create_key(server), create_key(server)
    assert server.publish(stream, {"headline": "x"}, **as_key(first)).status_code == 201
    listed = {line.split()[0]: line for line in keys_command(server, "list").stdout.splitlines()}
    id = first.split("_")[1]
    assert "never used" not in listed[id]
    assert "never used" in listed[second.split("_")[1]]
    assert keys_command(server, "revoke", id).returncode == 0
    for _ in range(10):  # each on a connection of its own, so that both workers are asked
        response = server.publish(stream, {"headline": "x"}, Connection="close", **as_key(first))
        assert response.status_code == 401
    assert server.publish(stream, {"headline": "y"}, **as_key(second)).status_code == 201
    assert id not in keys_command(server, "list").stdout
