"""The slowest readers of a worker, as an operator sees them: who takes nothing, since when, and what waits for it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from .fanout import SLOWEST
from .reader import Reader, ReaderState
from .stream import LiveStream


def slowest(streams: Iterable[LiveStream], each: float) -> list[dict[str, Any]]:
    """The readers that took nothing for the longest at the last sweep, and still do not. Sweeps are `each` s apart."""
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
