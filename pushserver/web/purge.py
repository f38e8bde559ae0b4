"""Purges ask the caches in front of the server to drop what they have of a stream, after a withdrawal.

Each address is one request of the method PURGE, as Varnish and Fastly have it: with the `Host` that readers use, and
the `Surrogate-Key` of the answers. A purge that fails is logged; the times in Cache-Control hold all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2

from .. import metrics
from ..surfaces.surface import NEWEST, Surface

logger = logging.getLogger(__name__)

WAITING = 256  # withdrawals whose purges wait; those of another one are not sent, which is counted as dropped
DEADLINE = 5.0  # seconds for a cache to answer
ATTEMPTS = 2  # at an address


class _Withdrawal(NamedTuple):
    stream: str
    entry_id: str


class Purger:
    """Purger sends the purges of withdrawals, one withdrawal after the other, until its `run` is cancelled.

    `templates` are URLs, separated by spaces, in which {path} stands for the path of an address and {stream} for a
    name. `host` is that of the public address, empty where none is set. A private stream is in no cache.
    """

    def __init__(self, templates: str, *, host: str = "", is_private: Callable[[str], bool]) -> None:
        self._templates = templates.split()
        self._host = {"Host": host} if host else {}
        self._is_private = is_private
        self._waiting: asyncio.Queue[_Withdrawal] = asyncio.Queue(WAITING)

    def purge(self, stream: str, entry_id: str) -> None:
        """Have the addresses purged that showed an entry; without one, those of the stream. It waits for no cache."""
        if self._is_private(stream):
            return
        try:
            self._waiting.put_nowait(_Withdrawal(stream, entry_id))
        except asyncio.QueueFull:
            metrics.PURGES.inc("dropped")
            logger.warning("stream %s: no purge of a withdrawal is sent: %d wait for the caches", stream, WAITING)

    async def run(self) -> None:
        """Send the purges that are asked for."""
        # Neither redirects nor the proxies of the environment are followed: it calls what the setting names alone.
        async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False, follow_redirects=False) as http:
            while True:
                withdrawal = await self._waiting.get()
                headers = {"Surrogate-Key": withdrawal.stream, **self._host}
                await asyncio.gather(*(self._send(http, url, headers) for url in self.addresses(*withdrawal)))

    def addresses(self, stream: str, entry_id: str) -> list[str]:
        """The URLs to purge after the withdrawal of an entry, '' for a deletion, each once."""
        surfaces = ["" if surface is Surface.PAGE else f"/{surface.value}" for surface in NEWEST]
        entry = [f"/entries/{entry_id}"] if entry_id else []
        paths = [f"streams/{stream}{part}" for part in (*surfaces, *entry)]
        filled = (
            template.replace("{path}", path).replace("{stream}", stream)
            for template in self._templates
            for path in paths
        )
        return list(dict.fromkeys(filled))

    async def _send(self, http: httpx2.AsyncClient, url: str, headers: dict[str, str]) -> None:
        problem = ""
        for _ in range(ATTEMPTS):
            problem = await _attempt(http, url, headers)
            if not problem:
                metrics.PURGES.inc("done")
                return
        metrics.PURGES.inc("failed")
        logger.warning("the cache at %s was not purged: %s", urlsplit(url).netloc, problem)


async def _attempt(http: httpx2.AsyncClient, url: str, headers: dict[str, str]) -> str:
    """Purge an address; what went wrong, '' where nothing did. A cache that has nothing there may answer 404."""
    try:
        async with asyncio.timeout(DEADLINE), http.stream("PURGE", url, headers=headers) as answer:
            is_done = answer.is_success or answer.status_code == 404  # the body is not read
            return "" if is_done else f"it answered {answer.status_code}"
    except (httpx2.HTTPError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
