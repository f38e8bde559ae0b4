"""The reader yields a stream's events as an async generator, and connects again by the rule of `subscription`."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import socket
import ssl
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from .errors import TurnedAway, Unreachable
from .retry import in_time, retry_after
from .subscription import ENDED, NO_CODE, TOKEN_EXPIRED, Action, Reason, State, Subscription

logger = logging.getLogger(__name__)

FRAME_LIMIT = 64 * 2**20  # bytes; a snapshot is the largest frame
NAMELESS_MOST = 3  # attempts before the first connection, after which a name that no host has is given up
CLOSE_LIMIT = 1.0  # seconds for the server's close frame: a server that is left may be one that is silent


async def follow(
    url: str, stream: str, *, cursor: str = "", format: str = "json", token: str = ""
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield every event of a stream after the cursor, in order, each once, across reconnects.

    A `snapshot` comes first where there is no cursor or where it is too old. The generator ends when the stream has
    ended. `token` is a reader's token for a private stream. Raises TurnedAway where the server refuses for good or the
    stream is deleted, and Unreachable where no later attempt could reach it.
    """
    subscription = Subscription(cursor)
    failures = Failures()
    address = f"{_websocket_url(url)}/streams/{quote(stream, safe='')}/ws?"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    now = asyncio.get_running_loop().time
    subscription.wake(now(), random.random())
    while True:
        try:
            query = urlencode({"cursor": subscription.cursor, "format": format})
            async with asyncio.timeout_at(subscription.due):
                connection = await connect(
                    address + query,
                    additional_headers=headers,
                    close_timeout=CLOSE_LIMIT,
                    max_size=FRAME_LIMIT,
                    compression=None,
                    proxy=None,
                )
            failures = Failures(was_connected=True)
            async with connection:
                async for frame in _frames(connection, subscription):
                    yield frame
        except InvalidStatus as error:
            failures.reason = f"status {error.response.status_code}"
            _refused(subscription, error)
        except ConnectionClosed as error:
            failures.reason = f"closed, {error}"
            _closed(subscription, error.rcvd.code if error.rcvd else NO_CODE)
        except (OSError, WebSocketException, ValueError) as error:  # a TimeoutError is an OSError
            failures.note(error)
            subscription.closed(NO_CODE, now(), random.random())
        if subscription.reason is Reason.DELETED:
            raise TurnedAway("the stream was deleted")
        if subscription.state is State.ENDED:
            return
        assert subscription.due is not None
        delay = max(0.0, subscription.due - now())
        logger.warning("not connected to stream %s (%s); next attempt %s", stream, failures.reason, in_time(delay))
        while subscription.tick(now(), random.random()) is not Action.CONNECT:
            await asyncio.sleep(subscription.due - now())


class Failures:
    """Failures tells which failed attempts to connect may be repeated; `reason` is that of the last one."""

    def __init__(self, *, was_connected: bool = False) -> None:
        self.reason = "the connection was given up"
        self._was_connected = was_connected
        self._nameless = 0  # attempts in a row for which no host had the name

    def note(self, error: Exception) -> None:
        """Take note of a failed attempt. Raises Unreachable where no other attempt could get further."""
        self.reason = str(error) or "no answer in time"
        if isinstance(error, InvalidURI | ssl.SSLCertVerificationError) or type(error) is ValueError:
            raise Unreachable(self.reason) from None
        is_nameless = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
        self._nameless = self._nameless + 1 if is_nameless else 0
        if self._nameless == NAMELESS_MOST and not self._was_connected:
            raise Unreachable(self.reason) from None


def _websocket_url(url: str) -> str:
    """Return the address of a server's WebSockets. Raises Unreachable for what is no URL of a server."""
    if not re.match("https?://[^/]", url, re.IGNORECASE):
        raise Unreachable(f"The server's URL: expected one that begins with http:// or https://, got {url[:200]}")
    try:
        urlsplit(url).port  # noqa: B018  # the attribute raises
    except ValueError as error:
        raise Unreachable(f"The server's URL: {error}, got {url[:200]}") from None
    return f"ws{url[4:].rstrip('/')}"


async def _frames(connection: ClientConnection, subscription: Subscription) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the frames to apply of one connection, until the subscription gives it up."""
    now = asyncio.get_running_loop().time
    while subscription.state not in (State.WAITING, State.ENDED):
        try:
            async with asyncio.timeout_at(subscription.due):
                frame = json.loads(await connection.recv())
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
        raise TurnedAway(f"status {response.status_code}: {_detail(bytes(response.body or b''))}") from None


def _detail(body: bytes) -> str:
    """Return the sentence of a problem, or the text of another answer."""
    text = body.decode(errors="replace")
    try:
        problem = json.loads(text)
    except ValueError:
        return text
    return str(problem.get("detail", text)) if isinstance(problem, dict) else text


def _closed(subscription: Subscription, code: int) -> None:
    """Take note of a close code. Raises TurnedAway where that is final, and not the end of the stream."""
    subscription.closed(code, asyncio.get_running_loop().time(), random.random())
    if subscription.state is State.ENDED and code != ENDED:
        raise TurnedAway("the token has expired" if code == TOKEN_EXPIRED else f"close code {code}")
