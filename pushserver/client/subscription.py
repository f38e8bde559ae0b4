"""The reader's side, pure: the rule by which a client knows that it has everything, and when it is to connect again.

An event is applied if it is the next one and names the last one as the one before. Anything else means that something
was lost on the way; the cure is always to connect again with the cursor, which the server answers with all that is
missing, or with a snapshot.

    WAITING --due, wake--> CONNECTING --hello--> BEHIND <--caught up, head ahead--> LIVE
       ^                       |                   |                                 |
       '--- no first frame, silence, a hole, closed, bye: wait at random, longer each time
                               |                   |                                 |
                               '-- a final code, a refusal, the end of the coverage -'--> ENDED

The rule has no clock, no dice and no connection. It is given the time in seconds (`at`) and a number from 0 up to 1
(`chance`), and answers with what to do. Its driver calls `tick` when `due` has come, lets go of its connection at
LEAVE, at CONNECT and in ENDED, and asks the server over HTTP why a try failed, where `asks` says that it may tell.
`static/rule.js` is the same rule in the same words; `tests/test_rule.py` shows both the same schedules.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

DELAY_FIRST, DELAY_MOST = 0.5, 20.0  # seconds, of the full-jitter wait before the next connection
FIRST_FRAME = 4.0  # seconds for the first frame to come; twice that after each failure, up to DELAY_MOST
SILENT_BEATS = 2.5  # heartbeats without a frame, after which the connection is taken for dead
BEHIND_LIMIT = 5.0  # seconds that a head may be ahead while nothing comes
STEADY = 30.0  # seconds live, after which the next failure counts as the first
HIDDEN_LEAST = 60.0  # seconds from try to try, while nobody looks
PROVEN_MISSES = 3  # failures in a row before sockets that worked once are taken for blocked
EVENTS_FOR = 600.0  # seconds for which it is remembered that sockets are blocked
FINAL_CODES = frozenset({1008, 1009, *range(4400, 4408), 4410})  # close codes that mean: do not come back
TOKEN_EXPIRED = 4401


class State(Enum):
    CONNECTING = "connecting"
    LIVE = "live"
    BEHIND = "behind"  # connected; what the server has did not all come yet
    WAITING = "waiting"
    ENDED = "ended"  # nothing comes any more; where the token has expired, a `wake` tries again


class Action(Enum):
    """What to do."""

    NOTHING = "nothing"
    APPLY = "apply"  # show the frame
    LEAVE = "leave"  # let go of the connection
    CONNECT = "connect"  # let go of it, and connect with the cursor, by `transport`


class Transport(Enum):
    SOCKET = "socket"
    EVENTS = "events"  # Server-Sent Events, where sockets are not let through


class Follower:
    """What a reader holds, the cursor and number of the last event it applied, and how it goes on."""

    def __init__(self, cursor: str = "", *, events_until: float = 0.0) -> None:
        self.state = State.WAITING
        self.cursor = cursor
        self.n = 0
        self.due: float | None = None  # when `tick` is to be called; None: when something happens
        self.stale: str | None = None  # since when the server has not heard of the store, as it said last
        self.held = False  # the server answers, but something on the way holds back its events
        self.expired = False  # ended for want of a good token
        self.hidden = False  # nobody looks; set by the driver
        self.asks = False  # a question over HTTP may tell why the last try failed
        self.transport = Transport.SOCKET  # of the connection, or of the last one
        self.events_until = events_until  # sockets are taken for blocked until then; the driver may remember it
        self.heartbeat = 15.0
        self._failures = 0
        self._misses = 0  # tries by socket in a row on which nothing came, though the server answers
        self._sockets_work = False
        self._tried_at = float("-inf")
        self._not_before = float("-inf")
        self._live_since: float | None = None
        self._head = 0
        self._ahead_since: float | None = None
        self._owed = False  # a snapshot was announced

    # --- what happens

    def wake(self, at: float, chance: float) -> Action:
        """Someone looks, the network is back, or it is the beginning: connect now, unless the server asked to wait."""
        if self.state is State.WAITING or self.expired:
            self.state, self.expired = State.WAITING, False
            self.due = max(at, self._not_before)
        elif self.due is not None and at >= self.due:  # it slept through its own deadline
            self._leave(at, chance)
            self.due = at
        return self.tick(at, chance)

    def tick(self, at: float, chance: float) -> Action:
        """What was due is due."""
        if self.due is None or at < self.due:
            return Action.NOTHING
        if self.state is not State.WAITING:
            return self._leave(at, chance, asks=self.state is State.CONNECTING or self.transport is Transport.EVENTS)
        if self.hidden and at < self._tried_at + HIDDEN_LEAST:
            self.due = self._tried_at + HIDDEN_LEAST
            return Action.NOTHING
        return self._connect(at)

    def close(self) -> Action:
        """Put away: let go, and come back by `wake` alone."""
        if self.state is not State.ENDED:
            self.state = State.WAITING
        self.due, self.asks = None, False
        return Action.LEAVE

    def closed(self, code: int, at: float, chance: float) -> Action:
        """The connection is gone: with this close code, or 1006 where there is none."""
        if self.state in (State.WAITING, State.ENDED):
            return Action.NOTHING
        if code in FINAL_CODES:
            return self._end(expired=code == TOKEN_EXPIRED)
        return self._leave(at, chance, asks=self.state is State.CONNECTING)

    def answered(self, status: int, retry_after: float, at: float, chance: float) -> Action:
        """How the server answers over HTTP, after a try that failed: a refused handshake, or the question why."""
        if self.state is not State.WAITING or self.due is None:
            return Action.NOTHING
        if status == 204 or (400 <= status < 500 and status != 429):
            return self._end(expired=status in (401, 403))
        if status >= 400:
            self._not_before = at + retry_after
            self.due += retry_after
        elif self.transport is Transport.EVENTS:
            self.held, self.events_until = True, 0.0
        else:
            self._misses += 1
            if self._takes_events(at):
                self._failures -= 1  # the server did not fail
                self.due = at
        return self.tick(at, chance)

    def take(self, frame: dict[str, Any], at: float, chance: float) -> Action:
        """Judge a frame, and move on where it is applied."""
        if self.state in (State.WAITING, State.ENDED):
            return Action.NOTHING
        kind = frame["type"]
        if kind == "bye":
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
            action = self._take_event(frame, at) if "n" in frame else Action.NOTHING  # or of a later version
        if action is Action.LEAVE:
            return self._leave(at, chance)
        self._settle(at)
        return action

    # --- frames; LEAVE is what does not fit

    def _take_hello(self, frame: dict[str, Any], at: float) -> Action:
        if self.state is not State.CONNECTING:
            return Action.LEAVE
        if self.transport is Transport.SOCKET:
            self._sockets_work, self.held = True, False
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
        self.held = False
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
            self._end()
        return Action.APPLY

    # --- transitions

    def _settle(self, at: float) -> None:
        """After a frame: is this all there is, and when must the next one have come?"""
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
        """Come back after a while: at random, so that many do not come at once."""
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

    def _end(self, *, expired: bool = False) -> Action:
        self.state, self.due = State.ENDED, None
        self.asks, self.expired = False, expired
        return Action.LEAVE
