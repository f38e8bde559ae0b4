"""What every request that publishes goes through: key, name, conditions, content type, size; and how it is answered."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from . import validate
from .errors import Fault, Malformed, TooLarge, UnsupportedType, shorten
from .keys import Admission, Keys
from .log import Appended, Log
from .model import check_id, check_stream

JSON, MERGE_PATCH, NDJSON = "application/json", "application/merge-patch+json", "application/x-ndjson"
BATCH_LINES = 1_000
BATCH_BYTES = 5 * 2**20


class Intake(NamedTuple):
    """A request that was let in: which stream, whose log, under which idempotency key."""

    request: Request
    stream: str
    log: Log
    key: str

    admission: Admission

    @classmethod
    async def of(cls, request: Request, *rights: str) -> Intake:
        """Let a request in, if its key has these rights; or refuse it before its body is read."""
        keys: Keys = request.app.state.keys
        stream = request.path_params["stream"]
        admission = await keys.admit(request.headers.get("authorization"), rights, stream)
        return cls(request, check_stream(stream), request.app.state.log, _idempotency_key(request), admission)

    @property
    def kind(self) -> str:
        """The body's media type, '' where none is given."""
        return self.request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def json(self, *kinds: str) -> tuple[Any, str]:
        """The body as JSON, and its hash, by which a repeated request is known."""
        body = await self._body(kinds or (JSON,), self.request.app.state.settings.body_limit)
        return validate.read_json(body), hashlib.sha256(body).hexdigest()

    async def lines(self) -> list[bytes]:
        """The lines of a batch, blank ones at the end left out."""
        lines = (await self._body((NDJSON,), BATCH_BYTES)).rstrip().split(b"\n")
        if len(lines) > BATCH_LINES:
            raise TooLarge("The batch is too long.", Fault("body", f"at most {BATCH_LINES} lines", str(len(lines))))
        return lines

    def entry_id(self) -> str:
        """The entry that the address names."""
        return check_id(self.request.path_params["id"])

    def rev(self) -> int | None:
        """The revision that `If-Match` asks for (RFC 9110, 13.1.1), None where any will do."""
        given = self.request.headers.get("if-match")
        if given is None or given.strip() == "*":
            return None
        found = re.fullmatch(r'\s*"([0-9]{1,9})"\s*', given)
        if not found:
            raise Malformed(
                "That is not a revision.", Fault("If-Match", 'a revision in quotes, as "3"', shorten(given))
            )
        return int(found[1])

    def answer(self, appended: Appended, *, created: bool, **also: Any) -> Response:
        """What was stored, and how well."""
        fields = {**self.fields(appended), **also}
        headers = {"Location": fields["url"], "ETag": f'"{appended.rev}"'}
        if appended.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Response(json.dumps(fields) + "\n", 201 if created and not appended.replayed else 200, headers, JSON)

    def fields(self, appended: Appended) -> dict[str, Any]:
        url = f"/streams/{self.stream}"
        fields: dict[str, Any] = {"rev": appended.rev, "n": appended.n, "cursor": str(appended.cursor)}
        if appended.entry_id:
            url = f"{url}/entries/{appended.entry_id}"
            fields = {"id": appended.entry_id, **fields}
        return {**fields, "url": url, "durability": self.log.store.durability}

    async def _body(self, kinds: tuple[str, ...], limit: int) -> bytes:
        """The body, up to the limit, which stops an upload that says too little about its length as well."""
        if self.kind not in kinds:
            fault = Fault("Content-Type", " or ".join(kinds), shorten(self.kind or "none"))
            raise UnsupportedType("That is not taken here.", fault, headers={"Connection": "close"})
        declared = self.request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit, f"{declared} bytes")
        body = bytearray()
        async for chunk in self.request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit, "more")
        return bytes(body)


def _idempotency_key(request: Request) -> str:
    """The publisher's key for this request, '' for none: a token, or a string in quotes as the IETF draft has it."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return ""
    key = re.fullmatch(r'"([\x21\x23-\x5b\x5d-\x7e]{1,200})"|([\x21\x23-\x5b\x5d-\x7e]{1,200})', given)
    if not key:
        fault = Fault("Idempotency-Key", "1 to 200 visible ASCII characters, no quote or backslash", shorten(given))
        raise Malformed("That is not an idempotency key.", fault)
    return key[1] or key[2]


def _too_large(limit: int, got: str) -> TooLarge:
    return TooLarge(
        "The body is too large.", Fault("body", f"at most {limit} bytes", got), headers={"Connection": "close"}
    )
