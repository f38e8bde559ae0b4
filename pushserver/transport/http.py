"""A worker's HTTP connections, on uvicorn's protocol: what a client may send, hold and wait for has limits.

deadline.py has its states, and the limit of each.

A client may send requests before it has read the answers (pipelining). They are parsed when those answers have been
taken: until then the bytes wait, a few in the worker and the others in the kernel.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, cast

import httptools
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .. import metrics
from ..access.addresses import AddressPlace
from ..errors import Fault
from ..refusal_response import answer
from .asgi import ABORT
from .connection import Connection
from .deadline import LIMITS, BodyLate, Deadline, Limits
from .door import PLACE, Door, leave
from .exchange import Exchange, Prepare, PreparedAnswer
from .handshake import Handshake
from .head import fault_of, has_body, late_upgrade, locate
from .outlet import Outlet, Unread

HEAD_BYTES = 65_536  # the longest request line and headers
PIPELINED_BYTES = 512  # that are parsed at once: some 16 short requests, which wait while the first is answered
BODY_BYTES = 65_536  # of a body that wait for the application before reading is paused
QUIET = 1.0  # seconds without a request, after which a connection of a worker that stops is closed
LAST_BYTES = 8 * 2**20  # that a client may send after the last answer; they are discarded
NOTHING = memoryview(b"")
LOCAL = ("127.0.0.1", 0)  # the client of a unix socket, in place of none: it is on this machine, as a proxy would be


class HttpProtocol(HttpToolsProtocol, Connection):
    """HttpProtocol is uvicorn's, with limits on what a client sends, leaves unread and is waited for.

    The scope extension `pushserver.abort` lets the application cut the connection of a reader that takes no more of its
    answer. `prepare` is asked for an answer before the application is called.
    """

    def __init__(
        self, *, door: Door, unread: Unread, limits: Limits = LIMITS, prepare: Prepare | None = None, **others: Any
    ) -> None:
        super().__init__(**others)
        self._prepare = prepare
        self._door = door
        self._place: AddressPlace | None = None  # of the connection among those of its address
        self.limits = limits
        self._unread = unread
        self._outlet: Outlet = None  # type: ignore[assignment]  # until the connection is made
        self._reading = Deadline()  # of the state that the client has to end by sending something
        self._unparsed = NOTHING
        self._head_bytes: int | None = 0  # of the head so far; None between the end of a head and the next request
        self._body_left = 0  # bytes of the declared body that are yet to come
        self._receiving: Exchange | None = None  # the request whose body is yet to come
        self._current: Exchange | None = None  # the answer that is due, or was the last one
        self._waiting: deque[Exchange] = deque()  # requests that came before the answer to the one before them
        self._has_waited = False  # the bytes that are being parsed came while an answer was due
        self._is_late = False  # and so did the beginning of the request
        self._is_upgrading = False
        self._is_last = False  # no request after this one is answered
        self._is_ignored = False  # the request that is being parsed comes after the last one
        self._has_ignored = False  # the client sent something that nobody reads
        self._used_at = self.loop.time()  # since when no answer is due
        self._last_bytes: int | None = None  # that the client may still send; None before the last answer was taken

    # --- called by the transport

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.client = self.client or LOCAL
        self._outlet = Outlet(transport, self._unread, self.limits.unread)
        self._reading.set(self.limits.head, self._cut_head)
        self._place = self._door.enter(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        leave(self._place)
        self.connections.discard(self)
        self._reading.close()
        self._outlet.lost()
        self._unread.release(self)
        for due in filter(None, (self._current, *self._waiting)):
            due.disconnect()
        self._current = self._receiving = None
        self._waiting.clear()
        self._unparsed = NOTHING
        self.parser = None  # type: ignore[assignment]  # the two refer to each other

    def data_received(self, data: bytes) -> None:
        if self._last_bytes is None:
            self._has_waited = bool(self._unparsed) or self._is_due()
            self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
            self._read_on()
            return
        self._last_bytes -= len(data)
        if self._last_bytes < 0:
            self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open until an answer that is complete was taken; before that, the client is gone."""
        if self._current is None or not self._current.is_complete or self._outlet.is_taken():
            return False
        self._current.keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._outlet.pause()

    def resume_writing(self) -> None:
        self._outlet.resume()
        if self._current is not None and self._current.is_complete and self._outlet.is_taken():
            self._end_answer()

    # --- called by others

    def shutdown(self) -> None:
        """Close when the answer that is due was taken; uvicorn calls this when the server stops."""
        self._is_last = True
        if self._is_due() and self._current is not None:
            self._current.keep_alive = False
        else:
            self.transport.close()

    def retire(self) -> None:
        # An idle connection stays open: its client may be sending a request this instant, and would lose it.
        if self._current is not None and not self._current.is_complete and not self._waiting:
            self._current.keep_alive = False

    def is_busy(self) -> bool:
        idle = self.transport.is_closing() or self.loop.time() - self._used_at >= QUIET
        return self._is_due() or self._receiving is not None or bool(self._head_bytes) or not idle

    def give_up(self) -> None:
        due = self._receiving or self._current
        if due is None or due.is_complete:
            self.transport.close()
        elif due.is_started:
            self.cut("stopping")
        else:
            self._receiving = due
            self._replace(answer(due.stopped()))

    def cut(self, reason: str) -> None:
        metrics.CUT.inc(reason)
        self.transport.abort()

    def _cut_head(self) -> None:
        self.cut("head")

    # --- reading

    def _is_due(self) -> bool:
        """Whether an answer is due, or was not taken yet."""
        return self._current is not None and not (self._current.is_complete and self._outlet.is_taken())

    def _must_wait(self) -> bool:
        """Whether the client has to read answers, or the application to take a body, before more is parsed."""
        if self._current is not None and self._current is self._receiving and not self._waiting:
            return len(self._current.body) > BODY_BYTES
        return bool(self._waiting) or self._is_due()

    def _read_on(self) -> None:
        """Parse what has come, up to a request that must wait, and read more if nothing is left."""
        while self._unparsed and not self.transport.is_closing():
            if self._is_last and self._receiving is None:
                self._has_ignored = True
                self._unparsed = NOTHING
            elif self._must_wait():
                break
            else:
                self._parse()
        if self._last_bytes is None and self.parser is not None and not self.transport.is_closing():
            self._read_or_pause()
            self._limit_reading()

    def _parse(self) -> None:
        """Parse a piece: as much of a body as there is, little of anything else, since it cannot wait once parsed."""
        data, size = self._unparsed, max(PIPELINED_BYTES, self._body_left)
        piece, self._unparsed = (data, NOTHING) if len(data) <= size else (data[:size], data[size:])
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:  # it says at which byte the parser stopped
            self._unparsed = data[upgrade.args[0] :]
            if self._is_upgrading:
                self._hand_over()
        except httptools.HttpParserError:
            self._replace(PlainTextResponse("This is not a valid HTTP request.\n", 400, {"Connection": "close"}))
        if self._head_bytes is not None:
            self._head_bytes += len(piece)
            if self._head_bytes > HEAD_BYTES:
                self.cut("head")

    def _read_or_pause(self) -> None:
        """Read, also while an answer is due, as nothing else tells that the client has gone; pause once bytes wait."""
        if self._unparsed:
            data = cast(bytes, self._unparsed.obj)
            shared = self._unread.hold(self, data)
            self._unparsed = memoryview(shared)[len(data) - len(self._unparsed) :]
        else:
            self._unread.release(self)
        if self._unparsed or (self._receiving is not None and self._must_wait()):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _limit_reading(self) -> None:
        """Let no time run for a head while the client has to wait, and let it run again afterwards."""
        if self._must_wait():
            if self._receiving is None or self._receiving is not self._current:
                self._reading.end()
        elif self._head_bytes is not None and not self._reading.is_set:
            self._reading.set(self.limits.head, self._cut_head)

    def _hand_over(self) -> None:
        """Give the connection to a handshake."""
        early, self._unparsed = bytes(self._unparsed), NOTHING
        self.connections.discard(self)
        self._reading.close()
        self._unread.release(self)
        self._current = None
        Handshake(self, early, self._place, self.limits.handshake, self.limits.close).begin()
        self.parser = None  # type: ignore[assignment]  # the two refer to each other: a cycle for each reader

    # --- called by the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_ignored = self._is_last
        self._is_late = self._has_waited or self._is_due()
        if self._head_bytes is None and not self._is_ignored:  # else it is the first one: its time runs
            self._reading.set(self.limits.head, self._cut_head)
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        if self._is_ignored:
            return
        self._head_bytes = None
        self._reading.end()
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = self.parser.get_http_version()
        scope["extensions"] = {ABORT: self.transport.abort, PLACE: self._place}
        is_upgrade = self.parser.should_upgrade()
        refused = fault_of(scope, is_upgrade=is_upgrade)
        if is_upgrade and self._should_upgrade():
            refused = refused or (late_upgrade() if self._is_late else None)
            self._is_upgrading = refused is None
        if refused is None:
            locate(scope, self.url, self.root_path)
        if not self._is_upgrading:
            self._begin(answer(refused) if refused else self.app)
        self._has_ignored |= is_upgrade and has_body(scope["headers"])  # the parser does not read such a body

    def on_body(self, body: bytes) -> None:
        if self._is_ignored or self._receiving is None:
            return
        self._body_left = max(0, self._body_left - len(body))
        if not self._receiving.is_complete:
            self._receiving.body += body
            self._receiving.wake()

    def on_message_complete(self) -> None:
        if self._is_ignored or self._receiving is None:
            return
        self._reading.end()
        self._receiving.more_body = False
        self._receiving.wake()
        self._receiving = None

    # --- requests and answers

    def _begin(self, app: ASGIApp) -> None:
        """Let the application answer the request whose head is complete, or let it wait for its turn."""
        scope: Any = self.scope
        is_last = app is not self.app or self._door.is_leaving
        keep_alive = not is_last and scope["http_version"] != "1.0" and self.parser.should_keep_alive()
        self._is_last = not keep_alive or self._is_last
        due = self._new_exchange(app, keep_alive=keep_alive)
        self._receiving = due
        length = dict(self.headers).get(b"content-length", b"0")
        self._body_left = int(length)
        if self._is_due():
            self._waiting.append(due)
        else:
            self._start(due)

    def _new_exchange(self, app: ASGIApp, *, keep_alive: bool) -> Exchange:
        scope: Any = self.scope or {"type": "http", "http_version": "1.1"}
        scope.setdefault("method", "")  # of a head without an end
        return Exchange(
            scope,
            app,
            self._outlet,
            default_headers=self.server_state.default_headers,
            keep_alive=keep_alive,
            expects_continue=self.expect_100_continue and app is self.app and self.scope["http_version"] != "1.0",
            read_on=self._read_on,
            complete=self._completed,
        )

    def _start(self, due: Exchange) -> None:
        self._current = due
        if due is self._receiving:
            self._reading.set(self.limits.body, self._end_body)
        is_read = due.app is self.app and due.scope["method"] in ("GET", "HEAD")
        if not (is_read and self._prepare and self._prepare(due.scope, partial(self._reply, due))):
            self._run(due)

    def _reply(self, due: Exchange, prepared: PreparedAnswer | None) -> None:
        """Answer from memory, or call the application. A request that was refused meanwhile needs neither."""
        if due.is_disconnected:
            return
        if prepared is None:
            self._run(due)
        else:
            due.reply(prepared)

    def _run(self, due: Exchange) -> None:
        task = self.loop.create_task(due.run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _end_body(self) -> None:
        """Refuse a request whose body did not come in time."""
        metrics.CUT.inc("body")
        fault = Fault("body", f"all of it within {self.limits.body:g} s", "less")
        self._replace(answer(BodyLate("The body came too slowly.", fault, headers={"Connection": "close"})))

    def _replace(self, app: ASGIApp) -> None:
        """Answer for the application, whose request cannot be read to its end, and answer nothing after it."""
        self._is_last = self._has_ignored = True
        unfinished, self._receiving = self._receiving, None
        if unfinished is not None:
            unfinished.disconnect()
            if unfinished.is_started:
                self.cut("body")
                return
        due = self._new_exchange(app, keep_alive=False)
        if unfinished is not None and unfinished is not self._current:
            self._waiting.pop()
        if unfinished is not self._current and self._is_due():
            self._waiting.append(due)
        else:
            self._start(due)

    def _completed(self) -> None:
        """Go on, as the application has sent its answer; `resume_writing` does where the client has not taken it."""
        if self._outlet.is_taken():
            self._end_answer()

    def _end_answer(self) -> None:
        """Go on, as the client's kernel or ours has taken an answer: with the next request, or close."""
        due = self._current
        assert due is not None
        self.server_state.total_requests += 1
        self._used_at = self.loop.time()
        if self.transport.is_closing() or self._last_bytes is not None:
            return
        if not due.keep_alive:
            self._close()
        elif self._waiting:
            self._start(self._waiting.popleft())
        else:
            if self._head_bytes is None:
                self._reading.set(self.limits.idle, self.transport.close)
            self._has_waited = True
            self._read_on()

    def _close(self) -> None:
        """Close after the last answer.

        Where the client still sends, the answer is followed by an end alone: to close at once would reset the
        connection, and a client that has not read the answer by then would lose it.
        """
        due = self._current
        if not (self._waiting or self._unparsed or self._has_ignored or (due is not None and due.more_body)):
            self.transport.close()
            return
        self._waiting.clear()
        self._unparsed = NOTHING
        self._unread.release(self)
        self._last_bytes = LAST_BYTES
        self._reading.set(self.limits.close, self.transport.abort)
        self.transport.write_eof()
        self.transport.resume_reading()
