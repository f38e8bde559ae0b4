"""The publisher's side over HTTP: what scripts import, and the command line uses.

`Publisher` waits for each answer, `AsyncPublisher` is awaited; both are drivers of the same calls. Whatever fails on
the way is repeated, with the same idempotency key, until the outcome is known: what was published is stored once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
import time
import uuid
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, BinaryIO, Generic, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx2

TIMEOUT = 20.0  # seconds for one attempt; a receipt may be waited for
ATTEMPTS = 8  # then the outcome is given up as unknown
DELAY_MOST = 5.0  # seconds between two attempts, beyond what the server asked for
RETRY_AFTER_MOST = 60.0  # seconds that a server is obeyed
LATER = (429, 502, 503, 504)  # statuses that mean: the same again, later

Answer = dict[str, Any]
T = TypeVar("T")


class PublishError(Exception):
    """It was not done. `problem` is the server's answer (RFC 9457), `status` 0 where none came."""

    def __init__(self, status: int, problem: dict[str, Any], idempotency_key: str = "") -> None:
        super().__init__(problem.get("detail") or f"status {status}")
        self.status = status
        self.problem = problem
        self.idempotency_key = idempotency_key

    @property
    def errors(self) -> list[dict[str, str]]:
        """What was wrong, field by field: `{field, expected, got}`."""
        found: list[dict[str, str]] = self.problem.get("errors", [])
        return found

    def __str__(self) -> str:
        faults = [f"  {fault['field']}: expected {fault['expected']}, got {fault['got']}" for fault in self.errors]
        return "\n".join([self.problem.get("detail") or f"status {self.status}", *faults])


class Unreached(PublishError):
    """No answer that says what became of it, after every attempt. Send it again with the same `idempotency_key`."""

    def __str__(self) -> str:
        again = f"\n  It may be stored; sent again with the idempotency key {self.idempotency_key}, it is stored once."
        return super().__str__() + (again if self.idempotency_key else "")


class Rejected(PublishError):
    """The request is not valid, by `errors`; it has to be mended."""


class Unauthorized(PublishError):
    """No key, a wrong one, or one that is not for this."""


class NotFound(PublishError):
    """There is nothing by that name."""


class Gone(PublishError):
    """The entry was withdrawn."""


class Conflict(PublishError):
    """The stream has ended, or is full."""


class Changed(PublishError):
    """It is not the revision any more that the script saw; `current` is what it is now, None where nothing is."""

    @property
    def current(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.problem.get("current")
        return found

    @property
    def rev(self) -> int | None:
        """The revision that is current."""
        return self.current["rev"] if self.current else None


_ERRORS = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 410: Gone, 412: Changed}


JSON, NDJSON = "application/json", "application/x-ndjson"


class Call(NamedTuple):
    """One request, as it is sent each time. `key` is its idempotency key, '' for one that changes nothing."""

    method: str
    path: str
    content: bytes | None = None
    key: str = ""
    rev: int | None = None
    kind: str = JSON

    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": self.kind} if self.content is not None else {}
        if self.key:
            headers["Idempotency-Key"] = self.key
        if self.rev is not None:
            headers["If-Match"] = f'"{self.rev}"'
        return headers


