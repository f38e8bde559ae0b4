"""The publisher's side over HTTP: what scripts import, and the command line uses."""

from __future__ import annotations

import hashlib
import json
import random
import time
import uuid
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import httpx2

TIMEOUT = 10.0  # seconds for one attempt
ATTEMPTS = 8  # then the outcome is given up as unknown
DELAY_MOST = 5.0  # seconds between two attempts


class PublishError(Exception):
    """The server said no, or nothing. `problem` is its answer (RFC 9457), `status` 0 where none came."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"status {status}")
        self.status = status
        self.problem = problem

    def __str__(self) -> str:
        faults = [
            f"  {fault['field']}: expected {fault['expected']}, got {fault['got']}"
            for fault in self.problem.get("errors", [])
        ]
        return "\n".join([self.problem.get("detail") or f"status {self.status}", *faults])


class Publisher:
    """Publishes to a server. Each call is repeated, with one idempotency key, until its outcome is known.

    >>> with Publisher("http://127.0.0.1:8000", key) as publisher:
    ...     publisher.publish("storm", {"headline": "Bridge reopened", "body": "Both lanes are open."})
    """

    def __init__(self, url: str, key: str) -> None:
        # The environment's proxies and certificates apply; a server on this machine is reached directly.
        self._http = httpx2.Client(base_url=url, timeout=TIMEOUT, headers={"Authorization": f"Bearer {key}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def publish(self, stream: str, entry: dict[str, Any], *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Publish an entry: the server's answer, with `replayed` true where the key had been used already."""
        return self._send("POST", _entries(stream), entry, idempotency_key)

    def put_entry(
        self, stream: str, id: str, entry: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Put an entry, whole, under an id of one's own; `rev` is the revision that it may replace."""
        return self._send("PUT", f"{_entries(stream)}/{quote(id, safe='')}", entry, idempotency_key, rev)

    def correct(
        self, stream: str, id: str, patch: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Change what the patch (RFC 7396) names; `rev` is the revision that it may change."""
        return self._send("PATCH", f"{_entries(stream)}/{quote(id, safe='')}", patch, idempotency_key, rev)

    def withdraw(
        self,
        stream: str,
        id: str,
        *,
        reason: str = "error",
        note: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Withdraw an entry; reason is error, legal, duplicate or moved."""
        query = urlencode({"reason": reason, **({"note": note} if note else {})})
        return self._send("DELETE", f"{_entries(stream)}/{quote(id, safe='')}?{query}", None, idempotency_key)

    def delivery(self, stream: str, id: str, *, n: int | None = None, wait: float = 0) -> dict[str, Any]:
        """Who has been given an entry's event `n`, or its newest; waits so many seconds for all workers to have it."""
        query = urlencode({"wait": wait, **({"n": n} if n else {})})
        receipt = self._send("GET", f"{_entries(stream)}/{quote(id, safe='')}/delivery?{query}", None, None)
        del receipt["replayed"]
        return receipt

    def put_page(self, stream: str, page: dict[str, Any], *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Set a stream's page, whole."""
        return self._send("PUT", _stream(stream), page, idempotency_key)

    def patch_page(
        self, stream: str, patch: dict[str, Any], *, rev: int | None = None, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Change the fields of a stream's page that the patch names; a stream without one gets its first."""
        return self._send("PATCH", _stream(stream), patch, idempotency_key, rev)

    def end(
        self, stream: str, *, next: dict[str, str] | None = None, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """End the coverage; `next`, a label and a url, says where it goes on."""
        return self._send("POST", f"{_stream(stream)}/end", {"next": next} if next else {}, idempotency_key)

    def _send(
        self, method: str, path: str, value: dict[str, Any] | None, idempotency_key: str | None, rev: int | None = None
    ) -> dict[str, Any]:
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex, "Content-Type": "application/json"}
        if rev is not None:
            headers["If-Match"] = f'"{rev}"'
        content = encode(value) if value is not None else None
        failure = PublishError(0, {"detail": "The server was not reached."})
        for attempt in range(ATTEMPTS):
            wait = random.uniform(0, min(DELAY_MOST, 0.2 * 2**attempt))
            try:
                response = self._http.request(method, path, content=content, headers=headers)
            except httpx2.TransportError as error:
                failure = PublishError(0, {"detail": f"The server was not reached: {error}"})
            else:
                if response.is_success:
                    return {**response.json(), "replayed": response.headers.get("idempotent-replayed") == "true"}
                failure = PublishError(response.status_code, _problem(response))
                if response.status_code not in (429, 503):
                    raise failure
                wait += float(response.headers.get("retry-after", 0))
            if attempt < ATTEMPTS - 1:
                time.sleep(wait)
        raise failure


def _stream(stream: str) -> str:
    return f"/streams/{quote(stream, safe='')}"


def _entries(stream: str) -> str:
    return f"{_stream(stream)}/entries"


def encode(value: dict[str, Any]) -> bytes:
    """The body of a publish: the same bytes for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def content_key(kind: str, value: dict[str, Any]) -> str:
    """An idempotency key made of the content: what is sent twice is stored once."""
    return f"{kind}-{hashlib.sha256(encode(value)).hexdigest()[:48]}"


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": f"{response.status_code} {response.reason_phrase}"}
