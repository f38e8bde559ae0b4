"""The faults at random for as long as one likes, and a table of what became of it: `make soak MINUTES=10 SEED=1`.

Each round is a stream of its own with publishers and readers who come and go, and one fault in its middle. A round that
breaks a promise is printed with its seed; the exit status is then 1.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from ..support.server import Running, running
from .checker import summary
from .disk import is_small, small_disk
from .faults import FAULTS
from .run import Run

COLUMNS = ("rounds", "acknowledged", "deliveries", "lost", "gap", "repeat", "order", "doubled", "state", "page")
READERS, PUBLISHERS, ENTRIES = 100, 8, 40


async def soak(server: Running, minutes: float, seed: int) -> dict[str, Counter[str]]:
    """Rounds until the time is over; what was counted, by fault."""
    choose, until = random.Random(seed), time.monotonic() + minutes * 60
    faults = [fault for fault in FAULTS if "disk" not in fault.__name__ or is_small(server.data)]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    number = 0
    while time.monotonic() < until:
        number += 1
        fault, own_seed = choose.choice(faults), choose.randrange(10**9)
        run = Run(server, f"soak-{number}", seed=own_seed)
        violations = await run.of(fault, publishers=PUBLISHERS, entries=ENTRIES, readers=READERS)
        counted = {"rounds": 1, "acknowledged": len(run.outcomes), "deliveries": run.deliveries}
        counts[fault.__name__] += Counter(counted) + summary(violations)
        for violation in violations[:5]:
            print(
                f"round {number}, {fault.__name__}, seed {own_seed}: {violation.promise}: {violation.what}", flush=True
            )
    return counts


def main(minutes: float, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--workers", "3", "--heartbeat", "2", "--page-entries", "500")
        data = Path(folder) / "data"
        with small_disk(data), running(data, *arguments) as server:
            counts = asyncio.run(soak(server, minutes, seed))
    total = sum(counts.values(), Counter[str]())
    print(f"seed {seed}, {minutes:g} minutes\n")
    print("| fault | " + " | ".join(COLUMNS) + " |\n| --- |" + " --- |" * len(COLUMNS))
    for name, counted in [*sorted(counts.items()), ("all", total)]:
        print(f"| {name.replace('_', ' ')} | " + " | ".join(str(counted[column]) for column in COLUMNS) + " |")
    return int(any(total[column] for column in COLUMNS[3:]))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**9)))
