"""A server stops and restarts: no connection waits that nobody serves, and none is reset."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import unix_connect
from websockets.typing import Origin

from pushserver.server.listener import listen

from ..support.keys import as_key, create_key
from ..support.processes import Start, eventually, workers_of
from ..support.server import LIMIT, Running, reader, receive, until

pytestmark = pytest.mark.anyio

BODY = b'{"headline": "one"}'
UPGRADE = (
    b"GET /streams/%b/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def raw(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), LIMIT)


def head(server: Running, stream: str, key: str, length: int) -> bytes:
    return (
        f"POST /streams/{stream}/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def read_all(wire: socket.socket) -> bytes:
    return b"".join(iter(lambda: wire.recv(65_536), b""))


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def probe(server: Running) -> str:
    """Connect and ask; return `answered`, or `refused` where the connection did not begin."""
    try:
        with raw(server) as wire:
            wire.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            return "answered" if b" 200 " in read_all(wire) else "silent"
    except ConnectionRefusedError:
        return "refused"


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.full)])
async def test_no_connection_waits_for_a_slow_request_of_a_server_that_stops(
    start: Start, stream: str, workers: str
) -> None:
    server = start("--workers", workers)
    entry = server.publish_ok(stream, "one")
    with ExitStack() as stack:
        slow, late, asking = (stack.enter_context(raw(server)) for _ in range(3))
        slow.sendall(head(server, stream, "slow-1", 100) + BODY[:10])
        late.sendall(head(server, stream, "slow-2", len(BODY)) + BODY[:10])
        asking.sendall(
            f"GET /streams/{stream}/entries/{entry['id']}/delivery?n=99&wait=10 HTTP/1.1\r\n"
            f"Host: x\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode()
        )
        idle = stack.enter_context(raw(server))
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in idle.recv(65_536)
        server.process.terminate()
        await eventually(lambda: "server stopping" in server.log)
        late.sendall(BODY[10:])
        assert status_of(await asyncio.to_thread(read_all, late)) == 201, "an upload that ends in time is stored"
        probes = []
        while server.process.poll() is None:
            probes.append(await asyncio.to_thread(probe, server))
        answers = [await asyncio.to_thread(read_all, wire) for wire in (slow, asking)]
    assert server.process.returncode == 0
    assert "silent" not in probes
    assert probes == sorted(probes), "once refused, none is answered any more, and none was reset"
    assert probes[-1] == "refused"
    assert status_of(answers[0]) == 503
    problem = json.loads(answers[0].partition(b"\r\n\r\n")[2])
    assert "the same Idempotency-Key, slow-1" in problem["detail"]
    assert b"\r\nidempotency-key: slow-1\r\n" in answers[0].lower()
    assert b"\r\nretry-after: 1\r\n" in answers[0].lower()
    assert status_of(answers[1]) == 200


@pytest.mark.parametrize("signals", [pytest.param(1, marks=pytest.mark.full), 2])
async def test_a_handshake_that_is_under_way_when_a_server_stops_is_answered(
    start: Start, stream: str, signals: int
) -> None:
    server = start()
    store = server.store_pid()
    with raw(server) as wire, raw(server) as later:
        os.kill(store, signal.SIGSTOP)
        try:
            wire.sendall(UPGRADE % stream.encode())
            later.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in later.recv(65_536), "the worker has read what came before"
            for _ in range(signals):
                server.process.terminate()
            answer = await asyncio.to_thread(read_all, wire)
        finally:
            os.kill(store, signal.SIGCONT)
        assert status_of(answer) == 503
    server.close()
    assert server.process.returncode == 0
    assert "the drain failed" not in server.log


async def test_a_server_is_not_ready_and_accepts_until_its_balancer_has_noticed(start: Start, stream: str) -> None:
    server = start("--drain-delay", "300")
    cursor = server.publish_ok(stream, "one")["cursor"]
    server.process.terminate()
    await eventually(lambda: server.http.get("/readyz").status_code == 503)
    async with reader(server, stream, cursor=cursor) as late:
        assert (await receive(late))["type"] == "hello"
        assert (server.publish(stream, {"headline": "two"})).status_code == 201
        assert (await receive(late, "entry.put"))["n"] == 2
        server.process.terminate()  # a second signal
        assert (await receive(late, "bye"))["reason"] == "drain"
    server.close()
    assert server.process.returncode == 0


@pytest.mark.full  # `server/test_signals.py` has the order of the signals
async def test_a_third_signal_ends_what_is_left(start: Start, stream: str) -> None:
    server = start("--drain-delay", "300")
    server.publish_ok(stream, "one")
    for logged in ("server stopping", "a second signal", ""):
        server.process.send_signal(signal.SIGINT)
        await eventually(lambda logged=logged: logged in server.log)  # type: ignore[misc]
    server.close()
    assert server.process.returncode in (0, 1)  # 0 where the second one sufficed


@pytest.mark.parametrize(
    ("workers", "number"), [("1", signal.SIGHUP), pytest.param("3", signal.SIGUSR2, marks=pytest.mark.full)]
)
async def test_a_restart_replaces_each_worker_reads_keys_anew_and_no_reader_or_publisher_notices(
    start: Start, stream: str, tmp_path: Path, workers: str, number: signal.Signals
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    private = ("--private", "desk-*", "--token-keys", str(secret), "--token-algorithms", "HS256")
    server = start("--workers", workers, "--drain", "0.5", *private)
    old, old_key, stored_key = workers_of(server), server.key, as_key(create_key(server))
    cursor = server.publish_ok(stream, "one")["cursor"]
    secret.write_text("short")
    server.process.send_signal(number)
    await eventually(lambda: "not restarted, the workers go on as they are" in server.log)
    assert workers_of(server) == old
    secret.write_text("t" * 32)
    (server.data / "publish.key").write_text("pk_another_0123456789abcdef\n")
    async with reader(server, stream, cursor=cursor) as first:
        await receive(first, "hello")
        server.process.send_signal(number)
        published = 1
        while "all workers have been restarted" not in server.log:
            answer = server.publish(stream, {"headline": str(published)}, **stored_key)  # it is not sent again
            assert answer.status_code == 201, answer.text
            published += 1
            assert probe(server) == "answered"
            assert server.http.get("/readyz").status_code == 200
        bye = await receive(first, "bye")
        assert (bye["reason"], 0 < bye["retry_ms"] <= 1_000) == ("drain", True)
    assert len(workers_of(server)) == len(old)
    assert not {*old} & {*workers_of(server)}
    assert server.log.count("ERROR") == 1, "of the file that was too short"
    assert server.publish(stream, {"headline": "x"}, **as_key(old_key)).status_code == 401
    async with reader(server, stream, cursor=cursor) as again:
        assert [(await receive(again, "entry.put"))["n"] for _ in range(1, published)] == [*range(2, published + 1)]
    assert server.publish_ok(stream, "last")["n"] == published + 1
    assert server.stop() == 0


@pytest.mark.full  # it waits for signs of life that do not come
async def test_a_worker_that_hangs_is_replaced(start: Start, stream: str) -> None:
    server = start("--workers", "2", "--hung", "3")
    server.publish_ok(stream, "one")
    victim, other = workers_of(server)
    os.kill(victim, signal.SIGSTOP)
    await eventually(lambda: f"worker {victim} gave no sign of life for 3 s" in server.log)
    await eventually(lambda: len({*workers_of(server)} - {victim, other}) == 1)
    assert other in workers_of(server)


@pytest.mark.full  # `server/test_listener.py` has it of listeners without a server
@pytest.mark.parametrize("is_unix", [True, False])
def test_no_publish_fails_while_a_server_restarts_whose_listener_is_the_service_managers(
    tmp_path: Path, is_unix: bool
) -> None:
    path = tmp_path / "push.sock" if is_unix else None
    statuses: list[int] = []
    over = threading.Event()

    def publish(url: str, key: str) -> None:
        once = {"Authorization": f"Bearer {key}", "Connection": "close"}
        transport = httpx2.HTTPTransport(uds=str(path)) if path else None
        with httpx2.Client(base_url=url, timeout=LIMIT, headers=once, transport=transport) as http:
            while not over.is_set():  # none is sent again
                statuses.append(http.post("/streams/storm/entries", json={"headline": "x"}).status_code)

    with listen(str(path) if path else ("127.0.0.1", 0), 30.0) as listener, ExitStack() as stack:

        def start() -> Running:
            env, passed = {"PASSED": str(listener.fileno())}, (listener.fileno(),)
            module = "tests.support.passing"
            server = Running(tmp_path / "data", "--workers", "2", env=env, module=module, unix=path, passed=passed)
            stack.callback(server.stop)
            return server

        server = start()
        publisher = stack.enter_context(ThreadPoolExecutor()).submit(publish, server.url, server.key)
        stack.callback(over.set)
        until(lambda: len(statuses) > 1)
        assert server.stop() == 0
        again = start()
        assert again.url == server.url
        published = len(statuses)
        until(lambda: publisher.done() or len(statuses) > published + 1)
        over.set()
        publisher.result(LIMIT)
        assert {*statuses} == {201}
        assert again.snapshot("storm")["n"] == len(statuses)
        assert "not on --host and --port" in again.log


def test_a_proxy_on_the_same_machine_comes_over_a_unix_socket(tmp_path: Path, stream: str) -> None:
    path = tmp_path / "push.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))  # the file of a server that was killed
    options = ("--workers", "2", "--drain-window", "300")
    server = Running(tmp_path / "data", "--host", f"unix:{path}", *options, unix=path)
    stubborn = socket.socket(socket.AF_UNIX)
    try:
        assert path.stat().st_mode & 0o777 == 0o660
        server.publish_ok(stream, "one")
        uri, origin = f"ws://live.example/streams/{stream}/ws", Origin("https://live.example")
        proto = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
        with unix_connect(str(path), uri, origin=origin, additional_headers=proto) as reader:
            assert json.loads(reader.recv())["type"] == "hello"
        insecure = Origin("http://live.example")
        with unix_connect(str(path), uri, origin=insecure):
            pass
        with pytest.raises(InvalidStatus, match="403"):  # the page came over https, says the proxy
            unix_connect(str(path), uri, origin=insecure, additional_headers=proto)
        stubborn.connect(str(path))
        stubborn.sendall(UPGRADE % stream.encode())
        assert stubborn.recv(12) == b"HTTP/1.1 101"
        server.process.terminate()
        until(lambda: "server stopping" in server.log)
        assert {server.http.get("/livez").status_code for _ in range(100)} == {200}, "one worker has a reader yet"
    finally:
        assert server.stop() == 0, "the second signal hurries"
        stubborn.close()
    assert not path.exists()
