"""Many seeds: `python -m tests.simulation SEEDS [FIRST]`; one of them, with all that happened: `--trace SEED`."""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter

from .run import Result, run


def many(seeds: range) -> int:
    """Run them; print each that breaks a promise, and what was counted."""
    began, counts, broken = time.monotonic(), Counter[str](), 0
    for seed in seeds:
        result = run(seed)
        counts += Counter(deliveries=result.deliveries, acknowledged=result.acknowledged)
        broken += bool(result.violations)
        report(result)
        gc.collect()
    minutes = (time.monotonic() - began) / 60
    print(f"{len(seeds)} schedules, {len(seeds) / minutes:.0f} a minute, {dict(counts)}, {broken} broke a promise")
    return int(broken > 0)


def report(result: Result) -> None:
    for violation in result.violations[:3]:
        print(f"seed {result.seed}: {violation.promise}: {violation.what}", flush=True)
    if result.violations:
        print(f"  replay with: python -m tests.simulation --trace {result.seed}", flush=True)


def trace(seed: int) -> int:
    result = run(seed)
    print("\n".join(result.trace))
    report(result)
    print(f"trace {result.hash}")
    return int(bool(result.violations))


if __name__ == "__main__":
    gc.disable()
    if sys.argv[1] == "--trace":
        sys.exit(trace(int(sys.argv[2])))
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    sys.exit(many(range(first, first + int(sys.argv[1]))))
