"""The readers that are named to the operator: those that take nothing now, the slowest first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pushserver.live.reader import Reader, ReaderState
from pushserver.live.slow_readers import SLOWEST, slowest
from pushserver.live.stream import LiveStream
from pushserver.wire.frames import Format


class SlowReader(Reader):
    transport = "sse"

    def __init__(self, stalled: int, waiting: int, address: str) -> None:
        super().__init__(Format.JSON)
        self.state, self.place, self.stalled, self.position = ReaderState.PAUSED, 0, stalled, 40
        self._waiting, self._address = waiting, address

    @property
    def address(self) -> str:
        return self._address

    @property
    def waiting(self) -> int:
        return self._waiting


def stream(name: str, *readers: Reader) -> LiveStream:
    fanout: Any = SimpleNamespace(slow=list(readers))
    return cast(LiveStream, SimpleNamespace(name=name, fanout=fanout, ring=SimpleNamespace(end=45)))


def test_the_slowest_comes_first_with_what_waits_for_it() -> None:
    streams = [
        stream("storm", SlowReader(1, 70_000, "192.0.2.1"), SlowReader(3, 10, "192.0.2.2")),
        stream("vote", SlowReader(3, 65_536, "192.0.2.3")),
    ]
    rows = slowest(streams, each=5.0)
    assert [row["address"] for row in rows] == ["192.0.2.3", "192.0.2.2", "192.0.2.1"]
    assert rows[0] == {
        "address": "192.0.2.3",
        "transport": "sse",
        "stream": "vote",
        "waiting_bytes": 65_536,
        "frames_behind": 5,
        "stalled_s": 15.0,
    }


def test_who_has_taken_something_or_has_gone_since_is_not_named() -> None:
    taking, gone = SlowReader(3, 0, "192.0.2.1"), SlowReader(3, 0, "192.0.2.2")
    taking.state, gone.place = ReaderState.OPEN, -1
    assert slowest([stream("storm", taking, gone)], each=5.0) == []


def test_there_are_ten_at_most() -> None:
    streams = [stream(f"s{number}", *(SlowReader(1, 0, "192.0.2.1") for _ in range(SLOWEST))) for number in range(5)]
    assert len(slowest(streams, each=5.0)) == SLOWEST
