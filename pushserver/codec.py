"""JSON in and out: strict for what comes from outside, compact for what goes out.

No JSON library at hand refuses a name that comes twice, so the strict reader is our own.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn

from .errors import Fault, Malformed, shorten

DEPTH_LIMIT = 32  # levels of nesting in a body


def read_json(body: bytes) -> Any:
    """JSON (RFC 8259), refused where parsers differ: duplicate names, NaN, deep nesting, a byte order mark."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{body[error.start]:02x} at offset {error.start}"
        raise Malformed("The body is not UTF-8.", Fault("body", "UTF-8", byte)) from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise Malformed(
            "The body is nested too deep.", Fault("body", f"{DEPTH_LIMIT} levels at most", "more")
        ) from None
    except json.JSONDecodeError as error:
        got = shorten(text[error.pos : error.pos + 20] or "the end")
        where = f"line {error.lineno} column {error.colno}"
        hint = ""
        if error.msg == "Extra data":  # `curl -d @file` takes the ends of the lines away
            hint = "; a batch has one entry a line, and curl keeps the lines with --data-binary"
        raise Malformed(f"The body is not JSON: {error.msg}{hint}.", Fault("body", f"JSON at {where}", got)) from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise Malformed(
            "A number is too long.",
            Fault("body", "at most 4300 digits", shorten(max(re.findall("[0-9]+", text), key=len))),
        ) from None
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise Malformed("A JSON object names a member twice.", Fault(shorten(twice), "each name once", "twice"))
    return members


def _no_constant(name: str) -> NoReturn:
    raise Malformed("JSON has no such number.", Fault("body", "a finite number", name))


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise Malformed("A number is too large.", Fault("body", "a finite number", shorten(text)))
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        level = [inner for outer in level for inner in _inside(outer)]
        if not any(isinstance(inner, dict | list) for inner in level):
            return
    raise Malformed("The body is nested too deep.", Fault("body", f"{DEPTH_LIMIT} levels at most", "more"))


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def loads(stored: bytes) -> dict[str, Any]:
    """JSON that the store holds, and so was checked when it came."""
    value: dict[str, Any] = json.loads(stored)
    return value


def dumps(value: Any) -> str:
    """Compact JSON; characters beyond ASCII are not escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
