"""The table of addresses in docs/protocol.md, made from the operations by `make docs`. Pure."""

from __future__ import annotations

import re

from ..route_table import OPERATIONS, Operation

BEGIN, END = "<!-- addresses: made by `make docs` -->", "<!-- end of addresses -->"


def addresses_table() -> str:
    """The table, a line for each operation."""
    lines = ["| request | what it does | needs |", "| --- | --- | --- |", *map(_line, OPERATIONS)]
    return "\n".join(lines) + "\n"


def insert(page: str) -> str:
    """A page with the table between its two markers. Raises ValueError where it does not have both, once."""
    pattern = f"(?<={re.escape(BEGIN)}\n).*(?={re.escape(END)})"
    replaced, count = re.subn(pattern, lambda match: addresses_table(), page, flags=re.DOTALL)
    if count != 1 or page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"expected one {BEGIN} and one {END} after it")
    return replaced


def _line(operation: Operation) -> str:
    return f"| `{operation.method} {operation.path}` | {operation.does} | {_needs(operation)} |"


def _needs(operation: Operation) -> str:
    if operation.is_for_readers:
        return "a token, if the stream is private"
    if operation.right is None:
        return "nothing"
    return f"a key with {_code(operation.right)}" if operation.right else "a key"


def _code(rights: str) -> str:
    """`a, b, c` as words of a sentence, each in code: "`a`, `b` and `c`"."""
    *others, last = (f"`{right}`" for right in rights.split(", "))
    return f"{', '.join(others)} and {last}" if others else last
