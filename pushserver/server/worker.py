"""A worker: uvicorn on the listener of its place, until it is replaced, a signal stops it or its supervisor is gone."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn

from .. import metrics
from ..codec import dumps
from ..live.drain import BETWEEN, Drain, Phase
from ..live.hub import Hub
from ..settings import Settings
from ..store.condition import SharedCondition
from ..transport.connection import Connection, connections_of
from ..transport.door import Door
from ..transport.http import HttpProtocol
from ..transport.outlet import Unread
from ..web.app import create_app
from ..web.measures import Measures
from .channel import Channel, Word
from .files import file_limit, last_file
from .listener import BACKLOG, accept_rest

logger = logging.getLogger(__name__)

# Thresholds of the cycle collector: new objects before a collection of the youngest generation, such collections before
# one of the middle generation, and those before one of all. A reader makes no cycle, so there is next to nothing
# to collect, while a storm of readers makes many objects: the defaults (700, 10, 10) would cost time for nothing.
COLLECT_AFTER = (20_000, 50, 20)
ALIVE_EVERY = 1.0  # seconds between two signs of life
HANDSHAKES = 0.05  # seconds for connections that have begun to be complete, before a listener is closed
OTHERS = 2.0  # seconds, beyond the end of LEAVING, until new connections are refused: then the supervisor hangs
LAST_ANSWERS = 1.0  # seconds for clients to take the refusals of what did not end in time
UNHEARD = (signal.SIGHUP, signal.SIGUSR2)  # for the supervisor alone, while a manager may send them to all processes


def work(settings: Settings, channel: int, condition: int) -> None:
    """Serve until a signal or the supervisor stops the worker. `channel` and `condition` are file descriptors."""
    last = last_file(file_limit())
    app = create_app(settings, SharedCondition(condition), last_file=last)
    door = Door(app.addresses, last_file=last)
    # uvicorn calls it as it would call the class
    http: Any = partial(HttpProtocol, door=door, unread=Unread(settings.unread_bytes), prepare=app.prepare)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=http,
        ws="websockets-sansio",  # never used: HttpProtocol does the handshake of a WebSocket
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.forwarded,
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )
    drain = Drain(delay=settings.drain_delay, window=settings.drain_window)
    measures = app.measures if settings.metrics_port >= 0 else None
    end = socket.socket(fileno=channel)
    Server(config, hub=app.hub, door=door, drain=drain, channel=end, measures=measures).run()


def spare_collector() -> None:
    """Exclude the program's own objects from the cycle collector, and make it run seldom on all others."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class Server(uvicorn.Server):
    """Server is uvicorn's, with a drain before the shutdown: uvicorn alone would close every reader without a frame.

    It serves while it drains, and exits only afterwards. It reports the `measures` to its supervisor, if there are any.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        hub: Hub,
        door: Door,
        drain: Drain,
        channel: socket.socket,
        measures: Measures | None = None,
    ) -> None:
        super().__init__(config)
        self._measures = measures
        self._hub = hub
        self._door = door
        self._drain = drain
        self._end = channel
        self.servers = []
        self._is_replaced = False
        self._closes = False  # the listener, at the end: nobody else is to accept from it
        self._may_close = asyncio.Event()
        self._listener: socket.socket | None = None  # once the supervisor has sent it
        self._draining: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop alone would let go of them

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT; uvicorn's own handlers would end the process with the signal as its status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_by_itself)
        for number in UNHEARD:
            signal.signal(number, signal.SIG_IGN)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._channel = Channel(self._end, self._hear)
        await super().startup([])  # it listens on nothing yet
        spare_collector()
        self._channel.say(Word.READY)
        self._alive_due = asyncio.get_running_loop().time()
        self._say_alive()

    async def _listen(self, listener: socket.socket) -> None:
        self._listener = listener
        loop, taken = asyncio.get_running_loop(), listener.dup()
        if listener.family == socket.AF_UNIX:
            self.servers = [await loop.create_unix_server(self._connection, sock=taken, backlog=BACKLOG)]
        else:
            self.servers = [await loop.create_server(self._connection, sock=taken, backlog=BACKLOG)]
        if self._drain.phase is not Phase.SERVING and self._is_replaced:
            self._stop_accepting()

    def _connection(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _say_alive(self) -> None:
        self._channel.say(Word.ALIVE)
        loop = asyncio.get_running_loop()
        loop.call_later(ALIVE_EVERY, self._say_alive)
        metrics.LOOP_LATE.observe(max(0.0, loop.time() - self._alive_due))
        self._alive_due = loop.time() + ALIVE_EVERY
        self._report()

    def _report(self) -> None:
        """Send the supervisor what is measured now."""
        if self._measures is not None:
            for phase in Phase:
                metrics.PHASE.set(phase is self._drain.phase, phase.name.lower())
            self._channel.report(dumps(self._measures.take()).encode())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Report for the last time: what was counted since the last summary would be in no total."""
        await super().shutdown(sockets)
        self._report()

    # --- stopping

    def _hear(self, word: Word | None) -> None:
        """Do what the supervisor says."""
        if word is Word.LISTEN and self._channel.listener is not None:
            self._run(self._listen(self._channel.listener))
        elif word is Word.ADOPT and self._channel.listener is not None:
            self._run(self._adopt(self._channel.listener))
        elif word is Word.REPLACED:
            self._hand_over()
            self._begin(is_ready=True)
        elif word in (Word.STOP, Word.STOP_NOW):
            if word is Word.STOP_NOW:
                self._drain.skip_delay()
            self._closes = not self._is_replaced
            self._begin()
        elif word is Word.CLOSE:
            self._may_close.set()
        elif word is Word.HURRY:
            self._drain.hurry(asyncio.get_running_loop().time())
            self._begin()
        elif word is None:
            self._orphaned()

    def _run(self, steps: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(steps)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop_by_itself(self) -> None:
        """Drain as nobody but the manager of the processes or a bug says so; the supervisor learns it."""
        if self._drain.phase is Phase.SERVING:
            self._channel.say(Word.LEAVING)
            self._begin()

    def _orphaned(self) -> None:
        """Stop, since the supervisor is gone. The port is free at once: the next server may be starting already."""
        logger.error("supervisor gone; stopping the worker")
        self._hand_over()
        if self._listener is not None:
            self._listener.close()
        self._begin()

    def _hand_over(self) -> None:
        """Accept no more: what waits in the listener is another process's."""
        self._is_replaced, self._closes = True, False
        self._may_close.set()
        self._drain.skip_delay()
        self._stop_accepting()

    def _begin(self, *, is_ready: bool = False) -> None:
        """Begin to drain; `is_ready` where another worker of the same address serves on."""
        self._hub.draining = self._hub.draining or not is_ready
        if self._draining is None:
            self._drain.begin(asyncio.get_running_loop().time())
            self._draining = asyncio.create_task(self._leave())
            self._draining.add_done_callback(self._left)

    def _left(self, draining: asyncio.Task[None]) -> None:
        self.should_exit = True
        if draining.exception():
            logger.critical("the drain failed", exc_info=draining.exception())

    async def _leave(self) -> None:
        """Go through the phases of the drain."""
        self._retire()
        loop = asyncio.get_running_loop()
        await self._hub.drain(self._drain, admit=self._is_replaced)
        self._channel.say(Word.LEFT)
        if self._closes:
            with suppress(TimeoutError):  # the supervisor hangs, or is of an earlier version and says nothing
                await asyncio.wait_for(self._may_close.wait(), self._drain.leaving_for(loop.time()) + OTHERS)
        self._drain.finish(loop.time())
        await self._close_listener()
        while self._drain.step(loop.time(), requests=self._requests()) is Phase.FINISHING:
            await asyncio.sleep(BETWEEN)
        await self._give_up()

    def _retire(self) -> None:
        self._door.is_leaving = True
        for connection in self._connections():
            connection.retire()

    def _stop_accepting(self) -> None:
        """Accept no more, while the listener stays open: its next worker accepts what waits in it."""
        for server in self.servers:
            server.close()
        self.servers = []

    async def _close_listener(self) -> None:
        """Accept what waits, and close the listener for all processes, unless another worker is to have it."""
        listener = self._listener
        if not self._closes or listener is None:
            self._stop_accepting()
            return
        await asyncio.sleep(HANDSHAKES)
        self._stop_accepting()
        connections = accept_rest(listener)
        if listener.family != socket.AF_UNIX:  # its file is gone, and other workers still accept what waits in it
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        await self._serve_accepted(connections)

    async def _adopt(self, listener: socket.socket) -> None:
        """Accept what waits in the listener of a worker that has died, and close it."""
        with listener:
            await asyncio.sleep(HANDSHAKES)
            connections = accept_rest(listener)  # the kernel gives it new ones until it is closed: at once
        await self._serve_accepted(connections)

    async def _serve_accepted(self, connections: list[socket.socket]) -> None:
        for connection in connections:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)

    def _requests(self) -> int:
        return sum(connection.is_busy() for connection in self._connections())

    async def _give_up(self) -> None:
        """Refuse what is left, and cut the connections that take nothing."""
        for connection in self._connections():
            connection.give_up()
        loop = asyncio.get_running_loop()
        over = loop.time() + LAST_ANSWERS
        while self._connections() and loop.time() < over:
            await asyncio.sleep(BETWEEN)
        for connection in self._connections():
            connection.cut("stopping")

    def _connections(self) -> list[Connection]:
        return connections_of(self.server_state)
