"""A subscription is the state of one reader of one stream: it decides what to apply and when to connect again.

A reader applies an event only if the event is the next one and names the last applied one as its predecessor. Anything
else means that something was lost on the way, and the reader connects again with its cursor: the server answers with
all the missing events or with a snapshot.

    WAITING --due, wake--> CONNECTING --hello--> BEHIND <--caught up, head ahead--> LIVE
       ^                       |                   |                                 |
       '--- no first frame, silence, a gap, closed, bye: wait at random, longer each time
                               |                   |                                 |
                               '-- a final code, a refusal, the end, a deletion ----'--> ENDED

The module does no I/O and reads no clock. Each method takes the time in seconds (`at`) and a random number from 0 up
to 1 (`chance`), and returns what to do. The caller, such as `reader.follow`, calls `tick` at `due`, closes its
connection at LEAVE, at CONNECT and in ENDED, and asks the server over HTTP why an attempt failed where `asks` is true.
`static/subscription.js` is the same state machine in JavaScript; `tests/client/test_subscription.py` compares the two.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

DELAY_FIRST, DELAY_MOST = 0.5, 20.0  # seconds, of the full-jitter wait before the next connection
FIRST_FRAME = 4.0  # seconds until the first frame must come; doubled after each failure, up to DELAY_MOST
SILENT_BEATS = 2.5  # heartbeats without a frame, after which the connection counts as dead
BEHIND_LIMIT = 5.0  # seconds that the server's head may be ahead while no event comes
STEADY = 30.0  # seconds live, after which the next failure counts as the first
HIDDEN_LEAST = 60.0  # seconds between two attempts while the page is hidden
PROVEN_MISSES = 3  # failures in a row after which WebSockets that worked once count as blocked
EVENTS_FOR = 600.0  # seconds for which WebSockets count as blocked
# Close codes, a copy of the server's in `wire.codes`, so that the client imports nothing of the server.
NO_CODE = 1006  # RFC 6455, 7.4.1: the connection ended without a close frame
TOKEN_EXPIRED, NO_STREAM, ENDED = 4401, 4404, 4410
FINAL_CODES = frozenset({1008, 1009, *range(4400, 4408), ENDED})  # after these a reader does not connect again


class State(Enum):
    """State is the state of a subscription."""

    CONNECTING = "connecting"
    LIVE = "live"
    BEHIND = "behind"  # connected; the server has events that have not come yet
    WAITING = "waiting"
    ENDED = "ended"  # final; but where the token has expired, `wake` tries again


class Reason(Enum):
    """Reason is why a subscription ended."""

    NONE = ""
    OVER = "over"  # the coverage has ended
    TOKEN = "token"  # it is missing, not valid, or has expired; `wake` tries again
    REFUSED = "refused"
    UNKNOWN = "unknown"  # there is no such stream
    DELETED = "deleted"  # the stream was deleted


# Of the close codes and the HTTP statuses that are final; for any other one it is REFUSED.
REASONS = {
    **dict.fromkeys((204, ENDED), Reason.OVER),
    **dict.fromkeys((401, TOKEN_EXPIRED), Reason.TOKEN),
    **dict.fromkeys((404, NO_STREAM), Reason.UNKNOWN),
    410: Reason.DELETED,
}


class Action(Enum):
    """Action tells the caller what to do."""

    NOTHING = "nothing"
    APPLY = "apply"  # show the frame
    LEAVE = "leave"  # close the connection
    CONNECT = "connect"  # close the connection, and open one with the cursor, by `transport`


class Transport(Enum):
    """Transport is the protocol of a reader's connection."""

    SOCKET = "socket"
    EVENTS = "events"  # Server-Sent Events, where WebSockets do not get through


