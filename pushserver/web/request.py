"""What every request that publishes goes through: key, name, conditions, content type, size; and how it is answered."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from ..access.keys import Keys, Quota
from ..codec import read_json
from ..content import validation
from ..content.validation import M
from ..errors import Changed, Fault, Invalid, Malformed, TooLarge, UnsupportedType, shorten
from ..model import check_id, check_stream
from ..store.log import Appended, Log

JSON, MERGE_PATCH, NDJSON = "application/json", "application/merge-patch+json", "application/x-ndjson"
BATCH_LINES = 1_000
BATCH_BYTES = 5 * 2**20


class Intake(NamedTuple):
    """A request that was let in: which stream, whose log, under which idempotency key, made here if none came."""

    request: Request
    stream: str
    log: Log
    key: str
    admission: Quota

    @classmethod
    async def of(cls, request: Request, *rights: str) -> Intake:
        """Let a request in, if its key has these rights; or refuse it before its body is read."""
        keys: Keys = request.app.state.keys
        stream = request.path_params["stream"]
        admission = await keys.admit(request.headers.get("authorization"), rights, stream)
        return cls(request, check_stream(stream), request.app.state.log, _idempotency_key(request), admission)

    @property
    def repeatable(self) -> bool:
        """Whether the publisher brought the key, so that an answer may have been given before."""
        return "idempotency-key" in self.request.headers

    @property
    def kind(self) -> str:
        """The body's media type, '' where none is given."""
        return self.request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def json(self, *kinds: str, empty: bytes = b"") -> tuple[Any, str]:
        """The body as JSON, and its hash, by which a repeated request is known; `empty` stands for a missing body."""
        kinds = kinds or (JSON,)
        body = await self._body((*kinds, "") if empty else kinds, self.request.app.state.settings.body_limit)
        if body and not self.kind:
            raise _unsupported(self.kind, kinds)
        body = body or empty
        return read_json(body), hashlib.sha256(body).hexdigest()

    async def lines(self) -> list[bytes]:
        """The lines of a batch, blank ones at the end left out."""
        lines = (await self._body((NDJSON,), BATCH_BYTES)).rstrip().split(b"\n")
        if len(lines) > BATCH_LINES:
            raise TooLarge("The batch is too long.", Fault("body", f"at most {BATCH_LINES} lines", str(len(lines))))
        return lines

    def query(self, kind: type[M]) -> M:
        """What the address asks beside its path, each name once."""
        given = self.request.query_params.multi_items()
        names = [name for name, _ in given]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Invalid("A parameter comes twice.", Fault(shorten(twice), "each name once", "twice"))
        return validation.read(kind, dict(given))

    def entry_id(self) -> str:
        """The entry that the address names."""
        return check_id(self.request.path_params["id"])

    def check_rev(self, current: dict[str, Any] | None) -> None:
        """Refuse to change what is not as `If-Match` or `If-None-Match` wants it (RFC 9110, 13.1.1 and 13.1.2)."""
        match = self._condition("If-Match", r'\*|"[0-9]{1,9}"', 'a revision in quotes, as "3", or *')
        only_new = self._condition("If-None-Match", r"\*", "*")
        got = f'revision "{current["rev"]}"' if current else "nothing there"
        if only_new and current:
            raise Changed("It is there already.", Fault("If-None-Match", "nothing there", got), current)
        if match == "*" and not current:
            raise Changed("It is not there.", Fault("If-Match", "any revision", got), None)
        if match not in (None, "*") and not (current and match == f'"{current["rev"]}"'):
            fault = Fault("If-Match", f"revision {match}", got)
            raise Changed("It was changed since; look at the current one.", fault, current)

    def _condition(self, name: str, pattern: str, expected: str) -> str | None:
        given = self.request.headers.get(name)
        if given is not None and not re.fullmatch(pattern, given.strip()):
            raise Malformed("That is no condition of a change.", Fault(name, expected, shorten(given)))
        return given and given.strip()

    def answer(self, appended: Appended, *, created: bool, **also: Any) -> Response:
        """What was stored, and how well."""
        fields = {**self.fields(appended), **also}
        headers = {"Location": fields["url"], "ETag": f'"{appended.rev}"', "Idempotency-Key": self.key}
        if appended.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Response(json.dumps(fields) + "\n", status_of(appended, created=created), headers, JSON)

    def fields(self, appended: Appended) -> dict[str, Any]:
        url = f"/streams/{self.stream}"
        fields: dict[str, Any] = {"rev": appended.rev, "n": appended.n, "cursor": str(appended.cursor)}
        if appended.entry_id:
            url = f"{url}/entries/{appended.entry_id}"
            fields = {"id": appended.entry_id, **fields}
        durability, replicas = appended.durability
        asked = {} if replicas is None else {"replicas": replicas}
        return {**fields, "url": url, "durability": durability, **asked}

    async def _body(self, kinds: tuple[str, ...], limit: int) -> bytes:
        """The body, up to the limit, which stops an upload that says too little about its length as well."""
        if self.kind not in kinds:
            raise _unsupported(self.kind, kinds)
        declared = self.request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit, f"{declared} bytes")
        body = bytearray()
        async for chunk in self.request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit, "more")
        return bytes(body)


def status_of(appended: Appended, *, created: bool) -> int:
    """202 where fewer replicas have it than were asked for: it is stored, and may be lost with its server."""
    if appended.durability.replicas is not None and appended.durability.level != "replica":
        return 202
    return 201 if created and not appended.replayed else 200


def _idempotency_key(request: Request) -> str:
    """The publisher's key for this request: a token, or a string in quotes as the IETF draft has it; or a new one.

    The answer names it, so that a request without one can be repeated as well when its outcome is unknown.
    """
    given = request.headers.get("idempotency-key")
    if given is None:
        return secrets.token_hex(16)
    key = re.fullmatch(r'"([\x21\x23-\x5b\x5d-\x7e]{1,200})"|([\x21\x23-\x5b\x5d-\x7e]{1,200})', given)
    if not key:
        fault = Fault("Idempotency-Key", "1 to 200 visible ASCII characters, no quote or backslash", shorten(given))
        raise Malformed("That is not an idempotency key.", fault)
    return key[1] or key[2]


def _unsupported(kind: str, kinds: tuple[str, ...]) -> UnsupportedType:
    fault = Fault("Content-Type", " or ".join(filter(None, kinds)), shorten(kind or "none"))
    return UnsupportedType("That is not taken here.", fault, headers={"Connection": "close"})


def _too_large(limit: int, got: str) -> TooLarge:
    return TooLarge(
        "The body is too large.", Fault("body", f"at most {limit} bytes", got), headers={"Connection": "close"}
    )
