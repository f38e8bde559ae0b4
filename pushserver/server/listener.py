"""Listening sockets: one that the workers inherit, or an address that each of them listens on by itself."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that wait to be accepted
SEND_BUFFER = 131_072  # bytes that the kernel buffers for one reader
PORT_LIMIT = 15.0  # seconds to wait for a port that is in use: workers of a killed server let it go by then
PORT_TRIED_EVERY = 0.1  # seconds
UNACKNOWLEDGED = 5.0  # seconds beyond a reader's patience, after which the kernel closes a connection without ACKs


def listen(address: Any, patience: float, *, shared: bool = False) -> socket.socket:
    """Listen on an address; `shared` with others that share it too (SO_REUSEPORT). Raises OSError where it is in use.

    `patience` is the seconds for which a reader may take nothing.
    """
    listener = socket.create_server(address, family=_family(address), backlog=BACKLOG, reuse_port=shared)
    listener.setblocking(False)
    # Accepted connections inherit these. By default the kernel would buffer megabytes for a reader that takes nothing,
    # and wait a quarter of an hour for one that is gone without a FIN.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BUFFER // 2)
    unacknowledged = patience + UNACKNOWLEDGED
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged * 1000))
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
            logger.warning("waiting for port %s, which is in use, for up to %.0f s", address[1], PORT_LIMIT)
            is_waiting = True
        await asyncio.sleep(PORT_TRIED_EVERY)


def reserve(listener: socket.socket) -> socket.socket:
    """Close a listener and bind its address without listening, for workers that each listen there on their own socket.

    On one socket, the worker that wakes first accepts all that waits: of 1,000 connections at once one worker of two
    had 800. With a socket each, the kernel distributes them. A worker listens once it is ready, and a worker that has
    ended gets no connections.
    """
    with listener:
        address = listener.getsockname()
    reserved = socket.socket(_family(address))
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reserved.family == socket.AF_INET6:
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    reserved.bind(address)
    return reserved


def _family(address: Any) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
