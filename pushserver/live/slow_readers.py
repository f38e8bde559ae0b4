"""Slow readers: one that takes nothing is closed, and an operator sees the slowest.

A reader also is too slow if the frames that it misses have left the ring, whose bounds
are in `ring.py`: `fanout._serve` closes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .reader import Reader, ReaderState

if TYPE_CHECKING:  # which imports the fanout, which imports this
    from .stream import LiveStream

SWEEPS = 6  # a reader that is paused in so many sweeps in a row is closed
SLOWEST = 10  # readers of a stream that took nothing for the longest, which are named to the operator


def sweep(
    readers: Sequence[Reader], close: Callable[[Reader], None]
) -> Generator[None, None, tuple[int, list[Reader]]]:
    """Close the readers whose transport took nothing for SWEEPS sweeps, which take `Settings.patience`, one a step.

    Returns how many others are paused, and those of them that have been paused for longest.
    """
    slow: list[tuple[int, int, Reader]] = []
    paused = 0
    for number, reader in enumerate(readers):
        if reader.state is ReaderState.PAUSED:
            reader.stalled += 1
            if reader.stalled >= SWEEPS:
                close(reader)
            else:
                paused += 1
                push = heapq.heappush if len(slow) < SLOWEST else heapq.heappushpop
                push(slow, (reader.stalled, number, reader))
        yield
    return paused, [reader for _, _, reader in slow]


def slowest(streams: Iterable[LiveStream], each: float) -> list[dict[str, Any]]:
    """The readers that took nothing for the longest at the last sweep, and have taken nothing since.

    Sweeps are `each` s apart.
    """
    rows = (
        _row(stream, reader, each)
        for stream in streams
        for reader in stream.fanout.slow
        if reader.state is ReaderState.PAUSED and reader.place >= 0
    )
    return heapq.nlargest(SLOWEST, rows, key=lambda row: (row["stalled_s"], row["waiting_bytes"]))


def _row(stream: LiveStream, reader: Reader, each: float) -> dict[str, Any]:
    return {
        "address": reader.address,
        "transport": reader.transport,
        "stream": stream.name,
        "waiting_bytes": reader.waiting,
        "frames_behind": stream.ring.end - reader.position,
        "stalled_s": round(reader.stalled * each, 3),
    }
