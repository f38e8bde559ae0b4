"""The address that the doctor looks at: its requests, each with a deadline, and its readers over both transports."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

TOKEN_COOKIE = "pushserver_token"  # in which browsers send the token of a private stream
STEP_LIMIT = 10.0  # seconds for one request, one handshake, or one close
FRAME_BYTES = 4 * 2**20  # of one frame of a WebSocket
BODY_BYTES = 8 * 2**20  # of one answer
QUEUE = 1_000  # frames of one reader that wait; a reader that has more is stopped
FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, InvalidHandshake, OSError, ValueError, RecursionError)


class Answered(NamedTuple):
    """An Answered request: its status, headers and body, and the client's own port, 0 where it is not known."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    port: int

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one where it is none."""
        with suppress(ValueError, RecursionError):
            value = json.loads(self.body)
            return value if isinstance(value, dict) else {}
        return {}


class Unanswered(Exception):
    """Unanswered says why a request or a handshake had no answer, or which status a handshake had (0: none)."""

    def __init__(self, says: str, status: int = 0) -> None:
        super().__init__(says)
        self.status = status


class FollowingReader:
    """A FollowingReader is one reader of a stream, whose frames are read in the background."""

    def __init__(self, name: str, headers: Mapping[str, str]) -> None:
        self.name = name
        self.headers = headers
        self.began = asyncio.get_running_loop().time()
        self.ended_after: float | None = None  # seconds
        self.ending = ""
        self._frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE)
        self._reading: asyncio.Task[None] | None = None

    def start(self, frames: AsyncIterator[str]) -> None:
        """Read frames until their end."""
        self._reading = asyncio.create_task(self._read(frames))

    async def _read(self, frames: AsyncIterator[str]) -> None:
        try:
            async for text in frames:
                self._frames.put_nowait(json.loads(text))
        except (ConnectionClosed, asyncio.QueueFull, *FAILURES) as error:
            self.ending = str(error)
        self.ended_after = asyncio.get_running_loop().time() - self.began

    async def next(self, kind: str, limit: float) -> dict[str, Any] | None:
        """The next frame of a kind; None where none comes within so many seconds."""
        try:
            async with asyncio.timeout(limit):
                while True:
                    frame = await self._frames.get()
                    if frame.get("type") == kind:
                        return frame
        except TimeoutError:
            return None

    async def stop(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


class Target:
    """Target is the public address of a server, with the key of its publisher and the token of its readers.

    The token is sent as browsers send it by themselves, in a cookie: some proxies take cookies away.
    """

    def __init__(self, url: str, key: str, token: str, http: httpx2.AsyncClient) -> None:
        parts = urlsplit(url)
        self.url = url
        self.scheme = parts.scheme
        self.netloc = parts.netloc
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.key = key
        self._read = {"Cookie": f"{TOKEN_COOKIE}={token}"} if token else {}
        self._http = http

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, key: str, token: str = "") -> AsyncIterator[Target]:
        """A target with a client of its own. Proxies of the environment are not asked for this machine."""
        limits = httpx2.Limits(
            max_connections=64, max_keepalive_connections=0
        )  # each request on a connection of its own
        is_local = _is_loopback(urlsplit(url).hostname or "")
        async with httpx2.AsyncClient(
            limits=limits, timeout=STEP_LIMIT, trust_env=not is_local or url.startswith("https"), mounts=_direct(url)
        ) as http:
            yield cls(url, key, token, http)

    async def ask(self, method: str, path: str, value: Any = None, *, keyed: bool = False, **headers: str) -> Answered:
        """Send a request; a `value` is its JSON. Raises Unanswered."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        sent |= {"Authorization": f"Bearer {self.key}"} if keyed else self._read
        try:
            async with asyncio.timeout(STEP_LIMIT):
                async with self._http.stream(method, f"{self.url}{path}", json=value, headers=sent) as response:
                    local = response.extensions["network_stream"].get_extra_info("client_addr") or (None, 0)
                    body = await _body(response)
        except TimeoutError:
            raise Unanswered(f"{method} {path}: no answer within {STEP_LIMIT:g} s") from None
        except FAILURES as error:
            raise Unanswered(f"{method} {path}: {error or type(error).__name__}") from None
        return Answered(response.status_code, response.headers, body, local[1])

    @asynccontextmanager
    async def socket(self, stream: str, cursor: str = "", *, origin: str = "") -> AsyncIterator[FollowingReader]:
        """A reader over WebSocket. Raises Unanswered where it is not opened."""
        address = f"{self.url.replace('http', 'ws', 1)}/streams/{stream}/ws?cursor={cursor}"
        opening = connect(
            address,
            origin=origin or None,  # type: ignore[arg-type]
            additional_headers=self._read,
            open_timeout=STEP_LIMIT,
            close_timeout=1,
            max_size=FRAME_BYTES,
            ping_interval=None,  # pings would keep a connection open that a proxy takes for idle
            proxy=None if _is_loopback(urlsplit(self.url).hostname or "") else True,
        )
        connection = await _opened(opening)
        try:
            headers = connection.response.headers if connection.response else {}
            reader = FollowingReader("WebSocket", {name.lower(): value for name, value in headers.items()})
            reader.start(_messages(connection))
            try:
                yield reader
            finally:
                await reader.stop()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(STEP_LIMIT):
                    await connection.close()

    @asynccontextmanager
    async def events(self, stream: str, cursor: str = "") -> AsyncIterator[FollowingReader]:
        """A reader over Server-Sent Events, which accepts gzip as browsers do. Raises Unanswered."""
        request = self._http.build_request(
            "GET",
            f"{self.url}/streams/{stream}/sse?cursor={cursor}",
            headers={"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate, br", **self._read},
            timeout=httpx2.Timeout(STEP_LIMIT, read=None),
        )
        try:
            async with asyncio.timeout(STEP_LIMIT):
                response = await self._http.send(request, stream=True)
        except TimeoutError:
            raise Unanswered(f"no answer within {STEP_LIMIT:g} s") from None
        except FAILURES as error:
            raise Unanswered(str(error) or type(error).__name__) from None
        try:
            if response.status_code != 200:
                raise Unanswered(f"status {response.status_code}", response.status_code)
            reader = FollowingReader("Server-Sent Events", response.headers)
            reader.start(_events(response))
            try:
                yield reader
            finally:
                await reader.stop()
        finally:
            await response.aclose()


