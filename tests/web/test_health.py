"""A worker is ready while it can do its work, and alive whatever the store does. (Silence is a fault of `faults/`.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, OutOfMemoryError, ResponseError
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from pushserver import metrics
from pushserver.store.condition import Condition, StoreCondition
from pushserver.store.folder import SOCKET
from pushserver.store.store import StoreError, StoreUnfit
from pushserver.web import health
from pushserver.web.health import Health, HealthRoutes

from ..support.processes import Start
from ..support.server import LIMIT, Running, Served, reader, receive
from ..support.worker import Serve

pytestmark = pytest.mark.anyio

Harm = Callable[[aioredis.Redis], Awaitable[Any]]


async def is_replica_of_nobody(store: aioredis.Redis) -> None:
    await store.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]


async def is_primary_again(store: aioredis.Redis) -> None:
    await store.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


async def is_full(store: aioredis.Redis) -> None:
    await store.config_set("maxmemory", "1")


async def has_room(store: aioredis.Redis) -> None:
    await store.config_set("maxmemory", "0")


async def evicts(store: aioredis.Redis) -> None:
    await store.execute_command("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")  # type: ignore[no-untyped-call]


async def keeps(store: aioredis.Redis) -> None:
    await store.execute_command("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")  # type: ignore[no-untyped-call]


@asynccontextmanager
async def store_of(server: Running) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(f"unix://{server.data}/{SOCKET}") as store:
        yield store


async def until(server: Served, **expected: bool) -> dict[str, Any]:
    """Wait until it says so; all that it says. It is alive all the time."""
    async with asyncio.timeout(LIMIT):
        while True:
            assert (await asyncio.to_thread(server.http.get, "/livez")).status_code == 200
            response = await asyncio.to_thread(server.http.get, "/readyz")
            checks: dict[str, Any] = response.json()
            assert checks["ready"] is (response.status_code == 200)
            if expected.items() <= checks.items():
                return checks
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("harm", "mend", "takes_writes"),
    [(is_replica_of_nobody, is_primary_again, False), (is_full, has_room, False), (evicts, keeps, True)],
    ids=lambda part: part.__name__.replace("_", " ") if callable(part) else "",
)
async def test_a_worker_is_not_ready_while_its_store(
    server: Running, stream: str, harm: Harm, mend: Harm, takes_writes: bool
) -> None:
    cursor = server.publish_ok(stream, "before")["cursor"]
    async with store_of(server) as store, reader(server, stream, cursor=cursor) as socket:
        await until(server, ready=True)
        await harm(store)
        try:
            await until(server, ready=False, store=False)
            answer = server.publish(stream, {"headline": "meanwhile"}, Idempotency_Key="meanwhile")
            assert answer.status_code == (201 if takes_writes else 503)
            if not takes_writes:
                assert int(answer.headers["Retry-After"]) > 0
                assert "nothing was stored" in answer.json()["detail"]
        finally:
            await mend(store)
        await until(server, ready=True)
        again = server.publish(stream, {"headline": "meanwhile"}, Idempotency_Key="meanwhile")
        assert (again.json()["n"], again.status_code) == (2, 200 if takes_writes else 201)
        assert (await receive(socket, "entry.put"))["n"] == 2  # by a reader who never noticed


class Checks:
    """Health with these checks."""

    def __init__(self, **checks: bool) -> None:
        self._checks = checks

    def checks(self) -> dict[str, bool]:
        return self._checks

    def reading_checks(self) -> dict[str, bool]:
        return self._checks

    def publishes(self) -> bool:
        return True


def probe(path: str, **checks: bool) -> httpx2.Response:
    """The answer of the routes to a probe."""
    routes = HealthRoutes(cast(Health, Checks(**checks)))
    handler = {"/livez": routes.livez, "/readyz": routes.readyz, "/readyz/read": routes.readyz_read}[path]
    return TestClient(Starlette(routes=[Route(path, handler)])).get(path)


def test_a_worker_is_ready_if_every_check_passes() -> None:
    answer = probe("/readyz", store=True, tail=True)
    assert (answer.status_code, answer.json()) == (
        200,
        {"ready": True, "reasons": [], "store": True, "tail": True, "publishing": True},
    )
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", metrics.CHECKS)
def test_one_check_that_fails_is_named_and_explained(name: str) -> None:
    checks = {**dict.fromkeys(metrics.CHECKS, True), name: False}
    answer = probe("/readyz", **checks)
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": [health.REASONS[name]], **checks, "publishing": True}


def test_a_worker_that_is_not_ready_is_alive() -> None:
    answer = probe("/livez", store=False)
    assert (answer.status_code, answer.json()) == (200, {"live": True})


def test_a_worker_that_answers_pages_is_ready_to_be_read() -> None:
    for checks in ({"pages": True, "staying": True}, {"pages": False, "staying": True}):
        answer = probe("/readyz/read", **checks)
        ready = all(checks.values())
        reasons = [] if ready else [health.REASONS["pages"]]
        expected = {"ready": ready, "reasons": reasons, **checks}
        assert (answer.status_code, answer.json()) == (200 if ready else 503, expected)
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz/read"])
def test_a_balancer_may_probe_by_head_and_by_options(server: Running, path: str) -> None:
    head, options = server.http.head(path), server.http.options(path)
    assert (head.status_code, head.content, head.headers["cache-control"]) == (200, b"", "no-store")
    assert (options.status_code, options.content, options.headers["allow"]) == (204, b"", "GET, HEAD, OPTIONS")
    assert server.http.post(path).status_code == 405


class Store:
    """A store, and its log, that answer a ping and a read as they are said to."""

    def __init__(self) -> None:
        self.store = self
        self.condition = StoreCondition()
        self.error: Exception | None = None
        self.read_error: StoreError | None = None
        self.pinged = asyncio.Event()
        self.answer = asyncio.get_running_loop().create_future()  # a ping waits for it
        self.answer.set_result(None)

    async def ping(self) -> None:
        self.pinged.set()
        await self.answer
        if self.error:
            raise self.error

    async def try_read(self) -> None:
        if self.read_error:
            raise self.read_error

    def has_replicas(self) -> bool:
        return True


FULL = OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
UNFIT = StoreUnfit("expected maxmemory-policy noeviction, got allkeys-lru")
AWAY, BUSY = ConnectionError("away"), ResponseError("BUSY Redis is busy running a script")


@pytest.mark.parametrize(
    ("error", "read_error", "is_read"),
    [(FULL, None, True), (UNFIT, None, True), (UNFIT, BUSY, False), (AWAY, AWAY, False), (None, AWAY, False)],
    ids=["full", "unfit", "unfit and busy", "away", "slow to read"],
)
async def test_pages_are_ready_while_the_store_is_read_whatever_else_it_refuses(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, read_error: StoreError | None, is_read: bool
) -> None:
    monkeypatch.setattr(health, "ASKED_EVERY", 0)
    store = Store()
    worker = SimpleNamespace(is_sound=lambda: True, has_room=True, draining=False)
    checked = Health(cast(Any, store), cast(Any, worker), cast(Any, SimpleNamespace(open=True)), stale_pages=0)
    task = asyncio.create_task(checked.run())
    await asked(store)
    assert checked.reading_checks()["pages"]
    store.error, store.read_error = error, read_error
    await asked(store)
    assert (checked.checks()["store"], checked.reading_checks()["pages"]) == (error is None, is_read)
    store.error = store.read_error = None
    await asked(store)
    assert checked.reading_checks()["pages"]
    task.cancel()


@asynccontextmanager
async def runs_a_script_for_too_long(store: aioredis.Redis) -> AsyncIterator[None]:
    async def run() -> None:
        async with store.client() as other:
            with suppress(ResponseError):  # it is killed
                await other.eval("while true do end", 0)

    await store.config_set("busy-reply-threshold", "1")
    async with asyncio.TaskGroup() as group:
        group.create_task(run())
        with pytest.raises(ResponseError, match="BUSY"):
            while True:
                await store.ping()
        try:
            yield
        finally:
            await store.script_kill()


@asynccontextmanager
async def denies_a_command_that_page_loads_need(store: aioredis.Redis) -> AsyncIterator[None]:
    await store.acl_setuser("default", enabled=True, nopass=True, commands=["-xrevrange"])
    yield
    await store.acl_setuser("default", enabled=True, nopass=True, commands=["+xrevrange"])


@pytest.mark.parametrize("harm", [runs_a_script_for_too_long, denies_a_command_that_page_loads_need])
async def test_no_page_is_ready_where_the_store_answers_and_cannot_be_read(
    start: Start, stream: str, harm: Callable[[aioredis.Redis], AbstractAsyncContextManager[None]]
) -> None:
    server = start("--stale-pages", "0")
    server.publish_ok(stream, "before")
    async with store_of(server) as store:
        await until_read(server, 200)
        async with harm(store):
            await until_read(server, 503)
        await until_read(server, 200)


async def until_read(server: Served, status: int) -> None:
    """Wait until the probe of page loads answers so."""
    async with asyncio.timeout(LIMIT):
        while (await asyncio.to_thread(server.http.get, "/readyz/read")).status_code != status:
            await asyncio.sleep(0.05)


async def test_a_store_is_relied_on_from_its_first_answer_until_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ASKED_EVERY", 0)
    store = Store()
    worker = SimpleNamespace(is_sound=lambda: True, has_room=True, draining=False)
    checked = Health(cast(Any, store), cast(Any, worker), cast(Any, SimpleNamespace(open=True)), stale_pages=30)
    assert checked.checks() == {**dict.fromkeys(metrics.CHECKS, True), "store": False}
    assert checked.reading_checks() == {"pages": False, "staying": True}  # nothing is in memory yet
    task = asyncio.create_task(checked.run())
    await asked(store)
    assert checked.checks()["store"]
    store.error = store.read_error = AWAY
    await asked(store)
    assert not checked.checks()["store"]
    assert checked.reading_checks() == {"pages": True, "staying": True}  # pages are answered from memory
    monkeypatch.setattr(checked, "_stale_pages", 0)
    assert checked.reading_checks() == {"pages": False, "staying": True}
    store.error = store.read_error = None
    await asked(store)
    assert checked.checks()["store"]
    worker.draining = True
    assert not checked.checks()["staying"]
    assert checked.reading_checks() == {"pages": True, "staying": False}
    task.cancel()


async def test_a_store_that_keeps_a_check_waiting_is_slow_before_it_answers_and_pages_do_not_mind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "ASKED_EVERY", 0)
    caplog.set_level("INFO")
    store = Store()
    worker = SimpleNamespace(is_sound=lambda: True, has_room=True, draining=False)
    receipts = SimpleNamespace(open=True)
    checked = Health(cast(Any, store), cast(Any, worker), cast(Any, receipts), stale_pages=30, slow_store=1_000)
    task = asyncio.create_task(checked.run())
    await asked(store)
    assert checked.checks()["fast"]
    store.answer = asyncio.get_running_loop().create_future()
    store.pinged.clear()
    await store.pinged.wait()
    assert checked.checks()["fast"]
    monkeypatch.setattr(checked, "_slow", 0.0)
    assert [name for name, passes in checked.checks().items() if not passes] == ["fast"]
    assert all(checked.reading_checks().values())
    store.answer.set_result(None)
    await asked(store)
    assert caplog.text.count("store slow") == 1
    monkeypatch.setattr(checked, "_slow", float("inf"))
    await asked(store)
    assert checked.checks()["fast"]
    assert caplog.text.count("the store is fast again") == 1
    task.cancel()


@pytest.mark.parametrize(("last_file", "has_files"), [(None, True), (1_000_000, True), (3, False)])
def test_a_worker_has_files_while_a_new_one_is_below_the_last(last_file: int | None, has_files: bool) -> None:
    store = SimpleNamespace(condition=StoreCondition(), has_replicas=lambda: True)
    worker = SimpleNamespace(is_sound=lambda: True, has_room=True, draining=False)
    parts = cast(Any, SimpleNamespace(store=store)), cast(Any, worker), cast(Any, SimpleNamespace(open=True))

    async def look() -> bool:
        return Health(*parts, stale_pages=30, last_file=last_file).checks()["files"]

    assert asyncio.run(look()) is has_files


async def test_a_full_worker_is_not_ready_and_serves_pages(serve: Serve, stream: str) -> None:
    server = serve("--readers", "1")
    cursor = server.publish_ok(stream, "one")["cursor"]
    async with reader(server, stream, cursor=cursor) as socket:
        await receive(socket)
        answer = await until(server, ready=False, room=False)
        assert answer["reasons"] == [health.REASONS["room"]]
        assert server.http.get("/readyz/read").status_code == 200
    await until(server, ready=True)


@pytest.mark.parametrize(
    ("condition", "folder", "publishes"),
    [
        (Condition.SOUND, True, True),
        (Condition.DISK_RESERVE, True, False),
        (Condition.DISK_FULL, True, False),
        (Condition.FOLDER_LOST, False, False),
    ],
)
def test_a_worker_whose_disk_is_full_is_ready_to_read_and_one_whose_folder_is_gone_is_not(
    condition: Condition, folder: bool, publishes: bool
) -> None:
    store = SimpleNamespace(condition=SimpleNamespace(get=lambda: condition), has_replicas=lambda: True)
    worker = SimpleNamespace(is_sound=lambda: True, has_room=True, draining=False)
    log = SimpleNamespace(store=store)
    checked = Health(cast(Any, log), cast(Any, worker), cast(Any, SimpleNamespace(open=True)), stale_pages=30)

    async def look() -> tuple[bool, bool]:
        return checked.checks()["folder"], checked.publishes()

    assert asyncio.run(look()) == (folder, publishes)


async def asked(store: Store) -> None:
    """Wait until the store was asked, and the answer was noted: it is, when the next question comes."""
    for _ in range(2):
        store.pinged.clear()
        await store.pinged.wait()
