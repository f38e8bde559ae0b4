"""The script measures the longest piece of processor time for which one input keeps a worker's event loop to itself.

    .venv/bin/python -m bench.pieces                 # every kind of input of bench.canary once
    .venv/bin/python -m bench.pieces --examples 50   # and so many random ones of each kind
    .venv/bin/python -m bench.pieces --only large    # the kinds with this word in their name

`bench.canary` says how long others wait; on a busy machine they wait for its other work as well. This one counts the
processor time of each callback of the loop, whatever else the machine does. The worker runs in a thread, on the loop of
asyncio, whose callbacks can be counted. It prints the kinds with the longest pieces; one above LIMIT_MS is an exit
status of 1. On that loop a client that reads at once takes a large answer in one piece; uvloop, on which a server runs,
lets others in after each part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from pushserver.server.worker import spare_collector
from tests.support.server import running
from tests.support.worker import working

from .canary import NDJSON, REQUEST_LIMIT, Input, inputs, send, shown

LIMIT_MS = 20.0
SHOWN = 20  # kinds


class Pieces:
    """Pieces is the longest callback of an event loop, by the kind of input that was being answered."""

    def __init__(self) -> None:
        self.kind = "start"
        self.longest: dict[str, tuple[float, str]] = {}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count each callback that asyncio runs meanwhile, in whichever thread."""
        before = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            before(handle)
            self._note(handle, 1_000 * (time.thread_time() - began))

        asyncio.Handle._run = run  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            asyncio.Handle._run = before  # type: ignore[method-assign]

    def _note(self, handle: Any, ms: float) -> None:
        if ms > self.longest.get(self.kind, (0.0, ""))[0]:
            task = getattr(handle._callback, "__self__", None)
            work = task.get_coro() if isinstance(task, asyncio.Task) else handle._callback
            self.longest[self.kind] = ms, getattr(work, "__qualname__", repr(work))


def kind_of(input: Input) -> str:
    way = ", batch" if input.type == NDJSON else ", dry run" if "dry_run" in input.path else ""
    return f"{shown(input.kind)}{way}"


def measure(pieces: Pieces, examples: int, only: str) -> None:
    """Send every input of these kinds to a worker, one after the other."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as beside:
        with pieces.counted(), working(beside, loop="asyncio") as server:
            spare_collector()
            headers = {"Authorization": f"Bearer {server.key}"}
            with httpx2.Client(base_url=server.url, headers=headers, timeout=REQUEST_LIMIT) as http:
                for input in inputs(examples):
                    pieces.kind = kind_of(input)
                    if only in pieces.kind:
                        send(http, input)
                pieces.kind = "end"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    pieces = Pieces()
    measure(pieces, options.examples, options.only)
    longest = ((*piece, kind) for kind, piece in pieces.longest.items() if kind not in ("start", "end"))
    kinds = sorted(longest, reverse=True)
    for ms, work, kind in kinds[:SHOWN]:
        print(f"{ms:7.1f} ms  {kind[:80]}  ({work})")
    beyond = sum(ms > LIMIT_MS for ms, _, _ in kinds)
    print(f"{beyond} of {len(kinds)} kinds beyond {LIMIT_MS:.0f} ms of processor time in one piece")
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
