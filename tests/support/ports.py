"""Ports for the servers that tests start."""

from __future__ import annotations

import socket

CLUSTER_BUS = 10_000  # a node of a cluster listens that much above its port as well


def free_port() -> int:
    """A port of 127.0.0.1 that stays free for a server of this process, as does the one 10,000 above it.

    Sockets that are bound and do not listen reserve both until the process ends: the kernel gives them to no
    connection, and to nobody else who asks for any port. A server that sets SO_REUSEADDR, as servers do, can bind them.
    """
    while True:
        with _bound(0) as first:
            port: int = first.getsockname()[1]
            try:
                _bound(port + CLUSTER_BUS).detach()
            except (OSError, OverflowError):  # it is taken, or beyond the last port
                continue
            first.detach()
            return port


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
    except BaseException:
        bound.close()
        raise
    return bound
