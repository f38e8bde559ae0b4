"""A request that publishes: its key, stream, conditions, media type and size; and the answer to it."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..access.keys import Keys, Quota
from ..codec import dumps, read_json
from ..content import validation
from ..content.validation import M
from ..errors import Fault, Invalid, Malformed, TooLarge, Unauthorized, UnsupportedType, shorten
from ..log_throttle import Tally
from ..logs import REQUEST
from ..model import Author, Idempotency, check_id, check_stream
from ..publishing.commit import Precondition
from ..store.erasure import Erased
from ..store.log import Appended
from ..store.store import Durability
from .idempotency_key import idempotency_of, of_body

JSON, MERGE_PATCH, NDJSON = "application/json", "application/merge-patch+json", "application/x-ndjson"
BATCH_LINES = 1_000
BATCH_BYTES = 5 * 2**20
RETRY_AFTER = 2  # seconds, of a batch that the store took nothing of
QUOTA = "pushserver.quota"  # in the scope of a request, once its key was accepted
KEY_FRESH = 1.0  # seconds that the body may take before the key is looked up again: it may have been revoked

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # at the start of files that editors and shells of Windows write

logger = logging.getLogger(__name__)


_wrong_keys = Tally(logger, "wrong publish keys from")


class PublishRequest:
    """A request whose publish key was accepted. Its body is read by `json` or `lines`, up to a limit."""

    def __init__(
        self,
        request: Request,
        stream: str,
        idempotency: Idempotency,
        quota: Quota,
        check_key: Callable[..., Awaitable[object]],
    ) -> None:
        self.stream = stream
        self.idempotency = idempotency  # without the body's hash, which `json` adds
        self._request = request
        self._quota = quota
        self._check_key = check_key

    @classmethod
    async def admit(cls, request: Request, keys: Keys, *rights: str) -> PublishRequest:
        """Accept a request whose key has these rights, before its body is read.

        Raises Unauthorized, Forbidden, TooMany, Invalid, Malformed.
        """
        stream = request.path_params["stream"]
        key_of = request.headers.get("authorization"), rights, stream
        try:
            quota = request.scope[QUOTA] = await keys.admit(*key_of)
        except Unauthorized:
            mark = REQUEST.get()
            client = mark.client if mark else ""
            _wrong_keys.note(client, "wrong publish key from %s: %s %s", client, request.method, request.url.path)
            raise
        idempotency = idempotency_of(request)._replace(author=quota.author)
        return cls(request, check_stream(stream), idempotency, quota, partial(_check_key, keys, key_of))

    @property
    def author(self) -> Author:
        """The publish key of the request."""
        return self._quota.author

    async def require(self, right: str) -> None:
        """Raises Forbidden where the key lacks one more right."""
        await self._check_key(right)

    @property
    def kind(self) -> str:
        """The body's media type, '' where none is given."""
        return self._request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def json(self, *kinds: str, limit: int, empty: bytes = b"") -> Any:
        """The body as JSON, up to `limit` bytes; `empty` stands for a missing body. Its hash joins `idempotency`."""
        kinds = kinds or (JSON,)
        body = await self._body((*kinds, "") if empty else kinds, limit)
        if body and not self.kind:
            raise _unsupported(self.kind, kinds)
        body = body or empty
        self.idempotency = of_body(self.idempotency, body)
        return read_json(body)

    async def lines(self) -> list[tuple[int, bytes]]:
        """The lines of a batch by their numbers, without the blank ones; each counts as a request of the key."""
        body = (await self._body((NDJSON,), BATCH_BYTES)).rstrip()
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
        if not lines:
            raise Malformed("The batch has no line.", Fault("body", "one line or more", "none"))
        if len(lines) > BATCH_LINES:
            raise TooLarge("The batch is too long.", Fault("body", f"at most {BATCH_LINES} lines", str(len(lines))))
        self._quota.charge(len(lines))
        return lines

    def query(self, kind: type[M]) -> M:
        """The query of the URL, by a model; each name may come once."""
        return query_of(self._request, kind)

    def query_hash(self) -> str:
        """A text that is the same for the same query, in the place of a body's hash."""
        return json.dumps(dict(self._request.query_params), sort_keys=True)

    def entry_id(self) -> str:
        """The entry that the URL names."""
        return check_id(self._request.path_params["id"])

    def precondition(self, *, text_needs: str = "") -> Precondition:
        """`If-Match` and `If-None-Match` (RFC 9110, 13.1.1 and 13.1.2). Raises Malformed.

        The ETag of an entry that was read counts as its revision, with which it begins.
        A refusal shows the current text only to a key that has the right `text_needs`.
        """
        match = self._condition(
            "If-Match", r'\*|"[0-9]{1,9}(\.[0-9a-f]{32})?"', 'a revision in quotes, such as "3", or *'
        )
        is_new = self._condition("If-None-Match", r"\*", "*") is not None
        rev = int(match.strip('"').partition(".")[0]) if match not in (None, "*") else None
        shows_text = not text_needs or text_needs in self._quota.rights
        return Precondition(rev, exists=match == "*", is_new=is_new, shows_text=shows_text)

    def _condition(self, name: str, pattern: str, expected: str) -> str | None:
        value = self._request.headers.get(name)
        if value is not None and not re.fullmatch(pattern, value.strip()):
            raise Malformed(f"{name} must be {expected}.", Fault(name, expected, shorten(value)))
        return value and value.strip()

    def answer(self, appended: Appended, *, is_new: bool, **more: Any) -> Response:
        """The answer to a change that is stored: its revision, its place in the log, and how durable it is."""
        fields = {**outcome(self.stream, appended), **more}
        headers = {"Location": fields["url"], "ETag": f'"{appended.rev}"', "Idempotency-Key": self.idempotency.key}
        if appended.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Response(json.dumps(fields) + "\n", status_of(appended, is_new=is_new), headers, JSON)

    async def _body(self, kinds: tuple[str, ...], limit: int) -> bytes:
        """The body, up to the limit: an upload that understates its length is stopped there as well.

        A byte order mark at its start is dropped, as a reader of JSON may do (RFC 8259, 8.1).

        A key that was revoked while the body came is refused.
        """
        if self.kind not in kinds:
            raise _unsupported(self.kind, kinds)
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit, f"{declared} bytes")
        begin, body = time.monotonic(), bytearray()
        async for chunk in self._request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit, "more")
        if time.monotonic() - begin > KEY_FRESH:
            await self._check_key()
        return bytes(body).removeprefix(BYTE_ORDER_MARK)


