"""The one rule of a client: each of its lines, then seeded schedules, for its Python and its JavaScript alike."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from pushserver.client.subscription import Action, Follower, State, Transport

from ..support.judge import CHROMIUM, browser
from ..support.schedules import Schedule
from ..support.server import ROOT, Running

SEEDS, STEPS = 200, 300
REPLAY = """async (schedules) => {
    const { Follower } = await import("/static/rule.js");
    const differences = [];
    for (const [seed, calls] of schedules) {
        const follower = new Follower();
        for (const [number, [name, given, expected]] of calls.entries()) {
            let action = "nothing";
            if (name === "hide") [follower.hidden] = given;
            else action = follower[name](...given);
            const { state, n, cursor, due, stale, held, expired, asks, transport, eventsUntil } = follower;
            const came = [action, state, n, cursor, due, stale, held, expired, asks, transport, eventsUntil];
            if (JSON.stringify(came) === JSON.stringify(expected)) continue;
            differences.push({ seed, number, name, given, expected, came });
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


def connecting(n: int = 4) -> Follower:
    follower = Follower(f"c{n}")
    assert follower.wake(0, 0) is Action.CONNECT
    return follower


def live(n: int = 4) -> Follower:
    follower = connecting(n)
    follower.take(hello(n), 0, 0)
    assert follower.state is State.LIVE
    return follower


def failed(times: int) -> Follower:
    """One that has failed so often, and tries again."""
    follower = connecting()
    for _ in range(times):
        follower.closed(1006, 0, 0)
        assert follower.tick(0, 0) is Action.CONNECT
    return follower


# --- frames


def test_the_next_event_is_applied() -> None:
    follower = live(4)
    assert follower.take(event(5), 1, 0) is Action.APPLY
    assert (follower.n, follower.cursor, follower.state) == (5, "c5", State.LIVE)


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
    follower = live(4)
    assert follower.take(frame, 1, 0) is action
    assert (follower.n, follower.cursor, follower.state) == (4, "c4", state)


@pytest.mark.parametrize("frame", [event(5), head(4), SNAPSHOT, RESET])
def test_nothing_counts_before_hello(frame: dict[str, Any]) -> None:
    assert connecting(4).take(frame, 1, 0) is Action.LEAVE


@pytest.mark.parametrize("announcement", [hello(4, complete=False), RESET])
@pytest.mark.parametrize("frame", [event(4), event(5), head(4)])
def test_an_announced_snapshot_comes_before_anything_else(announcement: dict[str, Any], frame: dict[str, Any]) -> None:
    follower = connecting(4) if announcement["type"] == "hello" else live(4)
    follower.take(announcement, 1, 0)
    assert follower.state is State.BEHIND
    assert follower.take(frame, 1, 0) is Action.LEAVE


def test_an_announced_snapshot_moves_it_wherever_it_was() -> None:
    follower = live(4)
    follower.take(RESET, 1, 0)
    assert follower.take(SNAPSHOT, 1, 0) is Action.APPLY
    assert (follower.n, follower.cursor, follower.state) == (2, "x2", State.LIVE)


def test_it_is_behind_until_it_has_what_the_server_has() -> None:
    follower = connecting(4)
    follower.take(hello(4, newest=6), 0, 0)
    assert follower.state is State.BEHIND
    states = []
    for n in (5, 6):
        follower.take(event(n), 20 * n, 0)
        states.append(follower.state)
    assert states == [State.BEHIND, State.LIVE]


def test_the_end_of_the_coverage_is_the_end() -> None:
    follower = live(4)
    assert follower.take({**event(5), "type": "stream.end"}, 1, 0) is Action.APPLY
    assert (follower.state, follower.due) == (State.ENDED, None)
    assert follower.wake(2, 0) is Action.NOTHING


def test_what_the_server_says_of_its_store_is_kept_until_it_says_otherwise() -> None:
    follower = live(4)
    follower.take(head(4, stale="2026-03-02T12:00:00.000Z"), 1, 0)
    assert (follower.stale, follower.state) == ("2026-03-02T12:00:00.000Z", State.LIVE)
    follower.take(head(4), 2, 0)
    assert follower.stale is None


# --- time


def test_no_first_frame_for_four_seconds_is_a_failure_and_then_it_waits_longer() -> None:
    follower = connecting()
    assert follower.tick(3.9, 0) is Action.NOTHING
    assert (follower.tick(4, 0), follower.asks) == (Action.LEAVE, True)
    assert follower.tick(4, 0) is Action.CONNECT
    assert follower.due == 4 + 8


def test_silence_is_a_failure() -> None:
    follower = live()
    follower.take({"type": "of a later version"}, 10, 0)
    assert follower.tick(10 + 24.9, 0) is Action.NOTHING
    assert (follower.tick(10 + 25, 0), follower.asks) == (Action.LEAVE, False)


def test_a_head_that_stays_ahead_is_a_failure_unless_something_comes() -> None:
    follower = live(4)
    follower.take(head(6), 10, 0)
    assert follower.due == 15
    follower.take(event(5), 14, 0)
    assert follower.due == 19
    follower.take(event(6), 18, 0)
    assert follower.due == 18 + 25
    follower.take(head(7), 20, 0)
    follower.take(head(8), 24, 0)
    assert follower.tick(25, 0) is Action.LEAVE


@pytest.mark.parametrize(("failures", "most"), [(0, 0.5), (1, 1), (3, 4), (6, 20), (5000, 20)])
def test_the_wait_is_drawn_from_a_range_that_doubles(failures: int, most: float) -> None:
    follower = failed(failures)
    follower.closed(1006, 0, 0.75)
    assert follower.due == 0.75 * most


@pytest.mark.parametrize(("seconds", "most"), [(30, 8), (30.1, 0.5)])
def test_after_thirty_seconds_live_the_next_failure_counts_as_the_first(seconds: float, most: float) -> None:
    follower = failed(4)
    follower.take(hello(4), 0, 0)
    follower.closed(1006, seconds, 0.5)
    assert follower.due == seconds + 0.5 * most


@pytest.mark.parametrize(("failures", "most"), [(0, 3), (3, 4)])
def test_a_bye_says_over_how_long_to_come_back_unless_it_is_one_of_many(failures: int, most: float) -> None:
    follower = failed(failures)
    follower.take(hello(4), 0, 0)
    follower.take(BYE, 0, 0.5)
    assert follower.due == 0.5 * most
    assert not follower.asks


def test_retry_after_is_waited_for_also_by_one_who_is_woken() -> None:
    follower = connecting()
    follower.closed(1006, 0, 0.5)
    follower.answered(503, 7, 0, 0)
    assert follower.due == 7.25
    assert follower.wake(6, 0) is Action.NOTHING
    assert follower.due == 7
    assert follower.tick(7, 0) is Action.CONNECT


@pytest.mark.parametrize("code", [1008, 1009, 4400, 4403, 4404, 4407, 4410])
def test_a_final_code_is_final(code: int) -> None:
    follower = live()
    follower.closed(code, 1, 0)
    assert (follower.state, follower.due) == (State.ENDED, None)
    assert follower.wake(2, 0) is Action.NOTHING


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013, 4408, 4429])
def test_after_any_other_it_comes_back(code: int) -> None:
    follower = live()
    assert follower.closed(code, 1, 0) is Action.LEAVE
    assert follower.tick(1, 0) is Action.CONNECT


@pytest.mark.parametrize("status", [204, 400, 404, 410, 422])
def test_a_refusal_is_final(status: int) -> None:
    follower = connecting()
    follower.closed(1006, 0, 0)
    follower.answered(status, 0, 0, 0)
    assert (follower.state, follower.expired) == (State.ENDED, False)


def test_one_whose_token_has_expired_tries_again_when_it_is_woken() -> None:
    by_code, by_status = live(), connecting()
    by_code.closed(4401, 1, 0)
    by_status.closed(1006, 1, 0)
    by_status.answered(401, 0, 1, 0)
    for follower in (by_code, by_status):
        assert (follower.state, follower.expired, follower.due) == (State.ENDED, True, None)
        assert follower.wake(2, 0) is Action.CONNECT


def test_what_is_put_away_comes_back_when_it_is_woken_alone() -> None:
    follower = live()
    assert follower.close() is Action.LEAVE
    assert (follower.state, follower.due) == (State.WAITING, None)
    assert follower.wake(100, 0) is Action.CONNECT


def test_one_who_slept_through_its_deadline_connects_at_once_when_it_wakes() -> None:
    follower = live()
    assert follower.wake(24, 0.9) is Action.NOTHING
    assert follower.wake(500, 0.9) is Action.CONNECT


def test_nobody_looks_and_it_tries_once_a_minute() -> None:
    follower = connecting()
    follower.hidden = True
    follower.closed(1006, 1, 0)
    assert follower.tick(1, 0) is Action.NOTHING
    assert follower.wake(2, 0) is Action.NOTHING
    assert follower.due == 60
    follower.hidden = False
    assert follower.wake(3, 0) is Action.CONNECT


# --- transports


def missed(follower: Follower, at: float = 4) -> Action:
    """A try on which nothing comes, after which the server answers all the same."""
    assert follower.tick(at, 0.5) is Action.LEAVE
    assert follower.asks
    return follower.answered(200, 0, at, 0.5)


def test_where_sockets_bring_nothing_and_the_server_answers_events_are_next_at_once_and_remembered() -> None:
    follower = connecting()
    assert missed(follower) is Action.CONNECT
    assert (follower.transport, follower.events_until) == (Transport.EVENTS, 0)
    assert follower.due == 8
    follower.take(hello(4), 5, 0)
    assert follower.events_until == 605
    again = Follower(events_until=605)
    again.wake(604, 0)
    assert again.transport is Transport.EVENTS
    later = Follower(events_until=605)
    later.wake(605, 0)
    assert later.transport is Transport.SOCKET


def test_a_server_that_is_away_pushes_nobody_off_sockets() -> None:
    follower = connecting()
    for _ in range(9):
        assert follower.tick(follower.due or 0, 0) is Action.LEAVE
        assert follower.tick(follower.due or 0, 0) is Action.CONNECT
        assert follower.transport is Transport.SOCKET


def test_sockets_that_worked_are_taken_for_blocked_after_three_misses() -> None:
    follower, at = live(), 1.0
    follower.closed(1006, at, 0)
    follower.tick(at, 0)
    for transport in (Transport.SOCKET, Transport.SOCKET, Transport.EVENTS):
        at = follower.due or 0
        missed(follower, at)
        follower.tick(follower.due or 0, 0)
        assert follower.transport is transport


def test_events_that_do_not_come_though_the_server_answers_are_held_back_by_something() -> None:
    follower = connecting()
    missed(follower, 4)
    assert missed(follower, 8) is Action.NOTHING
    assert follower.held
    follower.tick(9, 0)
    assert (follower.transport, follower.due) == (Transport.SOCKET, 17)
    assert missed(follower, 17) is Action.CONNECT
    follower.take(hello(4), 18, 0)
    assert follower.held, "a first frame may be all that a full buffer let out"
    follower.take(head(4), 20, 0)
    assert not follower.held


def test_sockets_that_come_through_are_not_held_back() -> None:
    follower = connecting()
    missed(follower, 4)
    missed(follower, 8)
    follower.tick(9, 0)
    follower.take(hello(4), 10, 0)
    assert not follower.held


def test_events_that_stop_are_asked_for() -> None:
    follower = connecting()
    missed(follower)
    follower.take(hello(4), 5, 0)
    follower.tick(30, 0)
    assert follower.asks
    follower.answered(200, 0, 30, 0)
    assert follower.held


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
        roads |= {(answer[9], answer[6]) for *_, answer in schedule.calls}
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
        assert page.evaluate(REPLAY, schedules) == []


def test_the_scripts_of_the_page_are_small() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in (ROOT / "static").glob("*.js")}
    assert {"rule.js", "stream.js", "page.js"} <= set(sizes)
    assert sum(sizes.values()) < 10_000
