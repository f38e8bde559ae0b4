"""The state machine of a subscription: each transition, then seeded schedules, in Python and in JavaScript alike."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pushserver.client.subscription import (
    ENDED,
    FINAL_CODES,
    REASONS,
    TOKEN_EXPIRED,
    Action,
    Reason,
    State,
    Subscription,
    Transport,
)
from pushserver.wire.codes import Close

from ..support.judge import CHROMIUM, browser
from ..support.schedules import Schedule
from ..support.server import ROOT, Running

SEEDS, STEPS = 200, 300
REPLAY = """async (schedules) => {
    const { Subscription } = await import("/static/subscription.js");
    const differences = [];
    for (const [seed, calls] of JSON.parse(schedules)) {
        const subscription = new Subscription();
        for (const [number, [name, args, expected]] of calls.entries()) {
            let action = "nothing";
            if (name === "hide") [subscription.hidden] = args;
            else action = subscription[name](...args);
            const { state, n, cursor, due, stale, buffered, expired, reason, asks, transport, eventsUntil: until } =
                subscription;
            const came = [action, state, n, cursor, due, stale, buffered, expired, reason, asks, transport, until];
            if (JSON.stringify(came) === JSON.stringify(expected)) continue;
            differences.push({ seed, number, name, args, expected, came });
            break;
        }
    }
    return differences;
}"""


def event(n: int, prev: int | None = None) -> dict[str, Any]:
    return {"type": "entry.put", "n": n, "cursor": f"c{n}", "prev": f"c{n - 1 if prev is None else prev}"}


def head(n: int, cursor: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "head", "head": {"n": n, "cursor": cursor or f"c{n}"}, **fields}


def hello(start: int, *, newest: int = 0, complete: bool = True) -> dict[str, Any]:
    return {**head(newest or start), "type": "hello", "complete": complete, "from": start, "heartbeat": 10}


BYE = {"type": "bye", "retry_ms": 3000}
SNAPSHOT = {"type": "snapshot", "n": 2, "cursor": "x2"}
RESET = {"type": "reset"}


def connecting(n: int = 4) -> Subscription:
    subscription = Subscription(f"c{n}")
    assert subscription.wake(0, 0) is Action.CONNECT
    return subscription


def live(n: int = 4) -> Subscription:
    subscription = connecting(n)
    subscription.take(hello(n), 0, 0)
    assert subscription.state is State.LIVE
    return subscription


def failed(times: int) -> Subscription:
    """One that has failed so often, and tries again."""
    subscription = connecting()
    for _ in range(times):
        subscription.closed(1006, 0, 0)
        assert subscription.tick(0, 0) is Action.CONNECT
    return subscription


# --- frames


def test_the_next_event_is_applied() -> None:
    subscription = live(4)
    assert subscription.take(event(5), 1, 0) is Action.APPLY
    assert (subscription.n, subscription.cursor, subscription.state) == (5, "c5", State.LIVE)


@pytest.mark.parametrize(
    ("frame", "action", "state"),
    [
        (event(4), Action.NOTHING, State.LIVE),
        (event(1), Action.NOTHING, State.LIVE),
        ({**event(4), "cursor": "another"}, Action.LEAVE, State.WAITING),
        (event(6), Action.LEAVE, State.WAITING),
        (event(5, prev=3), Action.LEAVE, State.WAITING),
        (head(4), Action.NOTHING, State.LIVE),
        (head(3), Action.NOTHING, State.LIVE),
        (head(4, "another"), Action.LEAVE, State.WAITING),
        (head(5), Action.NOTHING, State.BEHIND),
        (BYE, Action.LEAVE, State.WAITING),
        (hello(4), Action.LEAVE, State.WAITING),
        (SNAPSHOT, Action.LEAVE, State.WAITING),
        (RESET, Action.APPLY, State.BEHIND),
        ({"type": "of a later version"}, Action.NOTHING, State.LIVE),
    ],
)
def test_nothing_else_moves_it(frame: dict[str, Any], action: Action, state: State) -> None:
    subscription = live(4)
    assert subscription.take(frame, 1, 0) is action
    assert (subscription.n, subscription.cursor, subscription.state) == (4, "c4", state)


@pytest.mark.parametrize("frame", [event(5), head(4), SNAPSHOT, RESET])
def test_nothing_counts_before_hello(frame: dict[str, Any]) -> None:
    assert connecting(4).take(frame, 1, 0) is Action.LEAVE


@pytest.mark.parametrize("announcement", [hello(4, complete=False), RESET])
@pytest.mark.parametrize("frame", [event(4), event(5), head(4)])
def test_an_announced_snapshot_comes_before_anything_else(announcement: dict[str, Any], frame: dict[str, Any]) -> None:
    subscription = connecting(4) if announcement["type"] == "hello" else live(4)
    subscription.take(announcement, 1, 0)
    assert subscription.state is State.BEHIND
    assert subscription.take(frame, 1, 0) is Action.LEAVE


def test_an_announced_snapshot_moves_it_wherever_it_was() -> None:
    subscription = live(4)
    subscription.take(RESET, 1, 0)
    assert subscription.take(SNAPSHOT, 1, 0) is Action.APPLY
    assert (subscription.n, subscription.cursor, subscription.state) == (2, "x2", State.LIVE)


def test_it_is_behind_until_it_has_what_the_server_has() -> None:
    subscription = connecting(4)
    subscription.take(hello(4, newest=6), 0, 0)
    assert subscription.state is State.BEHIND
    states = []
    for n in (5, 6):
        subscription.take(event(n), 20 * n, 0)
        states.append(subscription.state)
    assert states == [State.BEHIND, State.LIVE]


def test_the_end_of_the_coverage_is_the_end() -> None:
    subscription = live(4)
    assert subscription.take({**event(5), "type": "stream.end"}, 1, 0) is Action.APPLY
    assert (subscription.state, subscription.due) == (State.ENDED, None)
    assert subscription.wake(2, 0) is Action.NOTHING


def test_what_the_server_says_of_its_store_is_kept_until_it_says_otherwise() -> None:
    subscription = live(4)
    subscription.take(head(4, stale="2026-03-02T12:00:00.000Z"), 1, 0)
    assert (subscription.stale, subscription.state) == ("2026-03-02T12:00:00.000Z", State.LIVE)
    subscription.take(head(4), 2, 0)
    assert subscription.stale is None


# --- time


def test_no_first_frame_for_four_seconds_is_a_failure_and_then_it_waits_longer() -> None:
    subscription = connecting()
    assert subscription.tick(3.9, 0) is Action.NOTHING
    assert (subscription.tick(4, 0), subscription.asks) == (Action.LEAVE, True)
    assert subscription.tick(4, 0) is Action.CONNECT
    assert subscription.due == 4 + 8


def test_silence_is_a_failure() -> None:
    subscription = live()
    subscription.take({"type": "of a later version"}, 10, 0)
    assert subscription.tick(10 + 24.9, 0) is Action.NOTHING
    assert (subscription.tick(10 + 25, 0), subscription.asks) == (Action.LEAVE, False)


def test_a_head_that_stays_ahead_is_a_failure_unless_something_comes() -> None:
    subscription = live(4)
    subscription.take(head(6), 10, 0)
    assert subscription.due == 15
    subscription.take(event(5), 14, 0)
    assert subscription.due == 19
    subscription.take(event(6), 18, 0)
    assert subscription.due == 18 + 25
    subscription.take(head(7), 20, 0)
    subscription.take(head(8), 24, 0)
    assert subscription.tick(25, 0) is Action.LEAVE


@pytest.mark.parametrize(("failures", "most"), [(0, 0.5), (1, 1), (3, 4), (6, 20), (5000, 20)])
def test_the_wait_is_drawn_from_a_range_that_doubles(failures: int, most: float) -> None:
    subscription = failed(failures)
    subscription.closed(1006, 0, 0.75)
    assert subscription.due == 0.75 * most


@pytest.mark.parametrize(("seconds", "most"), [(30, 8), (30.1, 0.5)])
def test_after_thirty_seconds_live_the_next_failure_counts_as_the_first(seconds: float, most: float) -> None:
    subscription = failed(4)
    subscription.take(hello(4), 0, 0)
    subscription.closed(1006, seconds, 0.5)
    assert subscription.due == seconds + 0.5 * most


@pytest.mark.parametrize(("failures", "most"), [(0, 3), (3, 4)])
def test_a_bye_says_over_how_long_to_come_back_unless_it_is_one_of_many(failures: int, most: float) -> None:
    subscription = failed(failures)
    subscription.take(hello(4), 0, 0)
    subscription.take(BYE, 0, 0.5)
    assert subscription.due == 0.5 * most
    assert not subscription.asks


def test_retry_after_is_waited_for_also_by_one_who_is_woken() -> None:
    subscription = connecting()
    subscription.closed(1006, 0, 0.5)
    subscription.answered(503, 7, 0, 0)
    assert subscription.due == 7.25
    assert subscription.wake(6, 0) is Action.NOTHING
    assert subscription.due == 7
    assert subscription.tick(7, 0) is Action.CONNECT


@pytest.mark.parametrize("code", [1008, 1009, 4400, 4403, 4404, 4407, 4410])
def test_a_final_code_is_final(code: int) -> None:
    subscription = live()
    subscription.closed(code, 1, 0)
    assert (subscription.state, subscription.due) == (State.ENDED, None)
    assert subscription.wake(2, 0) is Action.NOTHING


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013, 4408, 4429])
def test_after_any_other_it_comes_back(code: int) -> None:
    subscription = live()
    assert subscription.closed(code, 1, 0) is Action.LEAVE
    assert subscription.tick(1, 0) is Action.CONNECT


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (204, Reason.OVER),
        (400, Reason.REFUSED),
        (403, Reason.REFUSED),
        (404, Reason.UNKNOWN),
        (410, Reason.DELETED),
        (422, Reason.REFUSED),
    ],
)
def test_a_refusal_is_final_and_says_why(status: int, reason: Reason) -> None:
    subscription = connecting()
    subscription.closed(1006, 0, 0)
    subscription.answered(status, 0, 0, 0)
    assert (subscription.state, subscription.expired, subscription.reason) == (State.ENDED, False, reason)
    assert subscription.wake(1, 0) is Action.NOTHING


def test_the_end_and_a_final_code_say_why() -> None:
    over, gone, refused, deleted = live(4), live(4), live(4), live(4)
    over.take({**event(5), "type": "stream.end"}, 1, 0)
    gone.closed(4404, 1, 0)
    refused.closed(1008, 1, 0)
    deleted.take({**BYE, "reason": "deleted"}, 1, 0)
    reasons = [subscription.reason for subscription in (over, gone, refused, deleted)]
    assert reasons == [Reason.OVER, Reason.UNKNOWN, Reason.REFUSED, Reason.DELETED]
    assert (deleted.state, deleted.due) == (State.ENDED, None)
    assert deleted.wake(100, 0) is Action.NOTHING


def test_one_whose_token_has_expired_tries_again_when_it_is_woken() -> None:
    by_code, by_status = live(), connecting()
    by_code.closed(4401, 1, 0)
    by_status.closed(1006, 1, 0)
    by_status.answered(401, 0, 1, 0)
    for subscription in (by_code, by_status):
        assert (subscription.state, subscription.expired, subscription.due) == (State.ENDED, True, None)
        assert subscription.wake(2, 0) is Action.CONNECT


def test_what_is_put_away_comes_back_when_it_is_woken_alone() -> None:
    subscription = live()
    assert subscription.close() is Action.LEAVE
    assert (subscription.state, subscription.due) == (State.WAITING, None)
    assert subscription.wake(100, 0) is Action.CONNECT


def test_one_who_slept_through_its_deadline_connects_at_once_when_it_wakes() -> None:
    subscription = live()
    assert subscription.wake(24, 0.9) is Action.NOTHING
    assert subscription.wake(500, 0.9) is Action.CONNECT


def test_nobody_looks_and_it_tries_once_a_minute() -> None:
    subscription = connecting()
    subscription.hidden = True
    subscription.closed(1006, 1, 0)
    assert subscription.tick(1, 0) is Action.NOTHING
    assert subscription.wake(2, 0) is Action.NOTHING
    assert subscription.due == 60
    subscription.hidden = False
    assert subscription.wake(3, 0) is Action.CONNECT


# --- close codes


def test_the_close_codes_are_those_of_the_server_here_and_in_javascript() -> None:
    source = (ROOT / "static" / "subscription.js").read_text()
    (listed,) = re.findall(r"^const FINAL_CODES = \[([\d, ]+)\];$", source, re.MULTILINE)
    (reasons,) = re.findall(r"^const REASONS = {(.*)};$", source, re.MULTILINE)
    assert {int(code) for code in listed.split(", ")} == FINAL_CODES
    named = {int(code): Reason(reason) for code, reason in re.findall(r'(\d+): "(\w+)"', reasons)}
    assert named == REASONS
    assert (TOKEN_EXPIRED, ENDED) == (Close.TOKEN_EXPIRED, Close.ENDED)
    assert {code for code in Close if code in FINAL_CODES} == {code for code in Close if code.is_final}
    reserved = FINAL_CODES - set(Close)  # a server of a later version may send them
    assert all(4400 <= code <= 4407 for code in reserved)


# --- transports


def missed(subscription: Subscription, at: float = 4) -> Action:
    """A try on which nothing comes, after which the server answers all the same."""
    assert subscription.tick(at, 0.5) is Action.LEAVE
    assert subscription.asks
    return subscription.answered(200, 0, at, 0.5)


def test_where_sockets_bring_nothing_and_the_server_answers_events_are_next_at_once_and_remembered() -> None:
    subscription = connecting()
    assert missed(subscription) is Action.CONNECT
    assert (subscription.transport, subscription.events_until) == (Transport.EVENTS, 0)
    assert subscription.due == 8
    subscription.take(hello(4), 5, 0)
    assert subscription.events_until == 605
    again = Subscription(events_until=605)
    again.wake(604, 0)
    assert again.transport is Transport.EVENTS
    later = Subscription(events_until=605)
    later.wake(605, 0)
    assert later.transport is Transport.SOCKET


def test_a_server_that_is_away_pushes_nobody_off_sockets() -> None:
    subscription = connecting()
    for _ in range(9):
        assert subscription.tick(subscription.due or 0, 0) is Action.LEAVE
        assert subscription.tick(subscription.due or 0, 0) is Action.CONNECT
        assert subscription.transport is Transport.SOCKET


def test_sockets_that_worked_are_taken_for_blocked_after_three_misses() -> None:
    subscription, at = live(), 1.0
    subscription.closed(1006, at, 0)
    subscription.tick(at, 0)
    for transport in (Transport.SOCKET, Transport.SOCKET, Transport.EVENTS):
        at = subscription.due or 0
        missed(subscription, at)
        subscription.tick(subscription.due or 0, 0)
        assert subscription.transport is transport


def test_events_that_do_not_come_though_the_server_answers_are_held_back_by_something() -> None:
    subscription = connecting()
    missed(subscription, 4)
    assert missed(subscription, 8) is Action.NOTHING
    assert subscription.buffered
    subscription.tick(9, 0)
    assert (subscription.transport, subscription.due) == (Transport.SOCKET, 17)
    assert missed(subscription, 17) is Action.CONNECT
    subscription.take(hello(4), 18, 0)
    assert subscription.buffered, "a first frame may be all that a full buffer let out"
    subscription.take(head(4), 20, 0)
    assert not subscription.buffered


def test_sockets_that_come_through_are_not_held_back() -> None:
    subscription = connecting()
    missed(subscription, 4)
    missed(subscription, 8)
    subscription.tick(9, 0)
    subscription.take(hello(4), 10, 0)
    assert not subscription.buffered


def test_events_that_stop_are_asked_for() -> None:
    subscription = connecting()
    missed(subscription)
    subscription.take(hello(4), 5, 0)
    subscription.tick(30, 0)
    assert subscription.asks
    subscription.answered(200, 0, 30, 0)
    assert subscription.buffered


# --- schedules


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_no_hole_is_shown_and_in_the_end_all_is_there(seed: int) -> None:
    Schedule(seed).run(STEPS)


def test_the_schedules_go_everywhere() -> None:
    came, roads = set(), set()
    for seed in range(SEEDS):
        schedule = Schedule(seed)
        schedule.run(STEPS)
        came |= {(name, answer[0], answer[1]) for name, _, answer in schedule.calls}
        roads |= {(answer[10], answer[6]) for *_, answer in schedule.calls}
    states = ("connecting", "live", "behind", "waiting", "ended")
    assert {("take", "apply", state) for state in ("live", "behind", "ended")} <= came
    assert {("take", "leave", "waiting"), ("tick", "leave", "waiting"), ("closed", "leave", "ended")} <= came
    assert {("answered", "connect", "connecting"), ("answered", "leave", "ended")} <= came
    assert {("wake", "nothing", state) for state in states} <= came
    assert {("socket", False), ("socket", True), ("events", False), ("events", True)} == roads


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_rule_in_javascript_answers_the_same_schedules_the_same(server: Running) -> None:
    schedules = []
    for seed in range(SEEDS):
        schedule = Schedule(seed)
        schedule.run(STEPS)
        schedules.append([seed, schedule.calls])
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(f"{server.url}/")
        assert (
            page.evaluate(REPLAY, json.dumps(schedules)) == []
        )  # as one text: Playwright takes long over millions of values