class Subscription:
    """Subscription is one reader's position in a stream, and the state of its connection.

    `cursor` and `n` are those of the last applied event.
    """

    def __init__(self, cursor: str = "", *, events_until: float = 0.0) -> None:
        self.state = State.WAITING
        self.cursor = cursor
        self.n = 0
        self.due: float | None = None  # when `tick` must be called; None: not at any time
        self.stale: str | None = None  # since when the server has had no contact with the store
        self.buffered = False  # the server answers, but a proxy on the way buffers its events
        self.expired = False  # ended because the token is not valid or has expired
        self.reason = Reason.NONE  # why it ended
        self.hidden = False  # nobody looks at the page; set by the caller
        self.asks = False  # an HTTP request may tell why the last attempt failed
        self.transport = Transport.SOCKET  # of the current or the last connection
        self.events_until = events_until  # WebSockets count as blocked until then; the caller may store it
        self.heartbeat = 15.0
        self._failures = 0
        self._misses = 0  # WebSockets in a row on which nothing came, though the server answers
        self._sockets_work = False
        self._tried_at = float("-inf")
        self._not_before = float("-inf")
        self._live_since: float | None = None
        self._head = 0
        self._ahead_since: float | None = None
        self._owed = False  # a snapshot was announced and has not come yet

    # --- events

    def wake(self, at: float, chance: float) -> Action:
        """Connect now, unless the server asked to wait: at the start, when a page is shown, when the network is up."""
        if self.state is State.WAITING or self.expired:
            self.state, self.expired, self.reason = State.WAITING, False, Reason.NONE
            self.due = max(at, self._not_before)
        elif self.due is not None and at >= self.due:  # the machine slept through the deadline
            self._leave(at, chance)
            self.due = at
        return self.tick(at, chance)

    def tick(self, at: float, chance: float) -> Action:
        """Do what is due at `at`: connect, or give up a connection on which nothing came in time."""
        if self.due is None or at < self.due:
            return Action.NOTHING
        if self.state is not State.WAITING:
            return self._leave(at, chance, asks=self.state is State.CONNECTING or self.transport is Transport.EVENTS)
        if self.hidden and at < self._tried_at + HIDDEN_LEAST:
            self.due = self._tried_at + HIDDEN_LEAST
            return Action.NOTHING
        return self._connect(at)

    def close(self) -> Action:
        """Close the connection, and connect again only at `wake`."""
        if self.state is not State.ENDED:
            self.state = State.WAITING
        self.due, self.asks = None, False
        return Action.LEAVE

    def closed(self, code: int, at: float, chance: float) -> Action:
        """Take note that the connection was closed, with a close code or NO_CODE."""
        if self.state in (State.WAITING, State.ENDED):
            return Action.NOTHING
        if code in FINAL_CODES:
            return self._end(REASONS.get(code, Reason.REFUSED))
        return self._leave(at, chance, asks=self.state is State.CONNECTING)

    def answered(self, status: int, retry_after: float, at: float, chance: float) -> Action:
        """Take note of the HTTP status after a failed attempt: of the handshake, or of the request that `asks`."""
        if self.state is not State.WAITING or self.due is None:
            return Action.NOTHING
        if status == 204 or (400 <= status < 500 and status != 429):
            return self._end(REASONS.get(status, Reason.REFUSED))
        if status >= 400:
            self._not_before = at + retry_after
            self.due += retry_after
        elif self.transport is Transport.EVENTS:
            self.buffered, self.events_until = True, 0.0
        else:
            self._misses += 1
            if self._takes_events(at):
                self._failures -= 1  # the server did not fail
                self.due = at
        return self.tick(at, chance)

    def take(self, frame: dict[str, Any], at: float, chance: float) -> Action:
        """Judge a frame: APPLY it, ignore it, or LEAVE because something is missing before it."""
        if self.state in (State.WAITING, State.ENDED):
            return Action.NOTHING
        kind = frame["type"]
        if kind == "bye":
            if frame.get("reason") == "deleted":
                return self._end(Reason.DELETED)
            return self._leave(at, chance, most=frame["retry_ms"] / 1000)
        if kind == "hello":
            action = self._take_hello(frame, at)
        elif kind == "head":
            action = self._take_head(frame, at)
        elif kind == "snapshot":
            action = self._take_snapshot(frame)
        elif kind == "reset":
            action = self._take_reset()
        else:
            action = (
                self._take_event(frame, at) if "n" in frame else Action.NOTHING
            )  # or a frame of a later protocol version
        if action is Action.LEAVE:
            return self._leave(at, chance)
        self._settle(at)
        return action

    # --- frames; LEAVE where the frame does not follow

    def _take_hello(self, frame: dict[str, Any], at: float) -> Action:
        if self.state is not State.CONNECTING:
            return Action.LEAVE
        if self.transport is Transport.SOCKET:
            self._sockets_work, self.buffered = True, False
        elif self._misses:
            self.events_until = at + EVENTS_FOR
        self._misses = 0
        self.heartbeat = frame["heartbeat"]
        self._head = frame["head"]["n"]
        self._owed = not frame["complete"]
        if frame["complete"]:
            self.n = frame["from"]
        self._live_since = at
        self.state = State.BEHIND
        return Action.NOTHING

    def _take_reset(self) -> Action:
        if self.state is State.CONNECTING:
            return Action.LEAVE
        self._owed = True
        return Action.APPLY

    def _take_snapshot(self, frame: dict[str, Any]) -> Action:
        if not self._owed:
            return Action.LEAVE
        self.n, self.cursor = frame["n"], frame["cursor"]
        self._head, self._ahead_since, self._owed = 0, None, False
        return Action.APPLY

    def _take_head(self, frame: dict[str, Any], at: float) -> Action:
        n, cursor = frame["head"]["n"], frame["head"]["cursor"]
        if self._owed or self.state is State.CONNECTING or (n == self.n and cursor != self.cursor):
            return Action.LEAVE
        self.stale = frame.get("stale")
        self.buffered = False
        self._head = n
        if n <= self.n:
            self._ahead_since = None
        elif self._ahead_since is None:
            self._ahead_since = at
        return Action.NOTHING

    def _take_event(self, frame: dict[str, Any], at: float) -> Action:
        if self._owed or self.state is State.CONNECTING:
            return Action.LEAVE
        n, cursor = frame["n"], frame["cursor"]
        if n <= self.n:
            return Action.LEAVE if n == self.n and cursor != self.cursor else Action.NOTHING
        if n != self.n + 1 or frame["prev"] != self.cursor:
            return Action.LEAVE
        self.n, self.cursor = n, cursor
        if self._ahead_since is not None:
            self._ahead_since = at if n < self._head else None
        if frame["type"] == "stream.end":
            self._end(Reason.OVER)
        return Action.APPLY

    # --- transitions

    def _settle(self, at: float) -> None:
        """Set the state after a frame, and the time by which the next frame must have come."""
        if self.state in (State.CONNECTING, State.ENDED):
            return
        self.state = State.BEHIND if self._owed or self.n < self._head else State.LIVE
        self.due = at + self.heartbeat * SILENT_BEATS
        if self._ahead_since is not None:
            self.due = min(self.due, self._ahead_since + BEHIND_LIMIT)

    def _connect(self, at: float) -> Action:
        self.state = State.CONNECTING
        self.transport = Transport.EVENTS if self._takes_events(at) else Transport.SOCKET
        self._tried_at = at
        self._owed, self._ahead_since, self._live_since = False, None, None
        self.due = at + min(DELAY_MOST, FIRST_FRAME * self._growth())
        return Action.CONNECT

    def _takes_events(self, at: float) -> bool:
        return at < self.events_until or self._misses >= (PROVEN_MISSES if self._sockets_work else 1)

    def _leave(self, at: float, chance: float, *, most: float = 0.0, asks: bool = False) -> Action:
        """Close the connection and wait at random: else all readers of a restarted server come at once."""
        if self._live_since is not None and at - self._live_since > STEADY:
            self._failures = 0
        most = max(most, min(DELAY_MOST, DELAY_FIRST * self._growth()))
        self._failures += 1
        if self.transport is Transport.EVENTS:
            self._misses = 0
        self.asks = asks
        self.state, self.due = State.WAITING, at + chance * most
        return Action.LEAVE

    def _growth(self) -> int:
        return 1 << min(self._failures, 10)

    def _end(self, reason: Reason) -> Action:
        self.state, self.due = State.ENDED, None
        self.asks, self.reason, self.expired = False, reason, reason is Reason.TOKEN
        return Action.LEAVE
