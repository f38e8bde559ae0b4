"""The script measures how soon a server follows a failover, and which acknowledged entries are lost in it.

    .venv/bin/python -m bench.failovers [TIMES [WORD…]]

Three Sentinels watch a primary and three replicas. The primary is killed, or frozen, or the first Sentinel of the URL
is asked for a failover. Before that none, one or two replicas were killed or frozen, or nobody may follow the replica
that is promoted. Each case runs TIMES times with the Valkey of the embedded store and with the `redis-server` of this
machine, if there is one; with words, only the cases whose rows have one of them. The script prints the seconds until
all Sentinels named another primary to clients, the seconds from then until a new request to publish was acknowledged,
and the entries that were published again, and lost. The exit status is 1 if one took longer than LIMIT after the
Sentinels, or did not end.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import httpx2

from tests.support.scrapes import METRICS, scrape
from tests.support.server import Running, reader, running
from tests.support.stores import REDIS, STRIKES, Watched, watched

LIMIT = 2.0  # seconds from the Sentinels' own answer until publishing is back
EACH = 120.0  # seconds after which a run is given up
SETTLED = 10.0  # seconds for lost events to be published again
WRITERS = 4
BEFORE = 100  # entries that are acknowledged before the failover
AFTER = 50  # and after it
STREAM = "failover"
ARGUMENTS = ("--workers", "2", "--heartbeat", "0.5", "--page-entries", "500", "--log-level", "warning", *METRICS)
FAILOVER_TIMEOUT_MS = 20_000


class Case(NamedTuple):
    """A Case is one way to lose a primary, and what was wrong with the replicas before."""

    binary: str
    strike: str
    away: int
    how: str

    def __str__(self) -> str:
        before = {"": "all replicas well", "alone": "nobody can follow"}.get(self.how, f"{self.away} of 3 {self.how}")
        return f"{'redis' if self.binary else 'valkey'} | {self.strike} | {before}"


class Result(NamedTuple):
    """A Result is what one failover cost: seconds, and counts of entries."""

    said: float
    back: float
    acknowledged: int
    healed: int
    lost: int


class Writers:
    """Writers publish one entry after the other, and repeat none: what was acknowledged is all that must be there."""

    def __init__(self, server: Running) -> None:
        self.acknowledged: dict[str, float] = {}  # when the request began, by the entry's id
        self._server = server

    async def run(self, http: httpx2.AsyncClient) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                tasks.create_task(self._write(http, number))

    async def _write(self, http: httpx2.AsyncClient, writer: int) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count():
            began = loop.time()
            answer = await http.post(f"/streams/{STREAM}/entries", json={"headline": f"{writer}.{number}"})
            if answer.is_success:
                self.acknowledged[answer.json()["id"]] = began
            await asyncio.sleep(0.01)

    async def since(self, instant: float, count: int = 1) -> None:
        """Wait until so many requests that began at an instant or later were acknowledged."""
        while sum(began >= instant for began in self.acknowledged.values()) < count:
            await asyncio.sleep(0.002)


async def measure(store: Watched, server: Running, case: Case) -> Result:
    """One failover under writes and one reader."""
    loop = asyncio.get_running_loop()
    writers = Writers(server)
    headers = {"Authorization": f"Bearer {server.key}"}
    await asyncio.to_thread(server.publish_ok, STREAM, "first")
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=EACH) as http:
        async with asyncio.timeout(EACH), reader(server, STREAM):
            writing = asyncio.create_task(writers.run(http))
            try:
                await writers.since(0, BEFORE)
                struck = loop.time()
                await asyncio.to_thread(store.strike, case.strike)
                await asyncio.to_thread(store.until_failed_over)
                said = loop.time()
                await writers.since(said)
                back = loop.time()
                await writers.since(back, AFTER)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            lost = await _lost(http, set(writers.acknowledged))
            healed = await asyncio.to_thread(_healed_by, server)
    return Result(said - struck, back - said, len(writers.acknowledged), healed, lost)


async def _lost(http: httpx2.AsyncClient, acknowledged: set[str]) -> int:
    """Return the number of missing entries, which may still be published again for a while."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED
    while True:
        missing = acknowledged - await _stored(http)
        if not missing or loop.time() > deadline:
            return len(missing)
        await asyncio.sleep(0.2)


async def _stored(http: httpx2.AsyncClient) -> set[str]:
    ids: set[str] = set()
    older: str | None = ""
    while older is not None:
        answer = await http.get(f"/streams/{STREAM}/entries{older}")
        if not answer.is_success:
            return ids
        part = answer.json()
        ids |= {entry["id"] for entry in part["entries"]}
        older = part["older"] or None
    return ids


def _healed_by(server: Running) -> int:
    return int(scrape(server)["pushserver_events_healed_total"])


def run(case: Case) -> Result:
    """One failover on servers of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"replicas": 3, "failover_timeout_ms": FAILOVER_TIMEOUT_MS, "binary": case.binary}
        with watched(Path(folder) / "store", **options) as store:  # type: ignore[arg-type]
            key = ("--key", "failover-bench-key")
            with running(Path(folder) / "data", "--redis", store.url, *key, *ARGUMENTS) as server:
                server.data.mkdir(exist_ok=True)
                (server.data / "publish.key").write_text(key[1])  # where `running` looks for it
                store.take_away(case.away, case.how)
                return asyncio.run(measure(store, server, case))


def cases(words: list[str]) -> list[Case]:
    """Every case, or those whose rows have one of the words."""
    before = [(0, ""), (1, "dead"), (1, "frozen"), (2, "dead"), (2, "frozen"), (0, "alone")]
    binaries = ["", REDIS] if REDIS else [""]
    every = [Case(binary, strike, *state) for binary in binaries for strike in STRIKES for state in before]
    return [case for case in every if not words or any(word in str(case) for word in words)]


def main(times: int = 1, *words: str) -> int:
    failed = 0
    print(
        "| store | primary | before | Sentinels' answer, s | publishing after that, s | acknowledged | healed | lost |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in cases(list(words)):
        results = []
        for _ in range(times):
            try:
                results.append(run(case))
            except (TimeoutError, AssertionError) as error:
                print(f"{case}: {type(error).__name__} {error}"[:300], file=sys.stderr)
        failed += len(results) < times or max(result.back for result in results) > LIMIT
        if results:
            said, back = (max(column) for column in list(zip(*results, strict=True))[:2])
            counts = [sum(column) for column in list(zip(*results, strict=True))[2:]]
            print(f"| {case} | {said:.2f} | {back:.2f} | {' | '.join(map(str, counts))} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1, *sys.argv[2:]))
