from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
import redis
from websockets.asyncio.client import ClientConnection

from pushserver.access.keyfile import make_local_key
from pushserver.client import Publisher, PublishError
from pushserver.client.reader import follow
from pushserver.wire.codes import Close

from ..support.keys import create_key, expired_key
from ..support.ports import free_port
from ..support.processes import Start, eventually, read_to_close, stored, stores_on, worker_of, workers_of
from ..support.scrapes import ready_workers
from ..support.server import (
    KEY,
    LIMIT,
    ROOT,
    STOP_LIMIT,
    Running,
    clean_environment,
    is_alive,
    reader,
    receive,
    until,
)
from ..support.starts import starts

pytestmark = pytest.mark.anyio

LAST = "the last one"  # the headline of the entry up to which readers read


class Publishing:
    """A publisher in a thread: entry after entry, each sent again with its key until it is acknowledged."""

    def __init__(self, url: str, key: str, stream: str) -> None:
        self._url, self._key, self._stream = url, key, stream
        self.acknowledged: list[dict[str, Any]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _publish(self) -> None:
        with Publisher(self._url, self._key) as publisher:
            while not self._ending.is_set():
                number = str(len(self.acknowledged))
                try:
                    answer = publisher.publish(self._stream, {"headline": number}, idempotency_key=f"key-{number}")
                    self.acknowledged.append(answer)
                except PublishError:  # it has tried often enough: a person would try again
                    continue

    async def more(self, entries: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + entries
        await eventually(lambda: len(self.acknowledged) >= goal)

    async def end(self) -> None:
        self._ending.set()
        await asyncio.to_thread(self._thread.join)


def check_stored(server: Running, stream: str, publishing: Publishing) -> None:
    """All that was acknowledged is there, once, and nothing else."""
    entries = stored(server, stream)
    acknowledged = publishing.acknowledged
    assert [(entry["headline"], entry["id"]) for entry in entries] == [
        (str(number), answer["id"]) for number, answer in enumerate(acknowledged)
    ]
    assert [answer["n"] for answer in acknowledged] == list(range(1, len(acknowledged) + 1))
    assert server.snapshot(stream)["n"] == len(acknowledged)


async def read_to_last(socket: ClientConnection) -> list[int]:
    """The numbers of the entries up to the last one."""
    numbers = []
    while True:
        frame = await receive(socket, "entry.put")
        numbers.append(frame["n"])
        if frame["entry"]["headline"] == LAST:
            return numbers


async def follow_to_last(url: str, stream: str, cursor: str) -> list[tuple[str, int]]:
    """The kinds and numbers of what a reader applied who comes back whenever it is disconnected."""
    applied: list[tuple[str, int]] = []
    async with aclosing(follow(url, stream, cursor=cursor)) as frames:  # else its connection outlives the test
        async for frame in frames:
            applied.append((frame["type"], frame["n"]))
            if frame.get("entry", {}).get("headline") == LAST:
                break
    return applied


async def connect_to_each_worker(
    stack: AsyncExitStack, server: Running, stream: str, cursor: str
) -> dict[int, list[ClientConnection]]:
    """Readers of every worker, some for each."""
    served: dict[int, list[ClientConnection]] = {pid: [] for pid in workers_of(server)}
    for _ in range(300):
        socket = await stack.enter_async_context(reader(server, stream, cursor=cursor))
        served[worker_of(server, socket)].append(socket)
        if min(map(len, served.values())) >= 3:
            break
    assert min(map(len, served.values())) >= 3
    return served


@contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Processes that are started meanwhile ignore these signals, as under nohup."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_ignored(pid: int, number: signal.Signals) -> bool:
    (mask,) = re.findall(r"^SigIgn:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


async def test_a_server_reaches_all_readers_sends_them_away_and_has_everything_when_it_starts_again(
    start: Start, stream: str
) -> None:
    server = start("--workers", "2", "--heartbeat", "0.3")
    server.put_page(stream, {"headline": "Flood", "timezone": "America/New_York"})
    cursor = server.publish_ok(stream, "one")["cursor"]
    pids = server.children()
    assert len(pids) == 3
    async with AsyncExitStack() as stack:
        served = await connect_to_each_worker(stack, server, stream, cursor)
        second = server.publish_ok(stream, "two")
        sockets = [socket for worker_sockets in served.values() for socket in worker_sockets]
        for socket in sockets:
            frame = await receive(socket, "entry.put")
            assert (frame["n"], frame["cursor"], frame["prev"]) == (3, second["cursor"], cursor)
            assert (await receive(socket))["type"] == "head"
        paths = [f"/streams/{stream}", f"/streams/{stream}/entries", "/"]
        before = [server.http.get(path).text for path in paths]
        assert "Flood" in before[0]
        key = server.key
        reading = [asyncio.create_task(read_to_close(socket)) for socket in sockets]
        assert await asyncio.to_thread(server.stop) == 0
        for frames, code in await asyncio.gather(*reading):
            assert (code, {frame["type"] for frame in frames[:-1]} <= {"head"}) == (Close.RESTART, True)
            bye = frames[-1]
            assert (bye["type"], bye["reason"], bye["retry_ms"] > 0) == ("bye", "drain", True)
    assert [pid for pid in pids if is_alive(pid)] == []
    assert "Traceback" not in server.log
    with ignored(signal.SIGHUP, signal.SIGINT, signal.SIGTERM):  # as under nohup
        server = start("--port", server.url.rpartition(":")[2])
    assert [server.http.get(path).text for path in paths] == before
    assert server.key == key
    async with reader(server, stream, cursor=cursor) as socket:
        hello = await receive(socket)
        assert (hello["complete"], hello["from"]) == (True, 2)
        assert (await receive(socket))["cursor"] == second["cursor"]
        third = server.publish_ok(stream, "three")
        frame = await receive(socket, "entry.put")
    assert (frame["n"], frame["prev"], frame["cursor"]) == (4, second["cursor"], third["cursor"])
    for number in (signal.SIGHUP, signal.SIGINT):
        assert is_ignored(server.process.pid, number)
        server.process.send_signal(number)
    assert server.publish_ok(stream, "four")["n"] == 5
    assert server.stop() == 0, "SIGTERM stops it nevertheless"


async def test_a_server_that_is_killed_comes_back_at_once_with_all_it_acknowledged(start: Start, stream: str) -> None:
    """First all its processes but the store are killed, then the supervisor alone, while connections are open."""
    arguments = ("--port", str(free_port()))
    server = start(*arguments)
    with Publishing(server.url, server.key, stream) as publishing:
        await publishing.more(20)
        pids = server.children()
        server.kill_all()
        (orphan,) = stores_on(server.data)
        await eventually(lambda: not any(is_alive(pid) for pid in pids if pid != orphan))
        server = start(*arguments)
        assert not is_alive(orphan)
        await publishing.more(20)
        workers = workers_of(server)
        async with reader(server, stream, cursor=publishing.acknowledged[-1]["cursor"]) as socket:
            await receive(socket, "hello")
            os.kill(server.process.pid, signal.SIGKILL)
            server.close()
            starting = asyncio.create_task(asyncio.to_thread(start, *arguments))
            frames, code = await read_to_close(socket)
            assert (code, frames[-1]["type"]) == (Close.RESTART, "bye")
        server = await starting
        await publishing.more(20)
        await publishing.end()
    check_stored(server, stream, publishing)
    assert not any(map(is_alive, workers))
    assert stores_on(server.data) == [server.store_pid()]
    assert server.store_pid() in server.children()


async def test_a_worker_that_is_killed_is_replaced_and_its_readers_miss_nothing(start: Start, stream: str) -> None:
    server = start("--workers", "2", "--metrics-port", "0")
    with Publishing(server.url, server.key, stream) as publishing:
        await publishing.more(1)
        cursor = publishing.acknowledged[0]["cursor"]
        reading = [asyncio.create_task(follow_to_last(server.url, stream, cursor)) for _ in range(10)]
        victim, other = workers_of(server)
        await publishing.more(20)
        os.kill(victim, signal.SIGKILL)
        # A connection that waits at the place of a dead worker is reset where no other one is ready within a second.
        await eventually(lambda: len(ready_workers(server) - {victim}) == 2)
        await publishing.more(20)
        await publishing.end()
        check_stored(server, stream, publishing)
        last = server.publish_ok(stream, LAST)["n"]
        async with asyncio.timeout(LIMIT):
            assert await asyncio.gather(*reading) == [[("entry.put", n) for n in range(2, last + 1)]] * 10
    assert other in workers_of(server)
    assert server.log.count("ended with status -9") == 1


def publish_surely(server: Running, stream: str, headline: str) -> dict[str, Any]:
    with Publisher(server.url, server.key) as publisher:
        return publisher.publish(stream, {"headline": headline})


# --- a start after a kill


@pytest.mark.full  # many times, and with many connections
@pytest.mark.parametrize("victims", ["the supervisor", "all"])
def test_a_server_that_is_killed_again_and_again_starts_at_once(start: Start, stream: str, victims: str) -> None:
    turns, connections = 10, 300
    arguments = ("--workers", "2", "--port", str(free_port()))
    server = start(*arguments)
    for turn in range(turns):
        assert server.publish_ok(stream, str(turn))["n"] == turn + 1
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with ExitStack() as stack:
            for _ in range(connections):
                stack.enter_context(sockets.create_connection(address))
            orphans = workers_of(server)
            if victims == "all":
                server.kill_all()
            else:
                os.kill(server.process.pid, signal.SIGKILL)
                server.close()
            server = start(*arguments)
    assert server.snapshot(stream)["n"] == turns
    until(lambda: not any(map(is_alive, orphans)))


# --- servers that cannot start


Serve = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Run a server that does not start: its exit status, and what it said, its settings aside."""
    with starts(tmp_path_factory.mktemp("starts")) as process:
        yield process.serve


@pytest.mark.full  # it waits for the port
def test_a_port_that_is_taken_is_named(serve: Serve, tmp_path: Path) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, said = serve("--port", str(port), "--data", str(tmp_path / "data"))
    assert status == 3
    hint = "choose another address with --port or --host"
    assert re.search(rf"^pushserver: cannot start: .*in use.*\b{port}\b.*{hint}\n\Z", said, re.MULTILINE), said
    assert said.count(f"waiting for port {port}, which is in use") == 1
    assert not (tmp_path / "data" / "valkey.pid").exists()


def test_an_address_of_the_metrics_that_cannot_be_used_is_named_by_its_settings(serve: Serve, tmp_path: Path) -> None:
    address = ("--metrics-host", "203.0.113.7", "--metrics-port", "9600")
    status, said = serve("--port", "0", *address, "--data", str(tmp_path / "data"))
    assert status == 3
    assert "cannot start: --metrics-host, --metrics-port: " in said


@pytest.mark.full  # it waits for the port
def test_a_port_that_workers_share_is_taken_for_another_server(serve: Serve, start: Start, tmp_path: Path) -> None:
    server = start("--workers", "2")
    port = server.url.rpartition(":")[2]
    status, said = serve("--port", port, "--workers", "2", "--data", str(tmp_path / "other"))
    assert status == 3
    assert re.search(rf"^pushserver: cannot start: .*in use.*\b{port}\b.*\n\Z", said, re.MULTILINE), said


def test_a_folder_that_is_taken_is_named(serve: Serve, server: Running, stream: str) -> None:
    status, said = serve("--port", "0", "--data", str(server.data))
    hint = "stop it, or choose another folder with --data"
    assert (status, said) == (3, f"pushserver: cannot start: another server runs on {server.data}; {hint}\n")
    server.publish_ok(stream, "one")


@pytest.mark.parametrize("content", [b"", b"\n", b"two words\n", b"\xff\n"])
def test_a_key_file_without_a_key_in_it_is_named(serve: Serve, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "publish.key").write_bytes(content)
    status, said = serve("--port", "0", "--data", str(tmp_path))
    assert status == 3
    assert said.splitlines()[-1].startswith(f"pushserver: cannot start: {tmp_path / 'publish.key'}: expected 16 ")
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_used_is_named(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "file" / "data", tmp_path / "file", Path("/proc/x")):
        status, said = serve("--port", "0", "--data", str(data))
        assert status == 3
        expected = f"--data (PUSHSERVER_DATA): expected a folder that this user can make and write, got {data}: "
        assert said.splitlines()[-1].startswith(f"pushserver: cannot start: {expected}")
        assert "Traceback" not in said


@pytest.mark.parametrize("content", [None, b"", b"{", b"-----BEGIN PUBLIC KEY-----"])
def test_a_file_of_token_keys_that_cannot_be_used_is_named_by_its_setting(
    serve: Serve, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    private = ("--private", "desk-*", "--token-audience", "news", "--token-keys", str(file))
    status, said = serve("--port", "0", "--data", str(tmp_path / "data"), *private)
    assert status == 3
    assert said.splitlines()[-1].startswith("pushserver: cannot start: PUSHSERVER_TOKEN_KEYS: ")
    assert str(file) in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://:hunter2@127.0.0.1:{port}/0", "127.0.0.1:{port}"),
        ("redis://:hunter2@no-such-host.invalid/0", "no-such-host.invalid"),
        ("unix:///no/such/valkey.sock", "/no/such/valkey.sock"),
    ],
)
def test_a_store_that_is_not_there_is_named(serve: Serve, tmp_path: Path, url: str, named: str) -> None:
    port = free_port()
    status, said = serve("--port", "0", "--data", str(tmp_path), "--redis", url.format(port=port))
    assert (status, "Traceback" in said, "hunter2" in said) == (3, False, False), said
    assert [line for line in said.splitlines() if named.format(port=port) in line and "settings:" not in line], said


def test_a_store_that_is_not_to_be_relied_on_is_refused(serve: Serve, server: Running, tmp_path: Path) -> None:
    url = f"unix://{server.data}/valkey.sock"
    status, said = serve("--port", "0", "--data", str(tmp_path), "--redis", url, "--partitions", "8", "--workers", "2")
    assert (status, "Traceback" in said) == (3, False), said
    assert "expected 16 partitions" in said


def test_a_store_that_a_newer_version_made_is_refused(serve: Serve, server: Running, tmp_path: Path) -> None:
    url = f"unix://{server.data}/valkey.sock"
    with redis.Redis.from_url(url, decode_responses=True) as store:
        own = str(store.get("pushserver:format"))
        store.set("pushserver:format", "2.1")
        status, said = serve("--port", "0", "--data", str(tmp_path), "--redis", url)
        store.set("pushserver:format", own)
    assert (status, "Traceback" in said) == (3, False), said
    assert "expected a store of format 1, got 2.1" in said
    assert "upgrade this server, or use another store" in said


def test_servers_that_share_a_store_need_a_key_that_they_share_and_take_the_keys_in_it(
    serve: Serve, start: Start, tmp_path: Path, stream: str
) -> None:
    first = start()
    url = f"unix://{first.data}/valkey.sock"
    make_local_key(tmp_path / "one")  # of the folder alone: another server would not know it
    status, said = serve("--port", "0", "--data", str(tmp_path / "one"), "--redis", url)
    assert (status, "Traceback" in said) == (3, False), said
    assert "PUSHSERVER_KEY" in said
    assert "pushserver keys create NAME --redis URL" in said
    expired_key(first, "2020-01-01T00:00:00.000Z")
    expired, said = serve("--port", "0", "--data", str(tmp_path / "two"), "--redis", url)
    assert (expired, "PUSHSERVER_KEY" in said) == (3, True)
    key = create_key(first)
    second = start("--redis", url, name="two", env={"PUSHSERVER_KEY": ""})
    assert "one of `pushserver keys`" in second.greeting
    assert not (second.data / "publish.key").exists()
    for server, sent, status in ((first, key, 201), (second, key, 201), (second, first.key, 401)):
        headers = {"Authorization": f"Bearer {sent}", "Content-Type": "application/json"}
        answer = server.http.post(f"/streams/{stream}/entries", content=b'{"headline": "One"}', headers=headers)
        assert answer.status_code == status, answer.text
    second.process.send_signal(signal.SIGINT)  # Ctrl-C
    second.close()
    assert second.process.returncode == 0


# --- under a process manager, on a store of the platform's


async def test_a_worker_that_is_replaced_while_the_store_is_away_does_not_end_the_server(
    start: Start, tmp_path: Path, stream: str
) -> None:
    port = free_port()
    options = ("--appendonly", "yes", "--requirepass", "hunter2")
    async with AsyncExitStack() as stack:
        store = ExitStack()
        stack.push(store)
        url = store.enter_context(redis_server(tmp_path, *options, port=port, password="hunter2"))
        server = start("--workers", "2", "--redis", url)
        cursor = server.publish_ok(stream, "one")["cursor"]
        socket = await stack.enter_async_context(reader(server, stream, cursor=cursor))
        survivor = worker_of(server, socket)
        (victim,) = {*workers_of(server)} - {survivor}
        store.close()
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: len({*workers_of(server)} - {victim, survivor}) == 1)
        (replacement,) = {*workers_of(server)} - {victim, survivor}
        await eventually(lambda: not is_alive(replacement) or "the store does not answer yet" in server.log)
        store.enter_context(redis_server(tmp_path, *options, port=port, password="hunter2"))
        await eventually(lambda: server.process.poll() is not None or is_ready(server.url))
        assert server.process.poll() is None, server.log
        await eventually(lambda: len(workers_of(server)) == 2)
        assert survivor in workers_of(server)
        publish_surely(server, stream, LAST)
        async with asyncio.timeout(LIMIT):
            assert await read_to_last(socket) == [2]
        assert server.stop() == 0
    assert "settings:" in server.log
    assert "hunter2" not in server.log + server.greeting, "the password of the store"


@contextmanager
def redis_server(folder: Path, *options: str, port: int = 0, password: str = "") -> Iterator[str]:
    """The URL of a Redis that Debian ships, on a free port; it has ended at the end."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = port or free_port()
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with (folder / "redis.log").open("wb") as output:
        process = subprocess.Popen([program, *own, *options], stdout=output, stderr=output)
    try:
        with redis.Redis(port=port, password=password or None) as store:
            while not answers(store):
                assert process.poll() is None, (folder / "redis.log").read_text()
        yield f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def answers(store: redis.Redis) -> bool:
    try:
        return bool(store.ping())
    except redis.ConnectionError:
        return False


@asynccontextmanager
async def honcho(folder: Path, redis_url: str) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """The Procfile under honcho, once it is ready, and its URL; it has ended at the end."""
    port = free_port()
    env = {
        **clean_environment(),
        "PATH": os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]]),
        "PORT": str(port),
        "REDIS_URL": redis_url,
        "PUSHSERVER_KEY": KEY,
        "PUSHSERVER_DATA": str(folder / "data"),
        "PUSHSERVER_DRAIN_DELAY": "0",  # honcho kills after 5 s
    }
    with (folder / "honcho.log").open("wb") as output:
        command = [sys.executable, "-m", "honcho", "start", "-f", "Procfile"]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        await eventually(lambda: is_ready(url) or process.poll() is not None)
        assert process.poll() is None, (folder / "honcho.log").read_text()
        yield process, url
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def descendants(pid: int) -> list[int]:
    pids = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += [int(child), *descendants(int(child))]
    return pids


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        (("--appendonly", "no"), "memory"),
        pytest.param(("--appendonly", "yes", "--appendfsync", "always"), "disk", marks=pytest.mark.full),
    ],
)
async def test_the_procfile_runs_on_what_the_platform_gives(
    tmp_path: Path, stream: str, options: tuple[str, ...], durability: str
) -> None:
    with redis_server(tmp_path, *options) as redis_url:
        async with honcho(tmp_path, redis_url) as (manager, url):
            with Publisher(url, KEY) as publisher:
                first = await asyncio.to_thread(publisher.publish, stream, {"headline": "one"})
                assert (first["n"], first["durability"]) == (1, durability)
                reading = asyncio.create_task(follow_to_last(url, stream, first["cursor"]))
                await asyncio.to_thread(publisher.publish, stream, {"headline": "two"})
                await asyncio.to_thread(publisher.publish, stream, {"headline": LAST})
                async with asyncio.timeout(LIMIT):
                    assert await reading == [("entry.put", 2), ("entry.put", 3)]
            assert stores_on(tmp_path / "data") == []
            pids = descendants(manager.pid)
            assert len(pids) >= 2  # the supervisor and a worker
            manager.terminate()
            await asyncio.to_thread(manager.wait, STOP_LIMIT)
            await eventually(lambda: not any(map(is_alive, pids)))
            said = (tmp_path / "honcho.log").read_text()
            assert "SIGKILL" not in said
            assert "Traceback" not in said
            with redis.Redis.from_url(redis_url) as store:
                assert store.ping()