async def _opened(opening: connect) -> ClientConnection:
    """A connection that is open. Raises Unanswered."""
    try:
        async with asyncio.timeout(STEP_LIMIT):
            return await opening
    except TimeoutError:
        raise Unanswered(f"no answer within {STEP_LIMIT:g} s") from None
    except InvalidStatus as error:
        raise Unanswered(f"status {error.response.status_code}", error.response.status_code) from None
    except FAILURES as error:
        raise Unanswered(str(error) or type(error).__name__) from None


async def _messages(connection: ClientConnection) -> AsyncIterator[str]:
    async for message in connection:
        yield message if isinstance(message, str) else message.decode()


async def _events(response: httpx2.Response) -> AsyncIterator[str]:
    """The data of each event; the server writes an event's data in one line. Raises ValueError for one too long."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > FRAME_BYTES:
            raise ValueError(f"a line of the events has more than {FRAME_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").decode()


async def _body(response: httpx2.Response) -> bytes:
    """The body of an answer. Raises ValueError for one that is too long."""
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > BODY_BYTES:
            raise ValueError(f"the answer has more than {BODY_BYTES} bytes")
    return body


def _direct(url: str) -> dict[str, None]:
    """The transports of a client: no proxy of the environment is asked for this machine's own addresses."""
    host = urlsplit(url).hostname or ""
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if _is_loopback(host) else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