async def _check_key(keys: Keys, key_of: tuple[str | None, tuple[str, ...], str], *more: str) -> None:
    """Look a key up again, which may have been revoked; it is to have these rights, too."""
    authorization, rights, stream = key_of
    await keys.check(authorization, (*rights, *more), stream)


def query_of(request: Request, kind: type[M]) -> M:
    """The query of a request's URL, by a model; each name may come once. Raises Invalid."""
    pairs = request.query_params.multi_items()
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid("A query parameter comes twice.", Fault(shorten(twice), "each name once", "twice"))
    return validation.read(kind, dict(pairs))


def batch_answer(results: Sequence[Mapping[str, Any]], headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a batch, a line for each result. Its status says so where every line was refused.

    It is 422, or 503 where the last one was because the store is away: then the batch is worth sending again.
    """
    last = results[-1]["status"]
    status = 200 if any(result["status"] < 400 for result in results) else 503 if last == 503 else 422
    more = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    body = "".join(f"{dumps(result)}\n" for result in results)
    return Response(body, status, {**(headers or {}), **more}, NDJSON)


def outcome(stream: str, appended: Appended) -> dict[str, Any]:
    """The members of an answer that tell what was stored."""
    url = f"/streams/{stream}"
    fields: dict[str, Any] = {"rev": appended.rev, "n": appended.n, "cursor": str(appended.cursor)}
    if appended.entry_id:
        url = f"{url}/entries/{appended.entry_id}"
        fields = {"id": appended.entry_id, **fields}
    durability, replicas = appended.durability
    verified = {} if replicas is None else {"replicas": replicas}
    return {**fields, "url": url, "durability": durability, **verified}


def erased_fields(erased: Erased) -> dict[str, Any]:
    """The members of an answer that tell since when no record has a text, and whether a file of the store has it."""
    return {"at": erased.at, "files": erased.files}


def status_of(appended: Appended, *, is_new: bool) -> int:
    """202 where fewer replicas have it than were asked for: it is stored, and may be lost with its server."""
    if not was_enough(appended.durability):
        return 202
    return 201 if is_new and not appended.replayed else 200


def was_enough(durability: Durability) -> bool:
    """Whether as many replicas acknowledged a write as were asked for."""
    return durability.replicas is None or durability.level == "replica"


def _unsupported(kind: str, kinds: tuple[str, ...]) -> UnsupportedType:
    fault = Fault("Content-Type", " or ".join(filter(None, kinds)), shorten(kind or "none"))
    return UnsupportedType("Unsupported content type.", fault, headers={"Connection": "close"})


def _too_large(limit: int, got: str) -> TooLarge:
    fault = Fault("body", f"at most {limit} bytes", got)
    return TooLarge("The body is too large.", fault, headers={"Connection": "close"})
