"""Publishers send entries, corrections and pages to a server over HTTP, for scripts and for the command line.

`Publisher` blocks until the answer is there, `AsyncPublisher` is awaited; both make the same calls. A request that
fails on the way is sent again with the same idempotency key until its outcome is known: see `retry`.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import re
import time
import uuid
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx2

from .errors import Rejected, Unauthorized
from .retry import NDJSON, Answer, Attempts, Call, is_ndjson

GOT_LIMIT = 80  # characters of a name that an error repeats
NAMES = {
    "stream": "1 to 64 characters of a-z, 0-9 and -, not beginning with -",
    "id": "1 to 64 characters of A-Z, a-z, 0-9, - and _, beginning with a letter or digit",
}
# The server has the same two, in `web/idempotency_key.py`.
IDEMPOTENCY_KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,200})"|([\x21\x23-\x5b\x5d-\x7e]{1,200})')
KEY_EXPECTED = "1 to 200 visible ASCII characters, no quote or backslash"
TIMEOUT = 20.0  # seconds for one attempt, of which a delivery receipt may take several

T = TypeVar("T")


class _Calls(Generic[T]):
    """_Calls builds each call to a server; a subclass sends it, and returns the answer or raises PublishError."""

    def _send(self, call: Call) -> T:
        raise NotImplementedError

    def publish(self, stream: str, entry: dict[str, Any], *, idempotency_key: str | None = None) -> T:
        """Publish an entry and return the server's answer; `replayed` is true where the key had been used before."""
        return self._send(_change("POST", _entries(stream), entry, idempotency_key))

    def publish_all(self, stream: str, entries: Sequence[dict[str, Any]], *, idempotency_key: str | None = None) -> T:
        """Publish up to 1,000 entries in one request and return `{results}`, one with a `status` for each."""
        lines = b"".join(encode(entry) + b"\n" for entry in entries)
        return self._send(Call("POST", _entries(stream), lines, _key(idempotency_key), media_type=NDJSON))

    def restore(self, stream: str, lines: Sequence[bytes]) -> T:
        """Restore up to 1,000 lines of an export and return `{results}`, one for each until the first refused line."""
        return self._send(Call("POST", f"{_stream(stream)}/restore", b"\n".join(lines), media_type=NDJSON))

    def dry_run(self, stream: str, entry: dict[str, Any]) -> T:
        """Check an entry and return `{entry, html, warnings}` as it would be published. Nothing is stored."""
        return self._send(Call("POST", f"{_entries(stream)}?dry_run=1", encode(entry)))

    def put_entry(
        self, stream: str, id: str, entry: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> T:
        """Put a whole entry under an id of your choice; `rev` is the only revision that it may replace."""
        return self._send(_change("PUT", _entry(stream, id), entry, idempotency_key, rev))

    def correct(
        self, stream: str, id: str, patch: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> T:
        """Change the fields that a merge patch (RFC 7396) names; `rev` is the only revision that it may change."""
        return self._send(_change("PATCH", _entry(stream, id), patch, idempotency_key, rev))

    def withdraw(
        self,
        stream: str,
        id: str,
        *,
        reason: str = "error",
        note: str | None = None,
        rev: int | None = None,
        idempotency_key: str | None = None,
    ) -> T:
        """Withdraw an entry; `reason` is error, legal, duplicate or moved. The answer has a delivery `receipt`."""
        query = urlencode({"reason": reason, **({"note": note} if note else {})})
        return self._send(_change("DELETE", f"{_entry(stream, id)}?{query}", None, idempotency_key, rev))

    def erase(self, stream: str, id: str) -> T:
        """Erase the text of an entry that was withdrawn before from the records and files of the server's store."""
        return self._send(Call("POST", f"{_desk_entry(stream, id)}/erase"))

    def history(self, stream: str, id: str) -> T:
        """Return `{id, revisions}` of an entry: when, by which key, and the names of the fields that each changed."""
        return self._send(Call("GET", f"{_desk_entry(stream, id)}/history"))

    def delivery(self, stream: str, id: str, *, n: int | None = None, wait: float = 0) -> T:
        """Return the receipt of an entry's event `n`, by default the newest; wait up to `wait` s for all workers."""
        query = urlencode({"wait": wait, **({"n": n} if n else {})})
        return self._send(Call("GET", f"{_entry(stream, id)}/delivery?{query}"))

    def delete_stream(self, stream: str, *, forget: bool = False) -> T:
        """Delete a whole stream, and close its readers; with `forget`, its name can be used again at once."""
        return self._send(Call("DELETE", f"{_stream(stream)}{'?forget=true' if forget else ''}"))

    def list_streams(self, *, after: str | None = None, limit: int = 100) -> T:
        """Return `{streams, after}`, a part of the streams that the key is for; the next one begins at `after`."""
        query = urlencode({"limit": limit, **({"after": after} if after else {})})
        return self._send(Call("GET", f"/streams?{query}"))

    def put_page(self, stream: str, page: dict[str, Any], *, idempotency_key: str | None = None) -> T:
        """Put a stream's whole page."""
        return self._send(_change("PUT", _stream(stream), page, idempotency_key))

    def patch_page(
        self, stream: str, patch: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> T:
        """Change the fields of a stream's page that a merge patch names; a stream without a page gets one."""
        return self._send(_change("PATCH", _stream(stream), patch, idempotency_key, rev))

    def end(self, stream: str, *, next: dict[str, str] | None = None, idempotency_key: str | None = None) -> T:
        """End a stream; `next`, a `label` and a `url`, names the page that follows."""
        return self._send(_change("POST", f"{_stream(stream)}/end", {"next": next} if next else {}, idempotency_key))


class Publisher(_Calls[Answer]):
    """Publisher publishes to a server and blocks until each answer. Use it from one thread at a time.

    Proxies and certificates are those of the environment (HTTP_PROXY, SSL_CERT_FILE). A server on this machine is
    reached without a proxy, and every server if `direct`.

    >>> with Publisher("http://127.0.0.1:8000", key) as publisher:
    ...     publisher.publish("storm", {"headline": "Bridge reopened", "body": "Both lanes are open."})
    """

    def __init__(self, url: str, key: str, *, direct: bool = False) -> None:
        self.url = url.rstrip("/")
        headers = authorization(key)
        with _environment_named():
            self._http = httpx2.Client(timeout=TIMEOUT, headers=headers, **_reach(url, direct))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _send(self, call: Call) -> Answer:
        attempts = Attempts(call)
        while True:
            try:
                response: httpx2.Response | httpx2.TransportError = self._http.request(
                    call.method, call.path, content=call.content, headers=call.headers()
                )
            except httpx2.TransportError as error:
                response = error
            outcome = attempts.judge(response)
            if not isinstance(outcome, float):
                return outcome
            time.sleep(outcome)

    def streams(self) -> Iterator[dict[str, Any]]:
        """Yield every stream that the key is for, the last changed first."""
        after: str | None = None
        while True:
            part = self.list_streams(after=after)
            yield from part["streams"]
            after = part["after"]
            if after is None:
                return

    def export(self, stream: str, file: BinaryIO, *, history: bool = False) -> None:
        """Write a whole stream to a seekable file, as lines that `restore` takes. Raises PublishError.

        With `history` each entry is followed by who made its revisions; the key needs the right audit, too.
        """
        query = "?history=true" if history else ""
        call = Call("GET", f"{_stream(stream)}/export{query}", media_type=NDJSON)
        start, attempts = file.tell(), Attempts(call)
        while True:
            file.seek(start)
            file.truncate()
            try:
                with self._http.stream(call.method, call.path) as response:
                    if response.is_success and is_ndjson(response):
                        file.writelines(response.iter_bytes())
                        return
                    response.read()
                outcome = attempts.judge(response)
            except httpx2.TransportError as error:
                outcome = attempts.judge(error)
            assert isinstance(outcome, float), "judge raises on every other answer"
            time.sleep(outcome)


class AsyncPublisher(_Calls[Awaitable[Answer]]):
    """AsyncPublisher publishes to a server from asyncio; many tasks may share one.

    >>> async with AsyncPublisher("http://127.0.0.1:8000", key) as publisher:
    ...     await publisher.publish("storm", {"headline": "Bridge reopened"})
    """

    def __init__(self, url: str, key: str, *, direct: bool = False) -> None:
        headers = authorization(key)
        with _environment_named():
            self._http = httpx2.AsyncClient(timeout=TIMEOUT, headers=headers, **_reach(url, direct))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, call: Call) -> Answer:
        attempts = Attempts(call)
        while True:
            try:
                response: httpx2.Response | httpx2.TransportError = await self._http.request(
                    call.method, call.path, content=call.content, headers=call.headers()
                )
            except httpx2.TransportError as error:
                response = error
            outcome = attempts.judge(response)
            if not isinstance(outcome, float):
                return outcome
            await asyncio.sleep(outcome)


def _reach(url: str, direct: bool) -> dict[str, Any]:
    """Return the options of a client for a server. A proxy would connect to its own machine by the name localhost."""
    base = httpx2.URL(url)
    if not direct and not _is_loopback(base.host):
        return {"base_url": url}
    if base.scheme == "http":
        return {"base_url": url, "trust_env": False}
    host = f"[{base.host}]" if ":" in base.host else base.host
    return {"base_url": url, "mounts": {f"all://{host}": None}}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@contextmanager
def _environment_named() -> Iterator[None]:
    """Raise Rejected for a URL, or a proxy or certificate of the environment, with which no client can be made."""
    try:
        yield
    except (httpx2.InvalidURL, ValueError, ImportError, OSError) as error:
        detail = f"The server's URL, or a proxy or certificate of the environment (HTTP_PROXY, SSL_CERT_FILE): {error}"
        raise Rejected(0, {"detail": detail}) from None


def authorization(key: str) -> dict[str, str]:
    """Return the header that carries a publish key. Raises Unauthorized where the key does not fit into a header.

    White space around the key is dropped: a key that is read from a file has a line's end.
    """
    key = key.strip()
    if not re.fullmatch("[\x21-\x7e]+", key):
        raise Unauthorized(0, {"detail": "The publish key: expected visible ASCII characters, got others or none."})
    return {"Authorization": f"Bearer {key}"}


def _change(
    method: str, path: str, value: dict[str, Any] | None, idempotency_key: str | None, rev: int | None = None
) -> Call:
    content = encode(value) if value is not None else None
    return Call(method, path, content, _key(idempotency_key), rev)


def _key(idempotency_key: str | None) -> str:
    """Return the idempotency key of a call, a new one for None. Raises Rejected for one that the server would refuse.

    An empty one is refused, too: a script that has none by mistake would store a second entry at its next run.
    """
    if idempotency_key is None:
        return uuid.uuid4().hex
    if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        got = idempotency_key[:GOT_LIMIT] or "an empty string"
        fault = {"field": "Idempotency-Key", "expected": KEY_EXPECTED, "got": got}
        raise Rejected(0, {"detail": "The idempotency key is not valid; nothing was sent.", "errors": [fault]})
    return idempotency_key


def _stream(stream: str) -> str:
    return f"/streams/{_segment('stream', stream)}"


def _entries(stream: str) -> str:
    return f"{_stream(stream)}/entries"


def _entry(stream: str, id: str) -> str:
    return f"{_entries(stream)}/{_segment('id', id)}"


def _desk_entry(stream: str, id: str) -> str:
    return f"{_stream(stream)}/desk/entries/{_segment('id', id)}"


def _segment(field: str, name: str) -> str:
    """Return a name as one segment of a path. Raises Rejected for one that would be none, or several.

    Servers and proxies decode `%2F` and resolve `..`: who deletes the stream `a/entries/b` would withdraw the entry b.
    """
    if "/" in name or name in ("", ".", ".."):
        fault = {"field": field, "expected": NAMES[field], "got": name[:GOT_LIMIT] or "an empty string"}
        raise Rejected(0, {"detail": f"The name in {field} is not valid; nothing was sent.", "errors": [fault]})
    return quote(name, safe="")


def encode(value: dict[str, Any]) -> bytes:
    """Encode a value as the body of a request: the same bytes for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def content_key(kind: str, value: dict[str, Any]) -> str:
    """Return an idempotency key made of the content, so that the same content is stored once."""
    return f"{kind}-{hashlib.sha256(encode(value)).hexdigest()[:48]}"
