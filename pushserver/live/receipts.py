"""What became of an event: which workers have it, how many readers were given it, and how late.

Frames count as they are given out, so this costs the road nothing until somebody asks. Then every worker is asked over
a channel of the store (sharded, so that one node knows how many were reached), and tells what its own feed knows.
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

from ..store.connection import Channels
from ..store.store import Store, StoreError
from .hub import Hub

logger = logging.getLogger(__name__)

ASK, TELL = "{p00}:asked", "{p00}:told:"  # channels: to every worker, and to the one that asked
MOST_AT_ONCE = 64  # questions that a worker works on; one more is not answered, and its asker counts a silent worker
GRACE = 2.0  # seconds, beyond the wait, for the answers to come
RETRY = 1.0  # seconds before a lost channel is opened again


class Receipts:
    """Asks all workers about an event, and answers for this one. `run` owns the channels."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._questions: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self.open = False

    async def run(self) -> None:
        """Hear what others ask and tell, until cancelled."""
        while True:
            try:
                async with self._store.channels(ASK, TELL + self._name) as channels:
                    self.open = True
                    await self._hear(channels)
            except (StoreError, OSError) as error:
                logger.warning("receipts: the store does not answer: %s", error)
                await asyncio.sleep(RETRY)
            finally:
                self.open = False

    async def of(self, stream: str, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """The receipt of an entry's event `n`, or of its newest; waits so many seconds for all workers to have it."""
        question = secrets.token_hex(8)
        answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._questions[question] = answers
        told: list[dict[str, Any]] = []
        try:
            asked = await self._tell(
                ASK, question=question, worker=self._name, stream=stream, entry=entry_id, n=n, wait=wait
            )
            try:
                async with asyncio.timeout(wait + GRACE):
                    while len(told) < asked:
                        told.append(await answers.get())
            except TimeoutError:
                pass  # who has not answered by now is silent
        finally:
            del self._questions[question]
        return _receipt(told, silent=asked - len(told))

    async def _hear(self, channels: Channels) -> None:
        while True:
            message = await channels.read()
            if message is None:
                continue
            told = json.loads(message)
            if "report" in told:
                answers = self._questions.get(told["question"])
                if answers is not None:
                    answers.put_nowait(told["report"])
            elif len(self._answering) < MOST_AT_ONCE:
                task = asyncio.create_task(self._answer(told))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, asked: dict[str, Any]) -> None:
        report = await self._hub.report(asked["stream"], asked["entry"], asked["n"], wait=asked["wait"])
        try:
            await self._tell(
                TELL + asked["worker"], question=asked["question"], report={"worker": self._name, **report}
            )
        except StoreError as error:
            logger.warning("receipts: an answer was not told: %s", error)

    async def _tell(self, channel: str, **fields: Any) -> int:
        return await self._store.publish(channel, json.dumps(fields))


def _receipt(told: list[dict[str, Any]], *, silent: int) -> dict[str, Any]:
    """The answers of the workers, and their sum."""
    late: Counter[int] = Counter()
    workers = []
    for report in sorted(told, key=lambda report: str(report["worker"])):
        own: Counter[int] = Counter(dict(report.pop("late")))
        late += own
        workers.append({**report, "sent": own.total(), **_quantiles(own)})
    return {
        "reached": bool(workers) and not silent and all(worker["state"] != "waiting" for worker in workers),
        "sent": late.total(),
        "behind": sum(worker["behind"] for worker in workers),
        **_quantiles(late),
        "silent": silent,
        "workers": workers,
    }


def _quantiles(late: Counter[int]) -> dict[str, int | None]:
    """After how many milliseconds half of the readers, 99 of 100, and the last had been given it."""
    return {name: _quantile(late, part) for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("last_ms", 1.0))}


def _quantile(late: Counter[int], part: float) -> int | None:
    rank = math.ceil(late.total() * part)
    for ms in sorted(late):
        rank -= late[ms]
        if rank <= 0:
            return ms
    return None
