"""A connection is ended by a worker that stops; a request may be under way on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from uvicorn.server import ServerState


class Connection(ABC):
    """Connection is one client connection that a worker ends before it stops: HTTP, or a WebSocket handshake.

    A WebSocket itself is a reader, and leaves with the readers.
    """

    @abstractmethod
    def retire(self) -> None:
        """Let the answer that is due be the last one of the connection; the worker is about to stop."""

    @abstractmethod
    def is_busy(self) -> bool:
        """Whether a request or an answer is under way, or the client may be about to send one."""

    @abstractmethod
    def give_up(self) -> None:
        """Answer the request that is due with a refusal, as the worker stops now; cut an answer that has begun."""

    @abstractmethod
    def cut(self, reason: str) -> None:
        """Cut the connection, and count it by this reason."""


def connections_of(state: ServerState) -> list[Connection]:
    """The connections of a server now. uvicorn's type of them does not name ours."""
    return list(cast(set[Connection], state.connections))
