"""Refusals, as exceptions: raised where the fact is known, answered as problem+json (RFC 9457) at the edge.

Every refusal names the field, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

GOT_LIMIT = 120  # characters of the offending value that an answer repeats


class Fault(NamedTuple):
    """One thing that is wrong with what came."""

    field: str
    expected: str
    got: str


class Refused(Exception):
    """A request that is declined; nothing was stored unless `detail` says that it is unknown."""

    status = 400
    title = "Bad request"
    kind = "bad-request"

    def __init__(self, detail: str, *faults: Fault, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
        self.headers = headers or {}

    def problem(self) -> dict[str, object]:
        """The body of the answer, as RFC 9457 has it, with `errors` as its extension member."""
        body: dict[str, object] = {
            "type": f"urn:pushserver:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.faults:
            body["errors"] = [fault._asdict() for fault in self.faults]
        return body


class Malformed(Refused):
    """Not readable as what it says it is: JSON, UTF-8, a header."""

    status, title, kind = 400, "Malformed request", "malformed"


class Unauthorized(Refused):
    """No publish key came, or not a known one."""

    status, title, kind = 401, "Publish key missing or wrong", "unauthorized"


class BadToken(Refused):
    """No reader token came, or not a valid one."""

    status, title, kind = 401, "Token missing or not valid", "token"


class Forbidden(Refused):
    """Known, and not allowed here."""

    status, title, kind = 403, "Not allowed", "forbidden"


class NotFound(Refused):
    """Nothing here by that name."""

    status, title, kind = 404, "Not found", "not-found"


class NotAllowed(Refused):
    """The resource exists, the method does not."""

    status, title, kind = 405, "Method not allowed", "method-not-allowed"


class Conflict(Refused):
    """The stream's state does not permit it."""

    status, title, kind = 409, "Conflict", "conflict"


class Gone(Refused):
    """It was there, and was withdrawn."""

    status, title, kind = 410, "Withdrawn", "withdrawn"


class Changed(Refused):
    """It is not any more what the publisher saw; `current` is what it is now."""

    status, title, kind = 412, "Changed meanwhile", "changed"

    def __init__(self, detail: str, fault: Fault, current: Mapping[str, Any] | None) -> None:
        super().__init__(detail, fault, headers={"ETag": f'"{current["rev"]}"'} if current else None)
        self.current = current

    def problem(self) -> dict[str, object]:
        return {**super().problem(), "current": self.current}


class TooLarge(Refused):
    """More bytes than the limit."""

    status, title, kind = 413, "Body too large", "too-large"


class UpgradeRequired(Refused):
    """A WebSocket's address, asked for without the upgrade."""

    status, title, kind = 426, "WebSocket only", "upgrade-required"


class UnsupportedType(Refused):
    """A content type that is not taken here."""

    status, title, kind = 415, "Unsupported content type", "unsupported-type"


class Invalid(Refused):
    """Readable, and not valid; `faults` says field by field why."""

    status, title, kind = 422, "Not valid", "invalid"


class KeyReused(Refused):
    """The idempotency key was used for another body."""

    status, title, kind = 422, "Idempotency key used for another request", "idempotency-key-reused"


class TooMany(Refused):
    """More requests than the key allows; come back when `Retry-After` says."""

    status, title, kind = 429, "Too many requests", "too-many"


class Unavailable(Refused):
    """Come back later: the store is away, or the worker is full. `key` is the one to send the same request with."""

    status, title, kind = 503, "Unavailable", "unavailable"

    def __init__(self, detail: str, retry_after: int = 1, *, key: str = "") -> None:
        again = {"Idempotency-Key": key} if key else {}
        super().__init__(detail, headers={"Retry-After": str(retry_after), **again})


def withdrawn(withdrawal: Mapping[str, Any]) -> Gone:
    """The refusal that a withdrawn entry is from then on."""
    note = withdrawal.get("note") or "This entry was withdrawn."
    return Gone(note, Fault("id", "an entry", f"withdrawn for the reason {withdrawal['reason']}"))


def shorten(value: object) -> str:
    """A value as an answer or a log line may repeat it."""
    text = value if isinstance(value, str) else repr(value)
    if not text:
        return "an empty string"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= GOT_LIMIT else f"{text[:GOT_LIMIT]}… ({len(text)} characters)"
