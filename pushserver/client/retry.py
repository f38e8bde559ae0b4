"""The rule of retries: which outcome of a request is final, and how long to wait before the same request is sent again.

A request that may have been stored is sent again with the same idempotency key until its outcome is known, so that
what was published is stored once.
"""

from __future__ import annotations

import json
import logging
import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2

from .errors import Changed, Conflict, Gone, NotFound, PublishError, Rejected, Unauthorized, Unreached

ATTEMPTS = 8  # requests, after which the outcome stays unknown
DELAY_FIRST, DELAY_MOST = 0.2, 5.0  # seconds, of the full-jitter wait between two attempts, without Retry-After
RETRY_AFTER_MOST = 60.0  # seconds of a Retry-After that are waited for
RETRIED = (429, 502, 503, 504)  # HTTP statuses after which the same request is sent again
JSON, NDJSON = "application/json", "application/x-ndjson"

# The request was not sent in these cases: nothing can have been stored.
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)

Answer = dict[str, Any]

logger = logging.getLogger(__name__)

_ERRORS = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 410: Gone, 412: Changed}


class Call(NamedTuple):
    """A call is one request, the same bytes at every attempt. `key` is its idempotency key, '' where it has none."""

    method: str
    path: str
    content: bytes | None = None
    key: str = ""
    rev: int | None = None
    media_type: str = JSON

    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": self.media_type} if self.content is not None else {}
        if self.key:
            headers["Idempotency-Key"] = self.key
        if self.rev is not None:
            headers["If-Match"] = f'"{self.rev}"'
        return headers


class Attempts:
    """Attempts counts the requests of one call, and remembers whether one of them may have reached the server."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._count = 0
        self._was_sent = False

    def judge(self, response: httpx2.Response | httpx2.TransportError) -> Answer | float:
        """Return as `judge` does, and log each failure that is followed by another attempt. Raises PublishError."""
        self._was_sent = self._was_sent or not isinstance(response, UNSENT)
        try:
            outcome = judge(self._call, response, self._count)
        except Unreached as error:
            error.may_be_stored = self._was_sent
            raise
        if isinstance(outcome, float):
            self._count += 1
            logger.warning("%s; attempt %d of %d %s", _reason(response), self._count + 1, ATTEMPTS, in_time(outcome))
        return outcome


def in_time(seconds: float) -> str:
    """Return a wait as the log says it: `in 0.0 s` would look like a mistake."""
    return f"in {seconds:.1f} s" if seconds > 0.1 else "at once"


def _reason(response: httpx2.Response | httpx2.TransportError) -> str:
    """Return why a request is sent again, for the log."""
    if isinstance(response, httpx2.TransportError):
        return f"the server {_missed(response)}"
    if response.status_code in RETRIED:
        return f"the server answered {response.status_code}"
    return "the server could not store a line of the batch yet"


def _missed(error: httpx2.TransportError) -> str:
    """Return what an error says of the server: not reached, or without an answer to what may have been stored."""
    said = str(error) or type(error).__name__  # a ReadTimeout may have no text
    return f"was not reached: {said}" if isinstance(error, UNSENT) else f"gave no answer: {said}"


def _place(error: httpx2.TransportError) -> str:
    """Return ` at ` and the address of the server that a request went to, as far as the error knows it."""
    try:
        url = error.request.url
    except RuntimeError:  # it was made before there was a request
        return ""
    return f" at {url.scheme}://{url.netloc.decode()}"


def judge(call: Call, response: httpx2.Response | httpx2.TransportError, attempt: int) -> Answer | float:
    """Return the answer, or the seconds to wait before the next attempt. Raises PublishError where the call failed."""
    wait = random.uniform(0, min(DELAY_MOST, DELAY_FIRST * 2**attempt))
    if isinstance(response, httpx2.UnsupportedProtocol):
        raise Rejected(0, {"detail": "The server's URL: expected one that begins with http:// or https://."}, call.key)
    if isinstance(response, httpx2.LocalProtocolError):  # of this side: every further attempt would end alike
        raise Rejected(0, {"detail": f"The request cannot be sent as HTTP; nothing was stored: {response}"}, call.key)
    if isinstance(response, httpx2.TransportError):
        failure = Unreached(0, {"detail": f"The server{_place(response)} {_missed(response)}"}, call.key)
    elif response.is_success or _is_refused_batch(response):
        answer = _results(response) if call.media_type == NDJSON else _json(response)
        if answer is None:
            detail = f"The answer is not pushserver's; check the server's URL. It begins: {response.text[:100]}"
            raise PublishError(response.status_code, {"detail": detail})
        # A batch is sent again, whole, where one line is to be retried: the lines that were stored are recognised by
        # their keys, or by their revisions.
        retried = next((result for result in answer.get("results", ()) if result["status"] in RETRIED), None)
        if not retried:
            return {**answer, "replayed": "idempotent-replayed" in response.headers} if call.key else answer
        failure = Unreached(retried["status"], retried, call.key)
    elif response.status_code in RETRIED:
        failure = Unreached(response.status_code, _problem(response), call.key)
        wait += retry_after(response.headers.get("retry-after"))
    else:
        raise _ERRORS.get(response.status_code, Rejected)(response.status_code, _problem(response), call.key)
    if attempt == ATTEMPTS - 1:
        raise failure
    return wait


def retry_after(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, from 0 to 60 (RFC 9110, 10.2.3: a number or a date)."""
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            at = parsedate_to_datetime(str(header))
            # "Wed Oct 21 07:28:00 2015", the oldest form of a date, names no zone: RFC 9110 5.6.7 means UTC.
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_MOST)


def is_ndjson(response: httpx2.Response) -> bool:
    """Return whether an answer is lines of JSON, as those of a batch and an export are."""
    return str(response.headers.get("content-type", "")).startswith(NDJSON)


def _is_refused_batch(response: httpx2.Response) -> bool:
    """Return whether an answer has the results of a batch of which every line was refused."""
    return response.status_code == 422 and is_ndjson(response)


def _results(response: httpx2.Response) -> Answer | None:
    """Return a batch's result for each line; None where the answer is a proxy's."""
    if not is_ndjson(response):
        return None
    return {"results": [json.loads(line) for line in response.content.splitlines()]}


def _problem(response: httpx2.Response) -> dict[str, Any]:
    return _json(response) or {"detail": f"{response.status_code} {response.reason_phrase}"}


def _json(response: httpx2.Response) -> dict[str, Any] | None:
    """Return the object in an answer; None where the answer is a proxy's."""
    try:
        value = response.json()
    except (ValueError, RecursionError):  # the latter of an answer that is nested too deep
        return None
    return value if isinstance(value, dict) else None
