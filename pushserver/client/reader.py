"""A reader as a generator: connects, lives by the rule of `rule`, and yields what is to be shown."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .publisher import retry_after
from .subscription import TOKEN_EXPIRED, Action, Follower, State

logger = logging.getLogger(__name__)

FRAME_LIMIT = 64 * 2**20  # bytes; a snapshot is the largest frame
CLOSE_LIMIT = 1.0  # seconds for a server to take a farewell; the one that is left may be the one that is silent
ENDED = 4410  # the close code of a coverage that is over


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
    now = asyncio.get_running_loop().time
    follower.wake(now(), random.random())
    while True:
        try:
            query = urlencode({"cursor": follower.cursor, "format": format})
            async with asyncio.timeout_at(follower.due):
                socket = await connect(
                    address + query,
                    additional_headers=headers,
                    close_timeout=CLOSE_LIMIT,
                    max_size=FRAME_LIMIT,
                    compression=None,
                    proxy=None,
                )
            async with socket:
                async for frame in _frames(socket, follower):
                    yield frame
        except InvalidStatus as error:
            _refused(follower, error)
        except ConnectionClosed as error:
            _closed(follower, error.rcvd.code if error.rcvd else 1006)
        except (OSError, WebSocketException):  # a TimeoutError is an OSError
            follower.closed(1006, now(), random.random())
        if follower.state is State.ENDED:
            return
        assert follower.due is not None
        logger.warning("not connected to %s; again in %.1f s", stream, max(0.0, follower.due - now()))
        while follower.tick(now(), random.random()) is not Action.CONNECT:
            await asyncio.sleep(follower.due - now())


async def _frames(socket: ClientConnection, follower: Follower) -> AsyncGenerator[dict[str, Any], None]:
    """The frames of one connection that are to be shown; ends where it is to be given up."""
    now = asyncio.get_running_loop().time
    while follower.state not in (State.WAITING, State.ENDED):
        try:
            async with asyncio.timeout_at(follower.due):
                frame = json.loads(await socket.recv())
        except TimeoutError:
            follower.tick(now(), random.random())
            continue
        if follower.take(frame, now(), random.random()) is Action.APPLY:
            yield frame


def _refused(follower: Follower, error: InvalidStatus) -> None:
    """A handshake that was answered with an HTTP status. Raises TurnedAway where that is final."""
    at, response = asyncio.get_running_loop().time(), error.response
    follower.closed(1006, at, random.random())
    follower.answered(response.status_code, retry_after(response.headers.get("Retry-After")), at, random.random())
    if follower.state is State.ENDED or response.status_code < 400:
        raise TurnedAway(f"{response.status_code} {bytes(response.body or b'').decode(errors='replace')}") from None


def _closed(follower: Follower, code: int) -> None:
    """A connection that was closed. Raises TurnedAway where that is final, and not the end of the coverage."""
    follower.closed(code, asyncio.get_running_loop().time(), random.random())
    if follower.state is State.ENDED and code != ENDED:
        raise TurnedAway("the token has expired" if code == TOKEN_EXPIRED else f"close code {code}")
