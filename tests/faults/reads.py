"""Clients publish on one worker, and read on another right after the answer: each sees what it has published.

    .venv/bin/python -m tests.faults.reads [TRIES] [CLIENTS]

Each client tries as often as any other. It prints how many tries there were of each kind, and each read that showed
less or more; the exit status is 1 then.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from ..support.server import LIMIT, Running, clients_of, running
from .connection import Answer, Connection

TRIES, CLIENTS = 10_000, 20
STREAM = "read-after-write"
BEFORE_ALL = "before=9007199254740991.z"  # no entry is above it: the slice shows the newest
OWN = "/entries/{id}"  # the page of the client's entry
SURFACES = ["", "/entries", "/feed.atom", "/feed.json", OWN, f"?{BEFORE_ALL}", f"/entries?{BEFORE_ALL}"]
CODINGS = ["gzip", "identity"]
KINDS = ["publish", "correct", "publish", "withdraw"]


class Reads(Counter[str]):
    """Tries by their kind, and the reads that were wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []


class Way:
    """The way to one worker: a connection, and another one where the worker has closed it.

    A worker closes what is idle for 5 s, and on a busy machine a client may be busy elsewhere for so long.
    """

    def __init__(self, url: str, worker: int) -> None:
        self._url = url
        self._worker = worker
        self._connection: Connection | None = None

    async def send(self, method: str, path: str, body: bytes = b"", **fields: str) -> Answer:
        """Send a request, and again where the connection has ended: a change needs an idempotency key."""
        async with asyncio.timeout(LIMIT):
            while True:
                self._connection = self._connection or await self._open()
                try:
                    return await self._connection.send(method, path, body, **fields)
                except (OSError, EOFError):
                    await self.close()

    async def _open(self) -> Connection:
        """A connection that this worker has accepted, not another one at the same address."""
        while True:
            connection = await Connection.open(self._url)
            await connection.send("GET", "/livez")  # the answer says that it was accepted
            if connection.port in clients_of(self._worker):
                return connection
            await connection.close()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


class Client:
    """A client with a way to each of two workers, and the entries that it has on the stream."""

    def __init__(self, name: str, key: str, writing: Way, reading: Way) -> None:
        self._name = name
        self._authorization = f"Bearer {key}"
        self._writing = writing
        self._reading = reading
        self._id = ""
        self._text = ""  # of its newest entry, "" after a withdrawal
        self._etags: dict[tuple[str, str], str] = {}

    async def try_once(self, number: int, reads: Reads) -> None:
        """Change something, and read one surface in one coding."""
        kind, former = KINDS[number % len(KINDS)], self._text
        await self._change(kind, f"{self._name}-{number:05d}")
        step = number // len(KINDS)
        surface, coding = SURFACES[step % len(SURFACES)], CODINGS[step // len(SURFACES) % len(CODINGS)]
        text = await self._read(surface, coding)
        is_wrong = (bool(self._text) and self._text not in text) or (kind != "publish" and former in text)
        reads[kind] += 1
        if is_wrong:
            answered = text if text.startswith("status") else self._text or former
            reads.wrong.append(f"try {number}: {surface or '/'} in {coding} did not show a {kind}: {answered}")

    async def _change(self, kind: str, text: str) -> None:
        entries = f"/streams/{STREAM}/entries"
        body = json.dumps({"headline": text}).encode()
        fields = {"Authorization": self._authorization, "Idempotency_Key": secrets.token_hex()}
        match kind:
            case "publish":
                answer = await self._writing.send("POST", entries, body, **fields)
                self._id, self._text = json.loads(answer.body)["id"], text
            case "correct":
                answer = await self._writing.send("PATCH", f"{entries}/{self._id}", body, **fields)
                self._text = text
            case _:
                answer = await self._writing.send("DELETE", f"{entries}/{self._id}", b"", **fields)
                self._text = ""
        assert answer.status in (200, 201), answer

    async def _read(self, surface: str, coding: str) -> str:
        """The surface. Its copy of the last read is named, which a change makes stale: 304 would be wrong.

        An answer that says that it may be late is asked for again: on a busy machine the store may be silent for half a
        second, after which it counts as away.
        """
        tag = self._etags.get((surface, coding), '"none"')
        path = f"/streams/{STREAM}{surface.format(id=self._id)}"
        fields: dict[str, Any] = {"Accept": "text/html,*/*;q=0.1", "Accept_Encoding": coding, "If_None_Match": tag}
        async with asyncio.timeout(LIMIT):
            while True:
                answer = await self._reading.send("GET", path, **fields)
                if "pushserver-stale-since" not in answer.fields:
                    break
                await asyncio.sleep(0.1)
        if answer.status == 410 and surface == OWN and not self._text:
            return ""  # the notice of a withdrawal has the headline, and no other text
        if answer.status != 200:
            return f"status {answer.status} {answer.body!r}"
        self._etags[surface, coding] = answer.fields["etag"]
        is_gzip = answer.fields.get("content-encoding") == "gzip"
        return (gzip.decompress(answer.body) if is_gzip else answer.body).decode()


@asynccontextmanager
async def connected(server: Running, clients: int) -> AsyncIterator[list[Client]]:
    """So many clients, each with a way to either worker, and every second one the other way round."""
    store = server.store_pid()
    workers = [pid for pid in server.children() if pid != store]
    pairs = [[Way(server.url, pid) for pid in workers[:: 1 if number % 2 else -1]] for number in range(clients)]
    try:
        yield [Client(f"c{number:02d}", server.key, *pair) for number, pair in enumerate(pairs)]
    finally:
        for way in chain(*pairs):
            await way.close()


async def own_writes(server: Running, tries: int, clients: int = CLIENTS) -> Reads:
    """All clients try at once, each again and again, so many times together. Each begins with another surface.

    They wait for each other after each round of KINDS: what a client reads is among the newest entries of a page, which
    it would not be if the others had gone far ahead of it.
    """
    reads = Reads()

    async def go_on(client: Client, first: int, together: asyncio.Barrier) -> None:
        for number in range(tries // clients):
            if number % len(KINDS) == 0:
                await together.wait()
            await client.try_once(first * len(KINDS) + number, reads)

    async with connected(server, clients) as connections, asyncio.TaskGroup() as tasks:
        together = asyncio.Barrier(clients)
        for first, client in enumerate(connections):
            tasks.create_task(go_on(client, first, together))
    return reads


def main(tries: int, clients: int) -> int:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", "--workers", "2") as server:
        reads = asyncio.run(own_writes(server, tries, clients))
    print(f"{reads.total():,} tries by {clients} clients: " + ", ".join(f"{reads[kind]:,} {kind}" for kind in reads))
    print("\n".join(reads.wrong) or "each showed what had been acknowledged before it")
    return int(bool(reads.wrong))


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*[*arguments, TRIES, CLIENTS][: len(arguments)], *[TRIES, CLIENTS][len(arguments) :]))
