"""What processes of this machine use, as the kernel counts it (Linux, /proc)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's coarse clock, a second


class Usage(NamedTuple):
    """What some processes have used since they began; the difference of two is what they used in between."""

    cpu: float  # seconds on a processor, to the nanosecond
    system: float  # of them in the kernel, to the tick
    writes: int  # system calls that write

    def since(self, before: Usage) -> Usage:
        return Usage(self.cpu - before.cpu, self.system - before.system, self.writes - before.writes)


def usage(pids: Iterable[int]) -> Usage:
    """What these processes, all their threads together, have used. Those that have ended count no more."""
    cpu, system, writes = 0, 0, 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            cpu += int(_read(task / "schedstat", "0").split()[0])
        system += int(_read(Path(f"/proc/{pid}/stat"), ")" + " 0" * 13).rpartition(")")[2].split()[12])
        writes += _number(Path(f"/proc/{pid}/io"), r"syscw: (\d+)")
    return Usage(cpu / 1e9, system / TICKS, writes)


def memory(pids: Iterable[int]) -> int:
    """KiB of memory, what is shared counted in parts (PSS)."""
    return sum(_number(Path(f"/proc/{pid}/smaps_rollup"), r"(?m)^Pss: +(\d+)") for pid in pids)


def kernel_memory() -> int:
    """KiB that the kernel holds for all: its objects and the sockets' buffers."""
    pages = _number(Path("/proc/net/sockstat"), r"TCP: .* mem (\d+)")
    return _number(Path("/proc/meminfo"), r"Slab: +(\d+)") + pages * os.sysconf("SC_PAGE_SIZE") // 1024


def busy() -> float:
    """Seconds that all processors of the machine have worked, to the tick; those that a host took away are in them."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        int(text) for text in _read(Path("/proc/stat"), "").split()[1:11]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def ours() -> float:
    """Seconds on a processor of this process and of all that it started and that have ended."""
    return sum(os.times()[:4])


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in _read(task / "children", "").split():
            found += tree(int(child))
    return found


def name(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/comm"), "").strip()


def pin(pids: Iterable[int], cpus: set[int]) -> None:
    """Let these processes, with all their threads, run on these processors alone."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            os.sched_setaffinity(int(task.name), cpus)


def _read(path: Path, missing: str) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return missing


def _number(path: Path, pattern: str) -> int:
    found = re.search(pattern, _read(path, ""))
    return int(found[1]) if found else 0
