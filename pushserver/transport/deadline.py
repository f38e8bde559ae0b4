"""The time limits of a connection, each of which a deadline enforces.

A connection is in one of these states, and leaves each of them by itself:

    idle      between two requests                         Limits.idle, then it is closed
    head      a request line or its headers are due        Limits.head, then it is cut
    body      the rest of a body is due                    Limits.body, then 408
    answer    the application works                        the application's own limits
    unread    the client takes nothing of the answer       Limits.unread, then it is cut
    closing   the client still sends after the last answer Limits.close, then it is cut
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ..errors import Refused


class Limits(NamedTuple):
    """Limits are the seconds that a connection may be in a state."""

    idle: float = 5.0
    head: float = 10.0
    body: float = 30.0
    handshake: float = 30.0  # for the application to answer a request for a WebSocket
    unread: float = 30.0
    close: float = 5.0


LIMITS = Limits()


class BodyLate(Refused):
    """The body did not come in time (RFC 9110, 15.5.9)."""

    status, title, kind = 408, "Body too late", "body-late"


class Deadline:
    """Deadline is one time limit after the other, on one timer.

    To set and to end it costs next to nothing, as a request does so several times: a timer that runs already, and ends
    before the time limit, stays as it is, and is set again when it ends.
    """

    __slots__ = ("_call", "_over", "_rings_at", "_timer")

    def __init__(self) -> None:
        self._call: Callable[[], object] | None = None
        self._over = 0.0  # seconds on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether a time runs."""
        return self._call is not None

    def set(self, seconds: float, call: Callable[[], object]) -> None:
        """Call the function after so many seconds, in place of what was set before."""
        loop = asyncio.get_running_loop()
        self._call, self._over = call, loop.time() + seconds
        if self._timer is None or self._rings_at > self._over:
            self._start(loop)

    def end(self) -> None:
        """Forget the time limit; a second call changes nothing. The timer stays for the next one."""
        self._call = None

    def close(self) -> None:
        """Forget the time limit and the timer."""
        self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._over
        self._timer = loop.call_at(self._over, self._ring)

    def _ring(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._call is None:
            return
        if loop.time() < self._over:
            self._start(loop)
        else:
            call, self._call = self._call, None
            call()
