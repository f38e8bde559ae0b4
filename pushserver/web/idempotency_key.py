"""The `Idempotency-Key` of a request, by which a publish that is sent again is stored once.

The key goes to the store with the event and the hash of the body. `store/append.lua` gives a key that it knows its
first answer again, and refuses another body; before a change, `changed_once` of `publishing/commit.py` asks for that.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from starlette.requests import Request

from ..errors import Fault, Malformed, shorten
from ..model import Idempotency

# The client has the same two: it imports nothing of the server.
KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,200})"|([\x21\x23-\x5b\x5d-\x7e]{1,200})')
EXPECTED = "1 to 200 visible ASCII characters, no quote or backslash"


def idempotency_of(request: Request) -> Idempotency:
    """The client's key: a token, or a string in quotes as the IETF draft has it; or a new key. Raises Malformed.

    Every answer names the key, also one that says that the event may be stored: then the client sends it again.
    """
    value = request.headers.get("idempotency-key")
    if value is None:
        return Idempotency(secrets.token_hex(16))
    match = KEY.fullmatch(value)
    if not match:
        fault = Fault("Idempotency-Key", EXPECTED, shorten(value))
        raise Malformed("The Idempotency-Key header is not valid.", fault)
    return Idempotency(match[1] or match[2], from_client=True)


def of_body(key: Idempotency, body: bytes) -> Idempotency:
    """The key with the hash of the body: the store refuses the key with another body."""
    return key._replace(body_hash=hashlib.sha256(body).hexdigest())


def of_line(key: Idempotency, number: int, line: bytes) -> Idempotency:
    """The key of a line, made of that of the batch, so that a batch that was cut short can be sent again."""
    return of_body(key._replace(key=f"{key.key}.{number}"), line)
