"""The usage of a process: memory, processor time and files, as Linux shows them in /proc."""

from __future__ import annotations

import os
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")  # of processor time, a second
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
PROC = Path("/proc")


class ProcessUsage(NamedTuple):
    """ProcessUsage is what one process has and has used."""

    cpu: float  # seconds
    virtual: int  # bytes
    resident: int  # bytes
    started_at: float  # seconds since 1970
    files: int
    most_files: float  # infinite where there is no limit


def usage_of(pid: int, proc: Path = PROC) -> ProcessUsage | None:
    """The usage of a process; None where there is none by this number any more, or it cannot be read."""
    try:
        # The name of a program may have spaces and parentheses in it.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        limits = (proc / str(pid) / "limits").read_text()
        files = len(os.listdir(proc / str(pid) / "fd"))
        boot = _boot_time(proc)
        cpu = (int(fields[11]) + int(fields[12])) / TICKS
        started_at = boot + int(fields[19]) / TICKS
        return ProcessUsage(cpu, int(fields[20]), int(fields[21]) * PAGE, started_at, files, _most_files(limits))
    except (OSError, ValueError, IndexError):
        return None


def cpu_of(pid: int, proc: Path = PROC) -> float:
    """The processor time of a process in seconds; 0 where it cannot be read."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except (OSError, ValueError, IndexError):
        return 0.0


def _most_files(limits: str) -> float:
    match = re.search(r"^Max open files +(\S+)", limits, re.MULTILINE)
    return float(match[1]) if match and match[1].isdecimal() else float("inf")


@lru_cache(maxsize=4)
def _boot_time(proc: Path) -> float:
    """When the machine started, in seconds since 1970."""
    return time.time() - float((proc / "uptime").read_text().split()[0])