class _Calls(Generic[T]):
    """What can be asked of a server; a driver sends it and gives the answer, or raises a PublishError."""

    def _send(self, call: Call) -> T:
        raise NotImplementedError

    def publish(self, stream: str, entry: dict[str, Any], *, idempotency_key: str | None = None) -> T:
        """Publish an entry: the server's answer, with `replayed` true where the key had been used already."""
        return self._send(_change("POST", _entries(stream), entry, idempotency_key))

    def publish_all(self, stream: str, entries: Sequence[dict[str, Any]], *, idempotency_key: str | None = None) -> T:
        """Publish up to 1,000 entries in one request: `{results}`, one for each, with its `status`."""
        lines = b"".join(encode(entry) + b"\n" for entry in entries)
        return self._send(Call("POST", _entries(stream), lines, idempotency_key or uuid.uuid4().hex, kind=NDJSON))

    def restore(self, stream: str, lines: Sequence[bytes]) -> T:
        """Put back up to 1,000 lines of an export: `{results}`, one for each until the first that is refused."""
        return self._send(Call("POST", f"{_stream(stream)}/restore", b"\n".join(lines), kind=NDJSON))

    def dry_run(self, stream: str, entry: dict[str, Any]) -> T:
        """What publishing an entry would make of it: `{entry, html, warnings}`. Nothing is stored."""
        return self._send(Call("POST", f"{_entries(stream)}?dry_run=1", encode(entry)))

    def put_entry(
        self, stream: str, id: str, entry: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> T:
        """Put an entry, whole, under an id of one's own; `rev` is the revision that it may replace."""
        return self._send(_change("PUT", _entry(stream, id), entry, idempotency_key, rev))

    def correct(
        self, stream: str, id: str, patch: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> T:
        """Change what the patch (RFC 7396) names; `rev` is the revision that it may change."""
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
        """Withdraw an entry; reason is error, legal, duplicate or moved. The answer has a `receipt`."""
        query = urlencode({"reason": reason, **({"note": note} if note else {})})
        return self._send(_change("DELETE", f"{_entry(stream, id)}?{query}", None, idempotency_key, rev))

    def delivery(self, stream: str, id: str, *, n: int | None = None, wait: float = 0) -> T:
        """Who has been given an entry's event `n`, or its newest; waits so many seconds for all workers to have it."""
        query = urlencode({"wait": wait, **({"n": n} if n else {})})
        return self._send(Call("GET", f"{_entry(stream, id)}/delivery?{query}"))

    def put_page(self, stream: str, page: dict[str, Any], *, idempotency_key: str | None = None) -> T:
        """Set a stream's page, whole."""
        return self._send(_change("PUT", _stream(stream), page, idempotency_key))

    def patch_page(
        self, stream: str, patch: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> T:
        """Change the fields of a stream's page that the patch names; a stream without one gets its first."""
        return self._send(_change("PATCH", _stream(stream), patch, idempotency_key, rev))

    def end(self, stream: str, *, next: dict[str, str] | None = None, idempotency_key: str | None = None) -> T:
        """End the coverage; `next`, a label and a url, says where it goes on."""
        return self._send(_change("POST", f"{_stream(stream)}/end", {"next": next} if next else {}, idempotency_key))


class Publisher(_Calls[Answer]):
    """Publishes to a server. Use it from one thread at a time.

    >>> with Publisher("http://127.0.0.1:8000", key) as publisher:
    ...     publisher.publish("storm", {"headline": "Bridge reopened", "body": "Both lanes are open."})
    """

    def __init__(self, url: str, key: str) -> None:
        # The environment's proxies and certificates apply; a server on this machine is reached directly.
        self._http = httpx2.Client(base_url=url, timeout=TIMEOUT, headers=authorization(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _send(self, call: Call) -> Answer:
        for attempt in range(ATTEMPTS):
            try:
                response: httpx2.Response | httpx2.TransportError = self._http.request(
                    call.method, call.path, content=call.content, headers=call.headers()
                )
            except httpx2.TransportError as error:
                response = error
            outcome = _judge(call, response, attempt)
            if not isinstance(outcome, float):
                return outcome
            time.sleep(outcome)
        raise AssertionError("the last attempt has an outcome")

    def export(self, stream: str, file: BinaryIO) -> None:
        """Write all of a stream to a file that can be begun again, as lines that `restore` takes."""
        call, begin = Call("GET", f"{_stream(stream)}/export", kind=NDJSON), file.tell()
        for attempt in range(ATTEMPTS):
            file.seek(begin)
            file.truncate()
            try:
                with self._http.stream(call.method, call.path) as response:
                    if response.is_success and _is_ndjson(response):
                        file.writelines(response.iter_bytes())
                        return
                    response.read()
                outcome = _judge(call, response, attempt)
            except httpx2.TransportError as error:
                outcome = _judge(call, error, attempt)
            assert isinstance(outcome, float), "an answer that is no export is an error"
            time.sleep(outcome)


class AsyncPublisher(_Calls[Awaitable[Answer]]):
    """The same for asyncio; many tasks may share one.

    >>> async with AsyncPublisher("http://127.0.0.1:8000", key) as publisher:
    ...     await publisher.publish("storm", {"headline": "Bridge reopened"})
    """

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, headers=authorization(key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, call: Call) -> Answer:
        for attempt in range(ATTEMPTS):
            try:
                response: httpx2.Response | httpx2.TransportError = await self._http.request(
                    call.method, call.path, content=call.content, headers=call.headers()
                )
            except httpx2.TransportError as error:
                response = error
            outcome = _judge(call, response, attempt)
            if not isinstance(outcome, float):
                return outcome
            await asyncio.sleep(outcome)
        raise AssertionError("the last attempt has an outcome")


def _judge(call: Call, came: httpx2.Response | httpx2.TransportError, attempt: int) -> Answer | float:
    """The answer, or the seconds to wait before the same is sent again. Raises PublishError where it is settled."""
    wait = random.uniform(0, min(DELAY_MOST, 0.2 * 2**attempt))
    if isinstance(came, httpx2.UnsupportedProtocol):
        raise Rejected(
            0, {"detail": "The server's address: expected one that begins with http:// or https://."}, call.key
        )
    if isinstance(came, httpx2.TransportError):
        failure = Unreached(0, {"detail": f"The server was not reached: {came}"}, call.key)
    elif came.is_success:
        answer = _lines(came) if call.kind == NDJSON else _json(came)
        if answer is None:
            raise PublishError(came.status_code, {"detail": f"That is not a pushserver's answer: {came.text[:100]}"})
        # A batch of which a part was put off is sent again, whole: what was stored is known by its key, or as it is.
        down = next((line for line in answer.get("results", ()) if line["status"] in LATER), None)
        if not down:
            return {**answer, "replayed": "idempotent-replayed" in came.headers} if call.key else answer
        failure = Unreached(down["status"], down, call.key)
    elif came.status_code in LATER:
        failure = Unreached(came.status_code, _problem(came), call.key)
        wait += retry_after(came.headers.get("retry-after"))
    else:
        raise _ERRORS.get(came.status_code, Rejected)(came.status_code, _problem(came), call.key)
    if attempt == ATTEMPTS - 1:
        raise failure
    return wait


def authorization(key: str) -> dict[str, str]:
    """The header that carries the key; raises Unauthorized where no header can."""
    if not re.fullmatch("[\x21-\x7e]+", key):
        raise Unauthorized(0, {"detail": "The publish key: expected visible ASCII characters, got others, or none."})
    return {"Authorization": f"Bearer {key}"}


def retry_after(given: str | None) -> float:
    """The seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3: a number, or a date), within reason."""
    try:
        seconds = float(given or 0)
    except ValueError:
        try:
            at = parsedate_to_datetime(str(given))
            # The oldest form of a date names no zone; all of them are meant as UTC.
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_MOST)


def _change(
    method: str, path: str, value: dict[str, Any] | None, idempotency_key: str | None, rev: int | None = None
) -> Call:
    content = encode(value) if value is not None else None
    return Call(method, path, content, idempotency_key or uuid.uuid4().hex, rev)


def _stream(stream: str) -> str:
    return f"/streams/{quote(stream, safe='')}"


def _entries(stream: str) -> str:
    return f"{_stream(stream)}/entries"


def _entry(stream: str, id: str) -> str:
    return f"{_entries(stream)}/{quote(id, safe='')}"


def encode(value: dict[str, Any]) -> bytes:
    """The body of a publish: the same bytes for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def content_key(kind: str, value: dict[str, Any]) -> str:
    """An idempotency key made of the content: what is sent twice is stored once."""
    return f"{kind}-{hashlib.sha256(encode(value)).hexdigest()[:48]}"


def _is_ndjson(response: httpx2.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith(NDJSON)


def _lines(response: httpx2.Response) -> Answer | None:
    """What became of each line of a batch; None for what some proxy says."""
    if not _is_ndjson(response):
        return None
    return {"results": [json.loads(line) for line in response.content.splitlines()]}


def _problem(response: httpx2.Response) -> dict[str, Any]:
    return _json(response) or {"detail": f"{response.status_code} {response.reason_phrase}"}


def _json(response: httpx2.Response) -> dict[str, Any] | None:
    """The object in an answer; None for what some proxy says."""
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
