from __future__ import annotations

import asyncio
import errno
import json
import os
import socket as sockets
from collections import Counter
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from pushserver.server.listener import (
    SEND_BUFFER,
    Listeners,
    accept_rest,
    listen,
    listen_when_free,
    passed,
    refuse,
    reserve,
)

from ..support.processes import Start, eventually, workers_of
from ..support.server import clients_of

pytestmark = pytest.mark.anyio

MANY = 2_000  # connections
LISTENING = 0  # where /proc has the port at the other end of a connection


def test_the_kernel_keeps_little_for_a_reader_and_not_for_long() -> None:
    with listen(("127.0.0.1", 0), 30.0) as listener, sockets.create_connection(listener.getsockname()):
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            # Linux doubles what it is asked for, to have room for its own.
            assert connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF) == 2 * SEND_BUFFER
            assert connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT) == 35_000


def test_an_address_that_is_reserved_is_listened_on_by_several_and_taken_for_others() -> None:
    with reserve(listen(("127.0.0.1", 0), 30.0)) as reserved:
        address = reserved.getsockname()
        with pytest.raises(ConnectionRefusedError):
            sockets.create_connection(address)
        with pytest.raises(OSError, match="in use"):
            listen(address, 30.0)
        with listen(address, 30.0, shared=True), listen(address, 30.0, shared=True):
            sockets.create_connection(address).close()
            with pytest.raises(OSError, match="in use") as taken:
                listen(address, 30.0)
    assert taken.value.errno == errno.EADDRINUSE


async def test_a_port_that_is_in_use_is_waited_for_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with listen(("127.0.0.1", 0), 30.0) as other:
        address = other.getsockname()
        waiting = asyncio.create_task(listen_when_free(address, 30.0, asyncio.Event()))
        await eventually(lambda: "waiting for port" in caplog.text)
        assert not waiting.done()
    with await waiting as listener:
        assert listener.getsockname() == address
    assert caplog.text.count(f"waiting for port {address[1]}, which is in use, for up to 15 s") == 1


async def test_a_port_that_stays_in_use_is_given_up_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.server.listener.PORT_LIMIT", 0.2)
    with listen(("127.0.0.1", 0), 30.0) as other, pytest.raises(OSError, match="in use"):
        await listen_when_free(other.getsockname(), 30.0, asyncio.Event())


async def test_a_server_that_is_stopped_while_it_waits_for_its_port_ends() -> None:
    stop = asyncio.Event()
    stop.set()
    with listen(("127.0.0.1", 0), 30.0) as other, pytest.raises(OSError, match="in use"):
        await listen_when_free(other.getsockname(), 30.0, stop)


async def test_an_address_that_this_machine_does_not_have_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="assign"):
        await listen_when_free(("192.0.2.1", 0), 30.0, asyncio.Event())
    assert "waiting" not in caplog.text


def test_an_ipv6_address_is_reserved_for_ipv6_alone() -> None:
    try:
        listener = listen(("::1", 0), 30.0)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with reserve(listener) as reserved:
        assert reserved.family == sockets.AF_INET6
        assert reserved.getsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY) == 1


def test_a_listener_that_refuses_has_what_came_before_and_says_at_once_that_nobody_listens() -> None:
    with listen(("127.0.0.1", 0), 30.0) as listener:
        address = listener.getsockname()
        with sockets.create_connection(address) as early:
            refuse(listener)
            with pytest.raises(ConnectionRefusedError):
                sockets.create_connection(address)
            (accepted,) = accept_rest(listener)
            with accepted:
                assert accepted.getpeername() == early.getsockname()
                early.sendall(b"x")
                accepted.setblocking(True)
                assert accepted.recv(1) == b"x"
            assert accept_rest(listener) == []


def test_an_old_kernel_drops_the_first_packet_of_a_connection_until_the_listener_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pushserver.server.listener.NO_DEVICE", -1)  # refused, as by a kernel before 5.7
    with listen(("127.0.0.1", 0), 30.0) as listener:
        address = listener.getsockname()
        with sockets.create_connection(address), sockets.socket() as late:
            refuse(listener)
            late.setblocking(False)
            assert late.connect_ex(address) == errno.EINPROGRESS
            (accepted,) = accept_rest(listener)
            accepted.close()
            listener.shutdown(sockets.SHUT_RDWR)
            with pytest.raises(ConnectionRefusedError):
                sockets.create_connection(address)  # of this very client, once its first packet was dropped


