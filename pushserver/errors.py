"""Refusals, as exceptions: raised where the fact is known, answered as problem+json (RFC 9457) at the edge.

Every refusal names the field, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

GOT_LIMIT = 120  # characters of the offending value that an answer repeats


class Fault(NamedTuple):
    """A Fault names one field of a request that is wrong, what was expected there, and what came."""

    field: str
    expected: str
    got: str


class Refused(Exception):
    """A Refused request stored nothing, unless `detail` says that the outcome is unknown."""

    status = 400
    title = "Bad request"
    kind = "bad-request"

    def __init__(self, detail: str, *faults: Fault, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
        self.headers = headers or {}

    def problem(self) -> dict[str, object]:
        """The body of the answer (RFC 9457, section 3), with the extension member `errors`."""
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
    """The body or a header cannot be parsed: it is not JSON, not UTF-8, or not of the header's syntax."""

    status, title, kind = 400, "Malformed request", "malformed"


class Unauthorized(Refused):
    """The request has no publish key, or one that the server does not know."""

    status, title, kind = 401, "Publish key missing or wrong", "unauthorized"


class BadToken(Refused):
    """The request has no reader token, or one that is not valid."""

    status, title, kind = 401, "Token missing or not valid", "token"


class Forbidden(Refused):
    """The key or token is known, and lacks the right for this request."""

    status, title, kind = 403, "Not allowed", "forbidden"


class NotFound(Refused):
    """Nothing is stored under the name in the URL."""

    status, title, kind = 404, "Not found", "not-found"


class NotAllowed(Refused):
    """The URL exists and does not support the method."""

    status, title, kind = 405, "Method not allowed", "method-not-allowed"


class Conflict(Refused):
    """The state of the stream does not permit the request: it has ended, is full, or others change it."""

    status, title, kind = 409, "Conflict", "conflict"


class Gone(Refused):
    """The entry was withdrawn."""

    status, title, kind = 410, "Withdrawn", "withdrawn"


class Deleted(Refused):
    """The stream was deleted: its mark stands for the time of the setting `gone`, or until it is removed."""

    status, title, kind = 410, "Stream deleted", "deleted"


class Changed(Refused):
    """A precondition failed, as another change came first; `current` is the revision stored now, or None."""

    status, title, kind = 412, "Changed meanwhile", "changed"

    def __init__(self, detail: str, fault: Fault, current: Mapping[str, Any] | None) -> None:
        super().__init__(detail, fault, headers={"ETag": f'"{current["rev"]}"'} if current else None)
        self.current = current

    def problem(self) -> dict[str, object]:
        return {**super().problem(), "current": self.current}


class PreconditionFailed(Refused):
    """A read names in `If-Match` other ETags than the one that the answer has."""

    status, title, kind = 412, "Precondition failed", "precondition-failed"


class TooLarge(Refused):
    """The body or a line of it is larger than the limit."""

    status, title, kind = 413, "Body too large", "too-large"


class UpgradeRequired(Refused):
    """The URL of a WebSocket was requested without an upgrade."""

    status, title, kind = 426, "WebSocket only", "upgrade-required"


class UnsupportedType(Refused):
    """The URL does not accept the content type of the body."""

    status, title, kind = 415, "Unsupported content type", "unsupported-type"


class Invalid(Refused):
    """The body or the query was parsed and is not valid; `faults` names each field."""

    status, title, kind = 422, "Not valid", "invalid"


class KeyReused(Refused):
    """The idempotency key came before, with another request."""

    status, title, kind = 422, "Idempotency key used for another request", "idempotency-key-reused"


class TooMany(Refused):
    """The key sent more requests than its rate allows; `Retry-After` says when to try again."""

    status, title, kind = 429, "Too many requests", "too-many"


class Unavailable(Refused):
    """The store is away or the worker is full: try again after `retry_after` seconds, with the same `key`."""

    status, title, kind = 503, "Unavailable", "unavailable"

    def __init__(self, detail: str, retry_after: int = 1, *, key: str = "") -> None:
        again = {"Idempotency-Key": key} if key else {}
        super().__init__(detail, headers={"Retry-After": str(retry_after), **again})


class DiskReserve(Unavailable):
    """The disk of the embedded store has no more than its reserve left: it takes withdrawals and ends alone."""

    title, kind = "Disk almost full", "disk-reserve"


class FolderLost(Unavailable):
    """The data folder of the embedded store is gone or was replaced: what it stored would be lost."""

    title, kind = "Data folder gone", "data-folder"


def key_reused(key: str) -> KeyReused:
    """The answer to a request whose idempotency key is that of another one."""
    fault = Fault("Idempotency-Key", "a new key for another request", key)
    return KeyReused("This Idempotency-Key was used for another request; nothing was stored.", fault)


def withdrawn(withdrawal: Mapping[str, Any]) -> Gone:
    """The answer to every request for a withdrawn entry."""
    note = withdrawal.get("note") or "This entry was withdrawn."
    return Gone(
        note,
        Fault(
            "id",
            "an id that was not withdrawn; a withdrawn id is never used again",
            f"withdrawn for the reason {withdrawal['reason']}",
        ),
    )


def deleted(stream: str, at: str) -> Deleted:
    """The answer to every request for a deleted stream."""
    fault = Fault("stream", "a stream that was not deleted", f"{stream}, deleted at {at}")
    return Deleted("The stream was deleted, and nothing is stored under its name for now.", fault)


def shorten(value: object) -> str:
    """A value as an answer or a log line repeats it: at most GOT_LIMIT characters."""
    text = value if isinstance(value, str) else repr(value)
    if not text:
        return "an empty string"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= GOT_LIMIT else f"{text[:GOT_LIMIT]}… ({len(text)} characters)"


_KINDS: list[type[Refused]] = [Refused, *Refused.__subclasses__(), *Unavailable.__subclasses__()]
# The status and the kind of every refusal that an answer may be, for metrics: `transport/http` has the last two.
CAUSES = sorted(
    {
        *((kind.status, kind.kind) for kind in _KINDS),
        (500, "server-error"),
        (505, "http-version"),
        (408, "body-late"),
    }
)
