"""Listening sockets: a server's address, and one listener on it for each worker's place.

The supervisor owns the listeners. A worker is sent the one of its place once it is ready, and its successor is sent the
same one: what has been connected by then waits there for whoever accepts next.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..values import unix_path

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that wait to be accepted
SEND_BUFFER = 131_072  # bytes that the kernel buffers for one reader
PORT_LIMIT = 15.0  # seconds to wait for a port that is in use: workers of a killed server let it go by then
PORT_TRIED_EVERY = 0.1  # seconds
UNACKNOWLEDGED = 5.0  # seconds beyond a reader's patience, after which the kernel closes a connection without ACKs
UNIX_MODE = 0o660  # of a unix socket: its owner and its group may connect
# Classic BPF: load the flags of the TCP header; of SYN and ACK, is only SYN set? Then drop the packet, else take it.
NO_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
SO_ATTACH_FILTER, SO_BINDTOIFINDEX = 26, 62  # of Linux; Python has no name for them
NO_DEVICE = 0x7FFFFFFF  # the index of a network device that no machine has
PASSED = 3  # the file descriptor of the first socket that a service manager passes, as in sd_listen_fds(3)
ONE_SOCKET = "the socket unit (pushserver.socket) needs one line ListenStream=, no other Listen…= and no Accept=yes"


def listen(address: Any, patience: float, *, shared: bool = False) -> socket.socket:
    """Listen on an address; `shared` with others that share it too (SO_REUSEPORT). Raises OSError where it is in use.

    `patience` is the seconds for which a reader may take nothing. An address is a host and a port, or a path.
    """
    if isinstance(address, str):
        return _listen_unix(address, patience)
    listener = socket.create_server(address, family=_family(address), backlog=BACKLOG, reuse_port=shared)
    _set_options(listener, patience)
    return listener


def _set_options(listener: socket.socket, patience: float) -> None:
    """Set what the connections of a listener inherit.

    By default the kernel would buffer megabytes for a reader that takes nothing, and wait a quarter of an hour for one
    that is gone without a FIN.
    """
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if listener.family == socket.AF_UNIX:
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BUFFER // 2)
    unacknowledged = patience + UNACKNOWLEDGED
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged * 1000))


def passed(environ: MutableMapping[str, str], patience: float) -> socket.socket | None:
    """The listener that a service manager passes to this process, as systemd does with a socket unit, if it does.

    Its variables are taken away: no child is to believe that they are for it. Raises OSError for what does not listen.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count:
        return None
    if count != "1":
        raise OSError(errno.EINVAL, f"expected one socket of the service manager, got {count}: {ONE_SOCKET}")
    os.set_inheritable(PASSED, False)
    listener = socket.socket(fileno=PASSED)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise OSError(errno.EINVAL, f"the service manager's socket does not listen: {ONE_SOCKET}")
    _set_options(listener, patience)
    return listener


def _listen_unix(path: str, patience: float) -> socket.socket:
    """Listen on a path. The file of a server that is gone is removed; another file, and that of one that answers, not.

    Raises OSError.
    """
    if Path(path).exists():
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket", path)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        _set_options(listener, patience)
        before = os.umask(0o777 & ~UNIX_MODE)  # a moment with another mode would let others in
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def listen_when_free(address: Any, patience: float, stop: asyncio.Event) -> socket.socket:
    """Listen on an address as `listen` does, once nobody else does. Raises OSError after PORT_LIMIT, or at a stop."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    is_waiting = False
    while True:
        try:
            return listen(address, patience)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or loop.time() - begun > PORT_LIMIT or stop.is_set():
                raise
        if not is_waiting:
            name = address if isinstance(address, str) else f"port {address[1]}"
            logger.warning("waiting for %s, which is in use, for up to %.0f s", name, PORT_LIMIT)
            is_waiting = True
        await asyncio.sleep(PORT_TRIED_EVERY)


def reserve(listener: socket.socket) -> socket.socket:
    """Close a listener and bind its address without listening, for listeners that share it. Connections are refused.

    On one socket, the worker that wakes first accepts all that waits: of 1,000 connections at once one worker of two
    had 800. With a socket each, the kernel distributes them.
    """
    with listener:
        address = listener.getsockname()
    reserved = socket.socket(_family(address))
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reserved.family == socket.AF_INET6:
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    reserved.bind(address)
    # The ports of connections that have ended are no obstacle; but no other server can bind the address from now on.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return reserved


class Listeners:
    """Listeners is a server's address: it opens a listener for each place, and has the address until it is closed.

    A unix socket has one listener, which all places share: the kernel has no SO_REUSEPORT for them. So has an address
    of which the service manager passed the listener. What comes after the server's end waits there for the next one.
    """

    def __init__(self, first: socket.socket, patience: float, *, is_passed: bool = False) -> None:
        self.is_unix = first.family == socket.AF_UNIX
        self.is_passed = is_passed
        self.address = first.getsockname()
        self._patience = patience
        self.is_one = self.is_unix or is_passed
        self._reserved = first if self.is_one else reserve(first)
        self._has_file = self.is_unix and not is_passed

    def open(self) -> socket.socket:
        """A listener for a place. Raises OSError."""
        if self.is_one:
            return self._reserved.dup()
        return listen(self.address, self._patience, shared=True)

    def refuse(self, listener: socket.socket) -> None:
        """Refuse new connections to the listener of a place, unless it was passed. What has begun is accepted."""
        if not self.is_one:
            refuse(listener)
        self._remove_file()

    def close(self) -> None:
        """Let the address go."""
        self._reserved.close()
        self._remove_file()

    def _remove_file(self) -> None:
        if self._has_file:  # else the file is of the next server
            self._has_file = False
            with suppress(FileNotFoundError):
                os.unlink(self.address)


def address_of(host: str, port: int) -> Any:
    """The address of these settings: a path, or a host and a port."""
    return unix_path(host) or (host, port)


def refuse(listener: socket.socket) -> None:
    """Have the kernel refuse each new connection; those that have begun, also the handshake, can still be accepted.

    To close a listener would reset those. Bound to a device that is not there it gets no first packet any more, so that
    the kernel says at once that nobody listens.
    """
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_DEVICE)
    except OSError:
        _take_no_more(listener)


def _take_no_more(listener: socket.socket) -> None:
    """Drop the first packet of each new connection, for kernels before 5.7, which let only root bind to a device.

    Its client sends it again after a second, when the port is closed, or another process listens.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in NO_SYN))
    with suppress(OSError):  # a kernel without it: a connection of this very instant may be reset
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(NO_SYN), ctypes.addressof(program))
        )


def accept_rest(listener: socket.socket) -> list[socket.socket]:
    """Accept the connections that wait in a listener."""
    connections = []
    with suppress(OSError):  # none waits any more, or too many files are open
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            connections.append(connection)
    return connections


def _family(address: Any) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
