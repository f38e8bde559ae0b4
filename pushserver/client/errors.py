"""The client's errors: one class for each way in which a call fails, so that a script can tell them apart."""

from __future__ import annotations

from typing import Any


class PublishError(Exception):
    """A call failed. `problem` is the server's answer (RFC 9457), `status` its HTTP status, 0 where no answer came."""

    def __init__(self, status: int, problem: dict[str, Any], idempotency_key: str = "") -> None:
        super().__init__(problem.get("detail") or f"status {status}")
        self.status = status
        self.problem = problem
        self.idempotency_key = idempotency_key

    @property
    def errors(self) -> list[dict[str, str]]:
        """The fields that are not valid: `{field, expected, got}` for each."""
        errors: list[dict[str, str]] = self.problem.get("errors", [])
        return errors

    def __str__(self) -> str:
        detail = self.problem.get("detail") or f"status {self.status}"
        faults = [f"{error['field']}: expected {error['expected']}, got {error['got']}" for error in self.errors]
        # The detail of a value that is not valid is its first fault: it is said once.
        return "\n".join([detail, *(f"  {fault}" for fault in faults if f"{fault}." != detail)])


class Unreached(PublishError):
    """No attempt had a final answer: it is unknown whether the change was stored.

    Send it again with the same `idempotency_key`: the server stores it once. Where no attempt got as far as the server,
    `may_be_stored` is false.
    """

    may_be_stored = True

    def __str__(self) -> str:
        hint = (
            f"\n  It may have been stored. Send it again with the idempotency key {self.idempotency_key}: "
            "the server stores it once."
        )
        if not self.may_be_stored:
            hint = "\n  No attempt got as far as the server: nothing was stored."
        return super().__str__() + (hint if self.idempotency_key else "")


class Rejected(PublishError):
    """The server refused an invalid request; `errors` names the fields to correct."""


class Unauthorized(PublishError):
    """The publish key is missing or wrong, or lacks the right for this change."""


class NotFound(PublishError):
    """The stream or the entry does not exist."""


class Gone(PublishError):
    """The entry was withdrawn, or the stream was deleted."""


class Conflict(PublishError):
    """The stream has ended or is full."""


class Changed(PublishError):
    """The entry is no longer at the revision that the script asked for; `current` is what is stored now, or None."""

    @property
    def current(self) -> dict[str, Any] | None:
        """The stored entry or page; None where there is none."""
        current: dict[str, Any] | None = self.problem.get("current")
        return current

    @property
    def rev(self) -> int | None:
        """The stored revision; None where nothing is stored."""
        return self.current["rev"] if self.current else None


class TurnedAway(Exception):
    """The server refused a reader for good; the text has the HTTP status or the close code."""


class Unreachable(TurnedAway):
    """A reader's server can never be reached: its URL is none, its name is no host's, its certificate is not valid."""
