"""The reader's side: the one rule by which a client knows that it has everything, and a generator that lives by it.

`Follower` is pure. It holds the last event it applied; an event is applied if it is the next one and names the
last one as the one before. Anything else means that something was lost on the way, and the cure is always the
same: connect again with the cursor, which the server answers with all that is missing, or with a snapshot.
`static/stream.js` is the same rule.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator
from enum import Enum
from typing import Any
from urllib.parse import quote, urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from .client import retry_after

logger = logging.getLogger(__name__)

DELAY_FIRST, DELAY_MOST = 0.5, 20.0  # seconds, of the full-jitter wait before the next connection
SILENT_BEATS = 2.5  # heartbeats without a frame, after which the connection is taken for dead
BEHIND_LIMIT = 5.0  # seconds that a head may be ahead of what arrived
FINAL_CODES = range(4400, 4408)  # close codes that mean: do not come back
TOKEN_EXPIRED = 4401
ENDED = 4410  # the close code of a coverage that is over
FRAME_LIMIT = 64 * 2**20  # bytes; a snapshot is the largest frame


class Verdict(Enum):
    """What to do with a frame."""

    APPLY = "apply"
    KNOWN = "known"  # it came already, or carries no content
    BEHIND = "behind"  # the server has events that did not arrive yet
    LOST = "lost"  # connect again


class Follower:
    """What a reader holds: the cursor and number of the last event it applied."""

    def __init__(self, cursor: str = "") -> None:
        self.cursor = cursor
        self.n = 0
        self.heartbeat = 15.0

    def take(self, frame: dict[str, Any]) -> Verdict:
        """Judge a frame, and move on where it is applied."""
        match frame["type"]:
            case "hello":
                self.heartbeat = frame["heartbeat"]
                if frame["complete"]:
                    self.n = frame["from"]
                return Verdict.KNOWN
            case "reset":
                return Verdict.APPLY  # what was applied is not all there any more; the snapshot that follows is
            case "snapshot":
                self.n, self.cursor = frame["n"], frame["cursor"]
                return Verdict.APPLY
            case "head":
                return Verdict.BEHIND if frame["head"]["n"] > self.n else Verdict.KNOWN
            case "bye":
                return Verdict.LOST
        if "n" not in frame:
            return Verdict.KNOWN  # a kind of frame of a later version
        if frame["n"] <= self.n:
            return Verdict.KNOWN
        if frame["n"] != self.n + 1 or frame["prev"] != self.cursor:
            return Verdict.LOST
        self.n, self.cursor = frame["n"], frame["cursor"]
        return Verdict.APPLY


class TurnedAway(Exception):
    """The server does not want this reader back; says with which status or close code."""


async def follow(
    url: str, stream: str, *, cursor: str = "", format: str = "json", token: str = ""
) -> AsyncGenerator[dict[str, Any], None]:
    """Every event of a stream from the cursor on, in order, each once, across reconnects.

    Without a cursor, or where it is too old, a `snapshot` comes first. Ends when the coverage has. Raises TurnedAway
    where there is no coming back. A private stream needs a token.
    """
    follower = Follower(cursor)
    address = url.replace("http", "ws", 1).rstrip("/") + f"/streams/{quote(stream, safe='')}/ws?"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    failures = 0
    while True:
        asked, delay = 0.0, min(DELAY_MOST, DELAY_FIRST * 2**failures)
        try:
            query = urlencode({"cursor": follower.cursor, "format": format})
            async with connect(
                address + query, additional_headers=headers, max_size=FRAME_LIMIT, compression=None, proxy=None
            ) as socket:
                async for frame in _frames(socket, follower):
                    failures = 0
                    if frame["type"] == "bye":
                        delay = frame["retry_ms"] / 1000
                    else:
                        yield frame
                    if frame["type"] == "stream.end":
                        return
        except InvalidStatus as error:
            status = error.response.status_code
            if status < 500 and status != 429:
                raise TurnedAway(f"{status} {bytes(error.response.body or b'').decode(errors='replace')}") from None
            asked = retry_after(error.response.headers.get("Retry-After"))
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else 1006
            if code == ENDED:
                return
            if code == TOKEN_EXPIRED:
                raise TurnedAway("the token has expired") from None
            if code in FINAL_CODES:
                raise TurnedAway(f"close code {code}") from None
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException):
            pass
        failures += 1
        delay = asked + random.uniform(0, delay)
        logger.warning("not connected to %s; again in %.1f s", stream, delay)
        await asyncio.sleep(delay)


async def _frames(socket: Any, follower: Follower) -> AsyncGenerator[dict[str, Any], None]:
    """The frames of one connection that are to be applied; ends where it is to be given up."""
    loop = asyncio.get_running_loop()
    behind_since: float | None = None
    while True:
        async with asyncio.timeout(follower.heartbeat * SILENT_BEATS):
            frame = json.loads(await socket.recv())
        verdict = follower.take(frame)
        if verdict is Verdict.APPLY or frame["type"] == "bye":
            yield frame
        if verdict is Verdict.LOST:
            return
        if verdict is not Verdict.BEHIND:
            behind_since = None
        elif behind_since is None:
            behind_since = loop.time()
        elif loop.time() - behind_since > BEHIND_LIMIT:
            return
