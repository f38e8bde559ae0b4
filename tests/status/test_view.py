"""The view of a cluster as lines: what is in it, how wide it is, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from typing import Any

from pushserver.status import view

WORKER: dict[str, Any] = {
    "place": 1,
    "pid": 4711,
    "state": "serving",
    "ready": True,
    "failing": [],
    "age_s": 90.0,
    "heard_s": 0.4,
    "readers": 1_204,
    "readers_by": {"websocket public": 1_204},
    "readers_slow": 1,
    "streams": 3,
    "publishes_per_s": 0.54,
    "entries_written_per_s": 1_204.4,
    "lag_ms": {"p50": 1.6, "p99": 9.4},
    "store_up": True,
    "rss_bytes": 104_857_600,
    "cpu_percent": 12.4,
    "files": 1_230,
}
SLOW = {
    "place": 1,
    "pid": 4711,
    "address": "203.0.113.9",
    "transport": "websocket",
    "stream": "storm",
    "waiting_bytes": 65_536,
    "frames_behind": 12,
    "stalled_s": 31.0,
}
STATUS: dict[str, Any] = {
    "version": "1.0",
    "at": "2026-11-28T14:00:00.123Z",
    "pid": 1,
    "uptime_s": 11_530.0,
    "workers": [WORKER],
    "totals": {
        **{name: WORKER[name] for name in ("readers", "streams", "publishes_per_s", "entries_written_per_s")},
        "rss_bytes": 2**31,
        "cpu_percent": 12.4,
        "lag_ms": None,
        "workers_started": 2,
        "workers_ended": 1,
    },
    "slowest": [SLOW],
}


def test_the_view_has_sums_workers_and_the_slowest_readers() -> None:
    shown = view.view_lines(STATUS)
    assert shown[0] == "pushserver 1.0   2026-11-28T14:00:00Z   up 3 h 12 min   workers: 2 started, 1 ended"
    assert shown[1] == (
        "readers 1,204   streams 3   publishes 0.5/s   entries written 1,204/s   lag - ms   memory 2.0 GiB   cpu 12 %"
    )
    row = re.split(r"  +", shown[4].strip())
    assert row == [
        *("1", "4711", "serving", "up", "2 / 9", "1,204", "1", "3", "0.5", "1,204", "100 MiB", "12 %", "1,230", "0 s")
    ]
    assert re.split(r"  +", shown[-1].strip()) == [
        *("203.0.113.9", "websocket", "storm", "1 (4711)", "12", "64 KiB", "31 s")
    ]


def test_a_worker_that_is_not_ready_says_why() -> None:
    failing = {**WORKER, "ready": False, "failing": ["store", "tail"], "store_up": False}
    shown = "\n".join(view.view_lines({**STATUS, "workers": [failing], "slowest": []}))
    assert "not ready" in shown
    assert "away" in shown
    assert "worker 1 is not ready: store, tail" in shown
    assert shown.endswith("none")


def test_nothing_of_a_reader_reaches_the_terminal_as_it_is() -> None:
    evil = {**SLOW, "address": "\x1b[2J\u202e" + "9" * 500, "stream": "a\nb"}
    shown = view.view_lines({**STATUS, "slowest": [evil]})
    assert all(line.isprintable() for line in shown)
    assert max(map(len, shown)) < 200


def test_a_screen_has_no_more_than_the_terminal() -> None:
    status = {**STATUS, "workers": [WORKER] * 30}
    drawn = view.screen(status, 60, 10)
    assert drawn.startswith("\x1b[H")
    rows = drawn.removeprefix("\x1b[H").removesuffix("\x1b[J").split("\n")
    assert len(rows) == 10
    assert all(len(row.removesuffix("\x1b[K")) <= 60 for row in rows)
    assert re.search(r"… \d+ more lines", rows[-1])


def test_a_worker_that_starts_has_not_looked_at_the_store() -> None:
    starting = {**WORKER, "state": "starting", "ready": False, "store_up": False, "heard_s": None}
    shown = "\n".join(view.view_lines({**STATUS, "workers": [starting], "slowest": []}))
    assert "starting" in shown
    assert "away" not in shown