def test_each_place_has_a_listener_and_the_address_stays_when_all_are_closed() -> None:
    with closing(Listeners(listen(("127.0.0.1", 0), 30.0), 30.0)) as listeners:
        with listeners.open(), listeners.open():
            sockets.create_connection(listeners.address).close()
        with pytest.raises(ConnectionRefusedError):
            sockets.create_connection(listeners.address)
        with pytest.raises(OSError, match="in use"):
            sockets.create_server(listeners.address)
        with listeners.open():
            sockets.create_connection(listeners.address).close()


def test_a_unix_socket_is_for_its_group_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with closing(Listeners(listen(str(path), 30.0), 30.0)) as listeners, listeners.open() as listener:
        assert path.stat().st_mode & 0o777 == 0o660
        with sockets.socket(sockets.AF_UNIX) as early, sockets.socket(sockets.AF_UNIX) as late:
            early.connect(str(path))
            with pytest.raises(OSError, match="in use"):
                listen(str(path), 30.0)
            listeners.refuse(listener)
            with pytest.raises(FileNotFoundError):
                late.connect(str(path))
            accepted = accept_rest(listener)
            assert len(accepted) == 2, "with the one that asked whether somebody listens"
            for connection in accepted:
                connection.close()
        with listen(str(path), 30.0):  # the next server's
            listeners.close()
            assert path.exists()
    path.unlink()
    with closing(Listeners(listen(str(path), 30.0), 30.0)):
        pass
    assert not path.exists()


def test_the_file_of_a_server_that_is_gone_is_replaced_and_no_other_file_is(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with sockets.socket(sockets.AF_UNIX) as gone:
        gone.bind(str(path))
    with listen(str(path), 30.0), sockets.socket(sockets.AF_UNIX) as client:
        client.connect(str(path))
    other = tmp_path / "notes"
    other.write_text("mine")
    with pytest.raises(FileExistsError):
        listen(str(other), 30.0)
    assert other.read_text() == "mine"


def test_a_listener_of_the_service_manager_is_taken_over_with_its_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "pushserver.socket"}
    other = {**variables, "LISTEN_PID": "1", "PATH": "/bin"}
    assert passed(other, 30.0) is None
    assert other == {"PATH": "/bin"}, "they are for another process, and for none of ours"
    with pytest.raises(OSError, match="got 2: the socket unit"):
        passed({**variables, "LISTEN_FDS": "2"}, 30.0)
    its = listen(str(tmp_path / "s"), 30.0)
    monkeypatch.setattr("pushserver.server.listener.PASSED", its.detach())
    with closing(passed(variables, 30.0)) as listener:  # type: ignore[type-var]
        assert listener is not None
        assert listener.getsockname() == str(tmp_path / "s")
        assert not listener.get_inheritable()
    assert variables == {}
    deaf = sockets.socket()
    monkeypatch.setattr("pushserver.server.listener.PASSED", deaf.detach())
    with pytest.raises(OSError, match="does not listen"):
        passed({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, 30.0)


@pytest.mark.parametrize("is_unix", [True, False])
def test_what_comes_to_a_passed_listener_after_a_server_waits_for_the_next_one(tmp_path: Path, is_unix: bool) -> None:
    address = str(tmp_path / "s") if is_unix else ("127.0.0.1", 0)
    with listen(address, 30.0) as manager, sockets.socket(manager.family) as client:
        listeners = Listeners(manager.dup(), 30.0, is_passed=True)
        with listeners.open() as listener:
            listeners.refuse(listener)
        listeners.close()
        client.connect(manager.getsockname())
        listeners = Listeners(manager.dup(), 30.0, is_passed=True)
        with closing(listeners), listeners.open() as listener:
            (accepted,) = accept_rest(listener)
            accepted.close()


async def test_workers_have_as_many_connections_as_each_other_however_many_come_at_once(start: Start) -> None:
    server = start("--workers", "2")
    host, port = server.url.removeprefix("http://").split(":")
    await eventually(lambda: all(LISTENING in clients_of(pid) for pid in workers_of(server)))
    request = f"GET /streams/any/desk/echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.key}\r\n\r\n"
    async with AsyncExitStack() as stack:

        async def worker() -> str:
            """The name of the worker that accepts a connection, which stays open."""
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(request.encode())
            await reader.readuntil(b"\r\n\r\n")
            return str(json.loads(await reader.readline())["worker"])

        accepted = Counter(await asyncio.gather(*(worker() for _ in range(MANY))))
    assert len(accepted) == 2
    shares = [count / MANY for count in accepted.values()]
    # The kernel deals them out by chance: so far from half is more than four standard deviations.
    assert all(0.45 < share < 0.55 for share in shares), shares
