"""The reader yields a stream's events as an async generator, and connects again by the rule of `subscription`."""

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

from .errors import TurnedAway
from .retry import retry_after
from .subscription import ENDED, NO_CODE, TOKEN_EXPIRED, Action, State, Subscription

logger = logging.getLogger(__name__)

FRAME_LIMIT = 64 * 2**20  # bytes; a snapshot is the largest frame
CLOSE_LIMIT = 1.0  # seconds for the server's close frame: a server that is left may be one that is silent


async def follow(
    url: str, stream: str, *, cursor: str = "", format: str = "json", token: str = ""
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield every event of a stream after the cursor, in order, each once, across reconnects.

    A `snapshot` comes first where there is no cursor or where it is too old. The generator ends when the stream has
    ended. `token` is a reader's token for a private stream. Raises TurnedAway where the server refuses for good.
    """
    subscription = Subscription(cursor)
    address = url.replace("http", "ws", 1).rstrip("/") + f"/streams/{quote(stream, safe='')}/ws?"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    now = asyncio.get_running_loop().time
    subscription.wake(now(), random.random())
    while True:
        try:
            query = urlencode({"cursor": subscription.cursor, "format": format})
            async with asyncio.timeout_at(subscription.due):
                socket = await connect(
                    address + query,
                    additional_headers=headers,
                    close_timeout=CLOSE_LIMIT,
                    max_size=FRAME_LIMIT,
                    compression=None,
                    proxy=None,
                )
            async with socket:
                async for frame in _frames(socket, subscription):
                    yield frame
        except InvalidStatus as error:
            _refused(subscription, error)
        except ConnectionClosed as error:
            _closed(subscription, error.rcvd.code if error.rcvd else NO_CODE)
        except (OSError, WebSocketException):  # a TimeoutError is an OSError
            subscription.closed(NO_CODE, now(), random.random())
        if subscription.state is State.ENDED:
            return
        assert subscription.due is not None
        logger.warning("not connected to stream %s; next attempt in %.1f s", stream, max(0.0, subscription.due - now()))
        while subscription.tick(now(), random.random()) is not Action.CONNECT:
            await asyncio.sleep(subscription.due - now())


async def _frames(socket: ClientConnection, subscription: Subscription) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the frames to apply of one connection, until the subscription gives it up."""
    now = asyncio.get_running_loop().time
    while subscription.state not in (State.WAITING, State.ENDED):
        try:
            async with asyncio.timeout_at(subscription.due):
                frame = json.loads(await socket.recv())
        except TimeoutError:
            subscription.tick(now(), random.random())
            continue
        if subscription.take(frame, now(), random.random()) is Action.APPLY:
            yield frame


def _refused(subscription: Subscription, error: InvalidStatus) -> None:
    """Take note of a handshake that was answered with an HTTP status. Raises TurnedAway where that is final."""
    at, response = asyncio.get_running_loop().time(), error.response
    subscription.closed(NO_CODE, at, random.random())
    subscription.answered(response.status_code, retry_after(response.headers.get("Retry-After")), at, random.random())
    if subscription.state is State.ENDED or response.status_code < 400:
        raise TurnedAway(f"{response.status_code} {bytes(response.body or b'').decode(errors='replace')}") from None


def _closed(subscription: Subscription, code: int) -> None:
    """Take note of a close code. Raises TurnedAway where that is final, and not the end of the stream."""
    subscription.closed(code, asyncio.get_running_loop().time(), random.random())
    if subscription.state is State.ENDED and code != ENDED:
        raise TurnedAway("the token has expired" if code == TOKEN_EXPIRED else f"close code {code}")
