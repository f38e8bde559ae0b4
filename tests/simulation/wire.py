"""A reader's connection: what a worker wrote and the client has not read yet, in order, each after some time."""

from __future__ import annotations

import asyncio
import json
from asyncio import Event
from collections import deque
from collections.abc import Callable

from websockets import frames
from websockets.exceptions import ConnectionClosedError

from pushserver.live.fanout import Fanout
from pushserver.transport.asgi import AsgiReader
from pushserver.wire.codes import Close
from pushserver.wire.frames import Format
from pushserver.wire.frames import Frame as WireFrame

from ..faults.checker import Frame
from .loop import LATER, Loop

WINDOW = 6  # frames on their way, at most; then the worker waits
ANNOUNCING = ("hello", "reset", "head", "bye")


class Wire:
    """Both ends of one connection. The client's is what the shipped client takes for a socket."""

    def __init__(self, loop: Loop, *, delay: float, lossy: float, heard: Callable[[Frame], None]) -> None:
        self.accepted = Event()  # or refused
        self.refused: int | None = None  # the status of the answer, in place of a connection
        self.left = Event()  # the worker knows that the client has gone
        self._loop = loop
        self._delay = delay  # seconds of a frame on its way, on average
        self._lossy = lossy  # chance that an event is lost, or comes twice
        self._heard = heard
        self._frames: deque[tuple[float, str | int]] = deque()  # when it arrives; a number is a close code
        self._arrives_at = 0.0
        self._is_cut = False
        self._moved = Event()

    # --- the worker's end

    async def send(self, text: str) -> None:
        while len(self._frames) >= WINDOW and not self.left.is_set():
            await self._moved.wait()
        for _ in range(self._times(text)):
            self._put(text)

    def end(self, code: int) -> None:
        self._put(code)

    def abort(self) -> None:
        self.left.set()
        self.cut()

    def refuse(self, status: int) -> None:
        self.refused = status
        self.accepted.set()

    def _times(self, text: str) -> int:
        """How often a frame arrives. What announces something is not lost without the connection."""
        if self._loop.chance.random() >= self._lossy or json.loads(text)["type"] in ANNOUNCING:
            return 1
        return self._loop.chance.choice((0, 2))

    def _put(self, what: str | int) -> None:
        self._arrives_at = max(self._arrives_at, self._loop.time() + self._loop.chance.expovariate(1 / self._delay))
        self._frames.append((self._arrives_at, what))
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = Event()

    # --- between them

    def cut(self) -> None:
        """It is lost, with what is on its way. The client notices now, the worker when `left` is set."""
        self._is_cut = True
        self.accepted.set()
        self._move()

    # --- the client's end

    async def recv(self) -> str:
        """The next frame. Raises ConnectionClosed."""
        while not self._is_cut:
            if not self._frames:
                await self._moved.wait()
            elif (wait := self._frames[0][0] - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            else:
                _, what = self._frames.popleft()
                self._move()
                if isinstance(what, str):
                    self._heard(json.loads(what))
                    return what
                self._is_cut = True
                raise ConnectionClosedError(frames.Close(what, ""), None)
        raise ConnectionClosedError(None, None)

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave. The worker hears of it soon, or, where the network is silent, late."""
        self._is_cut = True
        chance = self._loop.chance
        after = chance.expovariate(1 / self._delay) if chance.random() < 0.9 else chance.uniform(1, 40)
        self._loop.call_later(after, self.left.set, context=LATER)


class WireReader(AsgiReader):
    """The shipped reader of an ASGI server, on a wire."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire, fanout: Fanout) -> None:
        super().__init__(Format.JSON, fanout, wire.abort)
        self._wire = wire

    async def _send(self, frame: WireFrame) -> None:
        await self._wire.send(frame.text(self.format))

    async def _end(self, code: Close) -> None:
        self._wire.end(code)
