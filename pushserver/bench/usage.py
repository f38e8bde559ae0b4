"""Usage is the processor time, system calls and memory of processes on this machine (Linux, /proc)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's coarse clock, per second


class Usage(NamedTuple):
    """Usage is what processes have used since they started; the difference of two is what they used in between."""

    cpu: float  # seconds of processor time, to the nanosecond
    system: float  # seconds of `cpu` spent in the kernel, to the tick
    writes: int  # write system calls

    def since(self, before: Usage) -> Usage:
        return Usage(self.cpu - before.cpu, self.system - before.system, self.writes - before.writes)


def measure(pids: Iterable[int]) -> Usage:
    """Return the usage of these processes, all threads together. A process that has ended counts as 0."""
    cpu, system, writes = 0, 0, 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            cpu += int(_read(task / "schedstat", "0").split()[0])
        system += int(_read(Path(f"/proc/{pid}/stat"), ")" + " 0" * 13).rpartition(")")[2].split()[12])
        writes += _number(Path(f"/proc/{pid}/io"), r"syscw: (\d+)")
    return Usage(cpu / 1e9, system / TICKS, writes)


def memory(pids: Iterable[int]) -> int:
    """Return the memory of these processes in KiB, shared pages counted in proportion (PSS)."""
    return sum(_number(Path(f"/proc/{pid}/smaps_rollup"), r"(?m)^Pss: +(\d+)") for pid in pids)


def kernel_memory() -> int:
    """Return the kernel's memory in KiB, of the whole machine: its objects and the socket buffers."""
    pages = _number(Path("/proc/net/sockstat"), r"TCP: .* mem (\d+)")
    return _number(Path("/proc/meminfo"), r"Slab: +(\d+)") + pages * os.sysconf("SC_PAGE_SIZE") // 1024


def machine_cpu() -> float:
    """Return the busy seconds of all processors of the machine, to the tick, with those that its host stole."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        int(text) for text in _read(Path("/proc/stat"), "").split()[1:11]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_cpu() -> float:
    """Return the seconds of processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def process_tree(pid: int) -> list[int]:
    """Return the pids of a process and of all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in _read(task / "children", "").split():
            pids += process_tree(int(child))
    return pids


def command_name(pid: int) -> str:
    """Return the name of a process's program, '' where it has ended."""
    return _read(Path(f"/proc/{pid}/comm"), "").strip()


def pin(pids: Iterable[int], cpus: set[int]) -> None:
    """Pin these processes, with all their threads, to these processors."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            os.sched_setaffinity(int(task.name), cpus)


def _read(path: Path, missing: str) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return missing


def _number(path: Path, pattern: str) -> int:
    match = re.search(pattern, _read(path, ""))
    return int(match[1]) if match else 0
