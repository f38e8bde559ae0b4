"""A receipt says how an event was delivered: which workers have it, how many readers received it, and how late.

Frames count their readers as they are written, so delivery costs nothing more until a receipt is asked for. Then every
worker is asked over a channel of the store, and answers with its own report. The channel is sharded: one node of a
cluster knows how many workers it reached.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import secrets
import socket
from collections import Counter
from typing import Any

from ..log_throttle import Tally, Trouble
from ..store.connection import Channels
from ..store.store import Store, StoreError
from .hub import Hub
from .stream import report

logger = logging.getLogger(__name__)

ASK, TELL = "{p00}:asked", "{p00}:told:"  # channels: to every worker, and the prefix of one worker's own
MAX_QUESTIONS = 64  # that a worker answers at a time; one more is dropped, and its worker counts as silent
GRACE = 2.0  # seconds, beyond the wait, for the answers to arrive
RETRY = 1.0  # seconds before a lost channel is opened again


class Receipts:
    """Receipts asks all workers about an event, and answers for this one. `run` owns the channels."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._questions: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._trouble = Trouble(logger, "receipts are read again")
        self._unsent = Tally(logger, "receipts that were not sent")
        self.open = False

    async def run(self) -> None:
        """Read the channels until cancelled."""
        while True:
            try:
                async with self._store.channels(ASK, TELL + self.name) as channels:
                    self.open = True
                    self._trouble.over()
                    await self._read(channels)
            except (StoreError, OSError) as error:
                self._trouble.failed("receipts: the store does not answer: %s", error, reason=error)
                await asyncio.sleep(RETRY)
            finally:
                self.open = False

    async def of(self, stream: str, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """The receipt of an entry's event `n`, or of its newest.

        It waits so many seconds until all workers have delivered the event. Raises StoreError.
        """
        return await self._ask({"stream": stream, "entry": entry_id, "n": n, "wait": wait}, limit=wait + GRACE)

    async def deleted(self, stream: str, epoch: str, *, wait: float) -> dict[str, Any]:
        """Have every worker close the readers of a stream that was deleted in this epoch, and forget what it showed.

        The receipt says which workers did within so many seconds. A worker of an earlier version answers as if it was
        asked for a receipt, and closes the readers when it next verifies the log. Raises StoreError.
        """
        fields = {"stream": stream, "entry": "", "n": None, "wait": 0, "deleted": epoch}
        return await self._ask(fields, limit=wait)

    async def _ask(self, fields: dict[str, Any], *, limit: float) -> dict[str, Any]:
        """Ask every worker, and sum up the reports of those who answer within so many seconds."""
        question = secrets.token_hex(8)
        answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._questions[question] = answers
        reports: list[dict[str, Any]] = []
        try:
            workers = await self._send(ASK, question=question, worker=self.name, **fields)
            await self._collect(answers, reports, workers, limit=limit)
        finally:
            del self._questions[question]
        return _receipt(reports, silent=workers - len(reports))

    async def _collect(
        self, answers: asyncio.Queue[dict[str, Any]], reports: list[dict[str, Any]], workers: int, *, limit: float
    ) -> None:
        """Wait for a report of each worker. One that hangs is silent, and must not hold up the answer.

        Nor does the answer hold up a worker that stops.
        """

        async def collect() -> None:
            while len(reports) < workers:
                reports.append(await answers.get())

        waits = [asyncio.create_task(collect()), asyncio.create_task(self._hub.leaving.wait())]
        try:
            await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _read(self, channels: Channels) -> None:
        while True:
            data = await channels.read()
            if data is None:
                continue
            message = json.loads(data)
            if "report" in message:
                answers = self._questions.get(message["question"])
                if answers is not None:
                    answers.put_nowait(message["report"])
            elif len(self._answering) < MAX_QUESTIONS:
                task = asyncio.create_task(self._answer(message))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, question: dict[str, Any]) -> None:
        answer = {"question": question["question"], "report": {"worker": self.name, **await self._report(question)}}
        try:
            await self._send(TELL + question["worker"], **answer)
        except StoreError as error:
            self._unsent.note("to others", "receipts: an answer was not sent: %s", error)

    async def _report(self, question: dict[str, Any]) -> dict[str, Any]:
        if "deleted" in question:
            return report("deleted", await self._hub.delete(question["stream"], question["deleted"]))
        return await self._hub.report(question["stream"], question["entry"], question["n"], wait=question["wait"])

    async def _send(self, channel: str, **fields: Any) -> int:
        """Publish a message; the number of workers that it reached."""
        return await self._store.publish(channel, json.dumps(fields))


def _receipt(reports: list[dict[str, Any]], *, silent: int) -> dict[str, Any]:
    """The reports of the workers, and their sum."""
    late: Counter[int] = Counter()
    workers = []
    for each in sorted(reports, key=lambda each: str(each["worker"])):
        own: Counter[int] = Counter(dict(each.pop("late")))
        late += own
        workers.append({**each, "sent": own.total(), **_quantiles(own)})
    return {
        "reached": bool(workers) and not silent and all(worker["state"] != "waiting" for worker in workers),
        "sent": late.total(),
        "behind": sum(worker["behind"] for worker in workers),
        **_quantiles(late),
        "silent": silent,
        "workers": workers,
    }


def _quantiles(late: Counter[int]) -> dict[str, int | None]:
    """The milliseconds after which half of the readers, 99 of 100, and the last had received the event."""
    return {name: _quantile(late, part) for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("last_ms", 1.0))}


def _quantile(late: Counter[int], part: float) -> int | None:
    rank = math.ceil(late.total() * part)
    for ms in sorted(late):
        rank -= late[ms]
        if rank <= 0:
            return ms
    return None
