"""A server and a network that do what they can to deceive a client, from a seed. Time is made up.

What is written down of a run, each call of the rule and what came of it, is shown to the rule's other language too.
"""

from __future__ import annotations

import random
from typing import Any

from pushserver.client.subscription import Action, State, Subscription

HEARTBEAT = 15
CODES = [1000, 1006, 1012, 1013, 4408, 4429]
STATUSES = [*[200] * 20, *[429, 503] * 10, 401, 403, 404]
# What happens next: a method of a schedule, the usual more often.
FAULTS = [
    *["_publish", "_deliver", "_deliver"] * 6,
    *["_head", "_wake", "_wake"] * 2,
    *["_drop", "_double", "_swap", "_head_ahead", "_unknown", "_roll_back", "_trim"],
    *["_bye", "_cut", "_end", "_turn_deaf", "_turn_away", "_put_away"],
]


class Schedule:
    """One run: `calls` has what the rule was asked and what it answered and became."""

    def __init__(self, seed: int) -> None:
        self.calls: list[list[Any]] = []
        self.shown: list[str] = []  # cursors: all that the page is made of
        self.at = 0.0
        self._random = random.Random(seed)
        self._subscription = Subscription()
        self._log: list[str] = []  # cursors: the history as the server has it now
        self._chains: dict[str, list[str]] = {}  # of every cursor there ever was: the history up to it
        self._trimmed = 0
        self._cursors = 0
        self._wire: list[dict[str, Any]] | None = None  # what is on its way, while there is a connection
        self._connected_at: float | None = None
        self._deaf = False  # the server answers no connection
        self._announced = False  # a snapshot, to the client
        self._publish()

    def run(self, steps: int) -> None:
        """Break things for so many steps, then none any more: in the end everything must be there."""
        self._call("wake", self.at, 0.5)
        for _ in range(steps):
            self.at += self._random.choice([0, 0, 0, 0.01, 0.01, 0.3, 0.3, 3, 20])
            getattr(self, self._random.choice(FAULTS))()
            self._due()
        self._deaf = False
        self._call("hide", False)
        self._call("wake", self.at, 0.5)
        for _ in range(200):
            self._deliver(1000)
            if self._subscription.state is State.LIVE and self.shown == self._log:
                return
            self.at += 2
            if len(self._log) <= len(self.shown):  # a rollback that was kept secret comes out with the next events
                self._publish()
            self._head()
            self._due()
            if self._subscription.state is State.ENDED:
                self._ended()
                return
        raise AssertionError(f"never whole again: {self._subscription.state}, {len(self.shown)} of {len(self._log)}")

    # --- the client

    def _call(self, name: str, *given: Any) -> None:
        subscription = self._subscription
        if name == "hide":
            (subscription.hidden,) = given
            action = Action.NOTHING
        else:
            action = getattr(subscription, name)(*given)
        self.calls.append([name, given, outcome(action, subscription)])
        if name == "take" and (given[0]["type"] == "reset" or given[0].get("complete") is False):
            self._announced = action is not Action.LEAVE
        if action is Action.APPLY:
            self._show(given[0])
        if action in (Action.LEAVE, Action.CONNECT) or subscription.state is State.ENDED:
            self._wire, self._announced = None, False
        if action is Action.CONNECT:
            self._connect()
        if action is Action.LEAVE and subscription.asks and self._random.random() < 0.7:
            self._call("answered", self._random.choice(STATUSES), 5.0, self.at, self._random.random())

    def _show(self, frame: dict[str, Any]) -> None:
        """The promise: what is shown is a history without a hole, or was told to begin anew."""
        if frame["type"] == "reset":
            return
        cursor = frame["cursor"]
        assert self._announced == (frame["type"] == "snapshot"), "a snapshot is announced, and comes next"
        self._announced = False
        self.shown = list(self._chains[cursor]) if frame["type"] == "snapshot" else [*self.shown, cursor]
        assert self.shown == self._chains[cursor], f"a hole before {cursor}"
        assert (self._subscription.n, self._subscription.cursor) == (len(self.shown), cursor)

    def _due(self) -> None:
        due = self._subscription.due
        if due is not None and due <= self.at:
            self._call("tick", self.at, self._random.random())

    def _ended(self) -> None:
        """It gave up for good: it was told to."""
        name, given, _ = [call for call in self.calls if call[0] in ("closed", "answered", "take")][-1]
        if name == "take":
            assert given[0]["type"] == "stream.end"
        else:
            assert given[0] in (401, 403, 404, 4401, 4410)

    # --- the server

    def _connect(self) -> None:
        if self._subscription.hidden and self._connected_at is not None:
            assert self.at >= self._connected_at + 60, "too often, for one that nobody looks at"
        self._connected_at = self.at
        self._wire = []
        if self._deaf:
            return
        cursor, length = self._subscription.cursor, len(self._log)
        place = len(self._chains.get(cursor, ()))
        whole = self._trimmed < place <= length and self._log[place - 1] == cursor
        hello = {"type": "hello", "head": self._newest(), "from": place if whole else length, "complete": whole}
        self._wire.append({**hello, "heartbeat": HEARTBEAT})
        self._wire += [self._event(n) for n in range(place + 1, length + 1)] if whole else [self._snapshot()]

    def _newest(self) -> dict[str, Any]:
        return {"n": len(self._log), "cursor": self._log[-1]}

    def _snapshot(self) -> dict[str, Any]:
        return {"type": "snapshot", **self._newest()}

    def _event(self, n: int, kind: str = "entry.put") -> dict[str, Any]:
        prev = self._log[n - 2] if n > 1 else ""
        return {"type": kind, "n": n, "cursor": self._log[n - 1], "prev": prev}

    def _send(self, *frames: dict[str, Any]) -> None:
        if self._wire:  # not before hello, nor to the deaf
            self._wire += frames
        elif self._wire is not None and self._subscription.state in (State.LIVE, State.BEHIND):
            self._wire += frames

    def _publish(self, kind: str = "entry.put") -> None:
        self._cursors += 1
        self._log.append(f"c{self._cursors}")
        self._chains[self._log[-1]] = list(self._log)
        self._send(self._event(len(self._log), kind))

    # --- what happens to them

    def _deliver(self, most: int = 6) -> None:
        for _ in range(self._random.randint(1, most)):
            if not self._wire:
                return
            self._call("take", self._wire.pop(0), self.at, self._random.random())

    def _drop(self) -> None:
        if self._wire:
            self._wire.pop(self._random.randrange(len(self._wire)))

    def _double(self) -> None:
        if self._wire:
            place = self._random.randrange(len(self._wire))
            self._wire.insert(self._random.randint(place, len(self._wire)), self._wire[place])

    def _swap(self) -> None:
        if self._wire and len(self._wire) > 1:
            place = self._random.randrange(len(self._wire) - 1)
            self._wire[place : place + 2] = self._wire[place + 1], self._wire[place]

    def _head(self) -> None:
        stale = {"stale": "2026-03-02T12:00:00.000Z"} if self._random.random() < 0.2 else {}
        self._send({"type": "head", "head": self._newest(), **stale})

    def _head_ahead(self) -> None:
        self._send({"type": "head", "head": {"n": len(self._log) + 2, "cursor": "to come"}})

    def _unknown(self) -> None:
        self._send({"type": "of a later version"})

    def _roll_back(self) -> None:
        """The newest events are gone, and others come in their places; now and then without a word."""
        del self._log[self._random.randint(max(1, len(self._log) - 3), len(self._log)) :]
        self._trimmed = min(self._trimmed, len(self._log) - 1)
        self._cursors += 1
        self._log[-1] = f"c{self._cursors}"
        self._chains[self._log[-1]] = list(self._log)
        if self._random.random() < 0.6:
            self._send({"type": "reset"}, self._snapshot())

    def _trim(self) -> None:
        self._trimmed = self._random.randrange(len(self._log))

    def _bye(self) -> None:
        self._send({"type": "bye", "retry_ms": 1000})

    def _cut(self) -> None:
        final = [4410, 4401] if self._random.random() < 0.03 else CODES
        if self._wire is not None:
            self._call("closed", self._random.choice(final), self.at, self._random.random())

    def _end(self) -> None:
        if self._random.random() < 0.05:
            self._publish("stream.end")

    def _turn_deaf(self) -> None:
        self._deaf = self._random.random() < 0.3

    def _turn_away(self) -> None:
        self._call("hide", not self._subscription.hidden)
        if not self._subscription.hidden:
            self._wake()

    def _wake(self) -> None:
        self._call("wake", self.at, self._random.random())

    def _put_away(self) -> None:
        self._call("close")


def outcome(action: Action, subscription: Subscription) -> list[Any]:
    """What the rule says and is after a call, as JSON has it."""
    said = [
        action.value,
        subscription.state.value,
        subscription.n,
        subscription.cursor,
        subscription.due,
        subscription.stale,
    ]
    return [
        *said,
        subscription.buffered,
        subscription.expired,
        subscription.reason.value,
        subscription.asks,
        subscription.transport.value,
        subscription.events_until,
    ]
