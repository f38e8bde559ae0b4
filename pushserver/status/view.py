"""The view of a cluster in a terminal: lines of text from what `/status.json` says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..logs import cut, escape

NOTHING = "-"
TEXT_LIMIT = 40  # characters of an address or of a stream's name
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
# A terminal has 80 columns: what tells that something is wrong comes first.
WORKERS = ("place", "pid", "state", "store", "lag ms", "readers", "slow", "streams", "publish/s", "written/s")
USAGE = ("memory", "cpu", "files", "heard")
SLOWEST = ("slowest readers", "transport", "stream", "worker", "frames behind", "waiting", "stalled")


def view_lines(status: Mapping[str, Any]) -> list[str]:
    """The whole view, line by line, with nothing in it that a terminal would obey."""
    totals = status["totals"]
    began = f"workers: {totals['workers_started']} started, {totals['workers_ended']} ended"
    first = f"pushserver {status['version']}   {status['at'][:19]}Z   up {_span(status['uptime_s'])}   {began}"
    return [
        escape(first),
        _sums(totals),
        "",
        *_table([*WORKERS, *USAGE], [_worker(row) for row in status["workers"]], left={2}),
        *[f"worker {row['place']} is not ready: {escape(', '.join(row['failing']))}" for row in _failing(status)],
        "",
        *_table(SLOWEST, [_slow(row) for row in status["slowest"]] or [("none", *[""] * 6)], left={0, 1, 2}),
    ]


def screen(status: Mapping[str, Any], columns: int, rows: int) -> str:
    """The view as it is drawn over the one before it, within so many columns and rows."""
    shown = [line[:columns] for line in view_lines(status)]
    if len(shown) > rows:
        shown = [*shown[: rows - 1], f"… {len(shown) - rows + 1} more lines"[:columns]]
    return "\x1b[H" + "\n".join(f"{line}\x1b[K" for line in shown) + "\x1b[J"


def _failing(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in status["workers"] if row["failing"]]


def _sums(totals: Mapping[str, Any]) -> str:
    parts = [
        f"readers {totals['readers']:,}",
        f"streams {totals['streams']:,}",
        f"publishes {totals['publishes_per_s']:,.1f}/s",
        f"entries written {totals['entries_written_per_s']:,.0f}/s",
        f"lag {_lag(totals['lag_ms'])} ms",
        f"memory {_size(totals['rss_bytes'])}",
        f"cpu {totals['cpu_percent']:.0f} %",
    ]
    return "   ".join(parts)


def _worker(row: Mapping[str, Any]) -> Sequence[str]:
    return (
        str(row["place"]),
        str(row["pid"]),
        row["state"] if row["ready"] or row["state"] != "serving" else "not ready",
        NOTHING if row["heard_s"] is None else "up" if row["store_up"] else "away",
        _lag(row["lag_ms"]),
        f"{row['readers']:,}",
        f"{row['readers_slow']:,}",
        f"{row['streams']:,}",
        f"{row['publishes_per_s']:,.1f}",
        f"{row['entries_written_per_s']:,.0f}",
        _size(row["rss_bytes"]),
        f"{row['cpu_percent']:.0f} %",
        f"{row['files']:,}",
        NOTHING if row["heard_s"] is None else _span(row["heard_s"]),
    )


def _slow(row: Mapping[str, Any]) -> Sequence[str]:
    return (
        row["address"],
        row["transport"],
        row["stream"],
        f"{row['place']} ({row['pid']})",
        f"{row['frames_behind']:,}",
        _size(row["waiting_bytes"]),
        _span(row["stalled_s"]),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: set[int]) -> list[str]:
    """Columns as wide as what is in them; those of numbers end at the same place."""
    safe = [heads, *([escape(cut(cell, TEXT_LIMIT)) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in safe) for place in range(len(heads))]
    aligned = [
        [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in safe
    ]
    return ["  ".join(row).rstrip() for row in aligned]


def _lag(lag: Mapping[str, float] | None) -> str:
    return NOTHING if lag is None else f"{lag['p50']:.0f} / {lag['p99']:.0f}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1_024:
            return f"{count:.0f} {unit}"
        count /= 1_024
    return f"{count:.1f} GiB"


def _span(seconds: float) -> str:
    """The two largest units of a time, such as `3 h 12 min`."""
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in UNITS:
        if rest >= size or (unit == "s" and not parts):
            parts.append(f"{rest // size} {unit}")
            rest %= size
    return " ".join(parts[:2])
