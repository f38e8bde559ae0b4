"""An outlet writes the answers of one HTTP connection piece by piece, and a worker bounds what all of them hold.

A client that reads slowly or not at all leaves its answer with the server. The answer then is one body, which equal
answers share, and a position in it; nothing is copied for the client but the piece that is being written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from .. import metrics
from ..wire.frames import PIECE
from .deadline import Deadline


class Holder(Protocol):
    """A Holder keeps bytes for a client, and can be cut."""

    def cut(self, reason: str) -> None:
        """Cut the connection, and count it by this reason."""


class _Shared:
    """Bytes and the number of their holders."""

    __slots__ = ("body", "holders")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.holders = 0


class Unread:
    """Unread is the bytes that a worker's connections hold for their clients, up to a limit. Equal bytes count once.

    Beyond the limit the connection whose client has taken nothing for the longest time is cut. New answers are not
    refused instead: a few clients that read nothing would then keep all others from reading. A single holder may
    exceed the limit, as nobody could read its answer otherwise.
    """

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        self._limit = limit
        self._shared: dict[bytes, _Shared] = {}
        self._holders: dict[Holder, _Shared] = {}  # the one whose client has taken nothing for the longest comes first

    def shared(self, body: bytes) -> bytes:
        """The equal bytes that somebody holds already, or these."""
        if not self._shared:  # the usual case: all clients read, and no body is hashed
            return body
        shared = self._shared.get(body)
        return shared.body if shared else body

    def hold(self, holder: Holder, body: bytes) -> bytes:
        """Count the bytes of a holder whose client has just taken something; return the equal bytes to hold instead."""
        shared = self._shared.setdefault(body, _Shared(body))
        shared.holders += 1
        self.bytes += len(body) if shared.holders == 1 else 0
        self.release(holder)
        self._holders[holder] = shared
        while self.bytes > self._limit and len(self._holders) > 1:
            longest = next(iter(self._holders))
            self.release(longest)
            longest.cut("memory")
        return shared.body

    def release(self, holder: Holder) -> None:
        """Count nothing for a holder any more; a second call changes nothing."""
        shared = self._holders.pop(holder, None)
        if shared is None:
            return
        shared.holders -= 1
        if not shared.holders:
            del self._shared[shared.body]
            self.bytes -= len(shared.body)


class Outlet:
    """Outlet writes to the transport of one HTTP connection, a piece at a time, while the kernel takes it.

    Its protocol calls `pause` and `resume`. A client that takes no piece for `patience` seconds is cut.
    """

    def __init__(self, transport: asyncio.Transport, unread: Unread, patience: float) -> None:
        transport.set_write_buffer_limits(high=0)  # it pauses while it has anything to send
        self._transport = transport
        self._unread = unread
        self._patience = patience
        self._parts: deque[bytes | memoryview] = deque()
        self._body = b""  # the longest of the parts
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = Deadline()

    # --- called by the application's answer

    def write(self, *parts: bytes) -> None:
        """Write the parts, after all that was written before."""
        if self._transport.is_closing():
            return
        body = max(parts, key=len)
        self._body = self._unread.shared(body)
        if self._body is not body:
            parts = tuple(self._body if part is body else part for part in parts)
        if self.is_taken() and sum(map(len, parts)) <= PIECE:
            self._transport.writelines(parts)
        else:
            self._parts.extend(parts)
        self._write_on()

    def is_taken(self) -> bool:
        """Whether the kernel has taken all that was written."""
        return not self._parts and not self._is_paused

    async def taken(self) -> None:
        """Wait until the kernel has taken all that was written, or the connection is lost."""
        if not self.is_taken() and not self._transport.is_closing():
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    # --- called by the protocol

    def pause(self) -> None:
        """Wait, as the kernel did not take everything."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on, as the kernel has taken the last piece."""
        self._is_paused = False
        self._deadline.end()
        self._write_on()

    def lost(self) -> None:
        """Let go of everything: the connection is lost."""
        self._parts.clear()
        self._is_paused = False
        self._release()
        self._deadline.close()

    def cut(self, reason: str) -> None:
        """Cut the connection; what waits to be sent is lost."""
        metrics.CUT.inc(reason)
        self._transport.abort()

    def _cut_unread(self) -> None:
        self.cut("unread")

    # --- writing

    def _write_on(self) -> None:
        while self._parts and not self._is_paused:
            self._transport.writelines(self._piece())
        if self.is_taken():
            self._release()
        else:
            self._unread.hold(self, self._body)
            if not self._deadline.is_set:
                self._deadline.set(self._patience, self._cut_unread)

    def _piece(self) -> list[bytes | memoryview]:
        """The next PIECE bytes, as parts that the transport writes in one call, and does not copy."""
        piece: list[bytes | memoryview] = []
        left = PIECE
        while self._parts and left:
            part = self._parts.popleft()
            if len(part) > left:
                view = memoryview(part)
                self._parts.appendleft(view[left:])
                part = view[:left]
            piece.append(part)
            left -= len(part)
        return piece

    def _release(self) -> None:
        self._body = b""
        self._deadline.end()
        self._unread.release(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None
