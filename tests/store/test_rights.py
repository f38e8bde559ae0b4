"""Users of the store who lack a right: refused by its name at start, and not ready once it is taken away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pushserver.access.keystore import KeyStore
from pushserver.store.listing import Listing
from pushserver.store.log import Log
from pushserver.store.rights import NEEDED, rights
from pushserver.store.store import Store, StoreUnfit

from ..support.logs import put, put_page, withdraw
from ..support.stores import Server

pytestmark = pytest.mark.anyio

TRIED = sorted({right.name for right in rights("{p00}:written")} - {"PING"})


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("rights"))
    yield server
    server.close()


@asynccontextmanager
async def store_as(server: Server, *words: str, replicas: int = 0) -> AsyncIterator[Store]:
    """The store, as a user with these rights. Scripts of a run before are gone."""
    server.ask("ACL", "SETUSER", "worker", "reset", "on", ">secret", *words)
    server.ask("SCRIPT", "FLUSH")
    store = Store(f"redis://worker:secret@127.0.0.1:{server.port}", partitions=16, replicas=replicas)
    try:
        yield store
    finally:
        await store.close()


async def test_the_rights_that_are_asked_for_are_enough(granting: Server, stream: str) -> None:
    """And every command that was used, by a script too, is one that is tried."""
    granting.ask("CONFIG", "RESETSTAT")
    async with store_as(granting, *NEEDED.split()) as store:
        await store.check()
        log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
        first = await log.append(put(stream, key="key"))
        await log.append(put_page(stream, 1))
        await log.append(withdraw(stream, first.entry_id, 2))
        await log.snapshot(stream, limit=10, after=(1, "x"), withdrawals=10)
        await log.resume(stream, first.cursor, limit=10, limit_bytes=10**6)
        await log.missing([(stream, first.cursor, "9-9")])
        await Listing(log).streams()
        await log.contents(stream)
        await log.stored(stream, "entries", ["x"])
        await log.entry(stream, "x")
        await log.page_of(stream)
        await log.first_answer(stream, "key", "b0d7")
        keys = KeyStore(store)
        await keys.add("k1", {"name": "desk"})
        await keys.all()
        await keys.revoke("k1")
        async with store.channels("{p00}:asked"):
            await store.publish("{p00}:asked", "{}")
        tail = await log.open_tail(0)
        await tail.unblock()
        await tail.close()
    used = {name.removeprefix("cmdstat_").replace("|", " ").upper() for name in granting.info("commandstats")}
    ours = {"INFO", "SET", "SSUBSCRIBE", "CONFIG GET", *(right.name for right in rights("{p00}:written"))}
    # Of redis-py, which goes on without them; and of this test.
    assert used <= ours | {"AUTH", "SELECT", "CLIENT SETINFO", "CONFIG RESETSTAT", "ACL SETUSER", "SCRIPT FLUSH"}
    assert used >= ours - {"WAIT"}


@pytest.mark.parametrize("name", [*TRIED, "INFO", "SET", "SSUBSCRIBE"])
async def test_a_command_that_the_user_may_not_use_is_named(granting: Server, name: str) -> None:
    async with store_as(granting, *NEEDED.split(), f"-{name.lower().replace(' ', '|')}") as store:
        with pytest.raises(StoreUnfit, match=f"^{name} is refused: .*{name.lower().replace(' ', '.')}"):
            await store.check()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["~*", "&*", "+@all", "-@scripting"], "SCRIPT EXISTS"),
        (["~*", "+@all"], "SSUBSCRIBE is refused: No permissions to access a channel"),
        (["~*", "&news", "+@all"], "SSUBSCRIBE is refused: No permissions to access a channel"),
        (["~pushserver:*", "&*", "+@all"], "SET is refused: No permissions to access a key"),
        (["~{p*", "&*", "+@all"], "SET is refused: No permissions to access a key"),
        (["~{p00}*", "~pushserver:*", "&*", "+@all"], r"a key of \{p01\} is refused"),
        (["%R~*", "%W~pushserver:*", "&*", "+@all"], "SET is refused: No permissions to access a key"),
        (["~*", "&*"], "INFO is refused: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_a_user_who_lacks_a_right_is_refused(granting: Server, words: list[str], named: str) -> None:
    async with store_as(granting, *words) as store:
        with pytest.raises(StoreUnfit, match=f"^{named}.*~pushserver"):
            await store.check()


@pytest.mark.parametrize("lost", [["-@scripting"], ["resetchannels"], ["-hset"], ["resetkeys", "~{p00}*"]])
async def test_a_worker_is_not_ready_whose_user_lost_a_right(granting: Server, lost: list[str]) -> None:
    async with store_as(granting, *NEEDED.split()) as store:
        await store.check()
        granting.ask("ACL", "SETUSER", "worker", *lost)
        with pytest.raises(StoreUnfit, match="is refused"):
            await store.ping()
        granting.ask("ACL", "SETUSER", "worker", *NEEDED.split())
        await store.ping()


async def test_a_command_that_was_renamed_away_is_named(tmp_path: Path) -> None:
    server = Server(tmp_path, "--rename-command", "EVALSHA", "")
    try:
        store = Store(f"redis://127.0.0.1:{server.port}", partitions=16)
        with pytest.raises(StoreUnfit, match="EVALSHA is refused: unknown command"):
            await store.check()
        await store.close()
    finally:
        server.close()


async def test_trying_changes_nothing(granting: Server) -> None:
    async with store_as(granting, *NEEDED.split()) as store:
        await store.check()
        granting.ask("DEL", *(key for key in granting.ask("KEYS", "*") if key.endswith(":written")))
        before = granting.ask("DBSIZE")
        await store.ping()
        assert granting.ask("DBSIZE") == before + 1  # the mark, which is a string
        assert granting.ask("TYPE", "{p00}:written") == "string"
