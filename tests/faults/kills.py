"""kill -9, counted: of the store under writes, again and again; of a primary under Sentinels; of a worker that has many
readers.

    make kills TIMES=50 FAILOVERS=10 READERS=2000

Prints how long it took until an entry could be published, and until readers were back; the exit status is 1 where
anything that is promised broke.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from ..support.server import Running, running
from ..support.stores import FAILOVER_TIMEOUT_MS, Watched, watched
from .checker import Outcome, Violation
from .faults import a_worker_is_killed
from .run import Run

ARGUMENTS = ("--workers", "3", "--heartbeat", "0.2", "--page-entries", "500", "--entry-limit", "100000")
WRITERS = 4
WRITES = 100  # entries that they have acknowledged before the next kill
EACH = 60.0  # seconds after which a kill is given up: a failure, and no figure
BETWEEN_FAILOVERS = 2 * FAILOVER_TIMEOUT_MS / 1000  # seconds for which Sentinels let a name rest


class Kills:
    """The store is killed so many times; `back` is after how many seconds an entry was acknowledged again.

    Its writers wait for nothing but their answers, unlike those of a run, who let a server recover.
    """

    def __init__(self, times: int) -> None:
        self.back: list[float] = []
        self._times = times
        self._writes = 0  # that were acknowledged
        self._acknowledged = 0.0  # when the newest request that was acknowledged had begun

    async def __call__(self, run: Run) -> None:
        authorization = {"Authorization": f"Bearer {run.server.key}"}
        async with httpx2.AsyncClient(base_url=run.url, headers=authorization, timeout=EACH) as http:
            writers = [asyncio.create_task(self._write(run, http, number)) for number in range(WRITERS)]
            try:
                for _ in range(self._times):
                    goal = self._writes + WRITES
                    while self._writes < goal:
                        await asyncio.sleep(0.01)
                    await self._kill(run)
                    await self._mend()
            finally:
                for writer in writers:
                    writer.cancel()
                ended = await asyncio.gather(*writers, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    async def _kill(self, run: Run) -> None:
        loop = asyncio.get_running_loop()
        run.stale.clear()
        self._strike(run)
        killed = loop.time()
        async with asyncio.timeout(EACH):
            while self._acknowledged < killed:
                await asyncio.sleep(0.005)
            self.back.append(loop.time() - killed)
            while len(run.stale) < len(run.logs):  # every reader is told that the log was not read
                await asyncio.sleep(0.01)

    def _strike(self, run: Run) -> None:
        os.kill(run.server.store_pid(), signal.SIGKILL)

    async def _mend(self) -> None:
        """The server's supervisor does."""

    async def _write(self, run: Run, http: httpx2.AsyncClient, writer: int) -> None:
        """Entry after entry, each sent until it is acknowledged."""
        for number in itertools.count():
            headers = {"Idempotency-Key": f"{writer}.{number}"}
            answer: dict[str, Any] = {}
            while not answer:
                began = asyncio.get_running_loop().time()
                response = await http.post(f"/streams/{run.stream}/entries", json={"headline": "x"}, headers=headers)
                if response.status_code in (200, 201, 202):
                    answer = response.json()
                else:
                    assert response.status_code == 503, response.text
                await asyncio.sleep(0.01)
            self._writes += 1
            self._acknowledged = max(self._acknowledged, began)
            if response.status_code != 202:  # which says that fewer replicas have it than were asked for
                run.outcomes.append(Outcome(headers["Idempotency-Key"], answer["id"]))


class Failovers(Kills):
    """The primary is killed, and comes back as the replica of the next one."""

    def __init__(self, store: Watched, times: int) -> None:
        super().__init__(times)
        self._store = store

    def _strike(self, run: Run) -> None:
        self._store.primary.kill()

    async def _mend(self) -> None:
        await asyncio.to_thread(self._store.swap)
        await asyncio.sleep(BETWEEN_FAILOVERS)


async def of_the_store(server: Running, times: int) -> list[Violation]:
    run, kills = Run(server, "store", seed=1), Kills(times)
    violations = await run.of(kills, publishers=0, leaving=False, limit=times * EACH)
    print(f"the store was killed {times} times: {len(run.outcomes)} acknowledged, {run.deliveries} deliveries,")
    print(f"  {len(violations)} violations, {len(run.broken)} connections broken; publishing was back after")
    print(f"  {_distribution(kills.back)}")
    return violations


async def of_a_primary(server: Running, store: Watched, times: int) -> list[Violation]:
    run, failovers = Run(server, "primary", seed=1), Failovers(store, times)
    violations = await run.of(failovers, publishers=0, leaving=False, limit=times * EACH * 3)
    print(f"the primary was killed {times} times: {len(run.outcomes)} acknowledged, {run.deliveries} deliveries,")
    print(f"  {len(violations)} violations, {len(run.broken)} connections broken; publishing was back after")
    print(f"  {_distribution(failovers.back)}")
    return violations


async def of_a_worker(server: Running, readers: int) -> list[Violation]:
    run = Run(server, "worker", seed=1)
    violations = await run.of(a_worker_is_killed, readers=readers, publishers=1, entries=100, leaving=False)
    print(f"a worker of three was killed under {readers} readers: {run.deliveries} deliveries,")
    print(f"  {len(violations)} violations, {len(run.broken)} connections broken; those readers were back after")
    print(f"  {_distribution(run.back)}")
    return violations


def _distribution(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"p50 {cuts[49]:.2f} s, p90 {cuts[89]:.2f} s, p99 {cuts[98]:.2f} s, at most {max(seconds):.2f} s"


def main(times: int, failovers: int, readers: int) -> int:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *ARGUMENTS) as server:
        violations = asyncio.run(of_the_store(server, times)) + asyncio.run(of_a_worker(server, readers))
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder) / "store") as store:
        with running(Path(folder) / "data", "--redis", store.url, "--replicas", "1", *ARGUMENTS) as server:
            violations += asyncio.run(of_a_primary(server, store, failovers))
    for violation in violations[:20]:
        print(f"{violation.promise}: {violation.what}")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
