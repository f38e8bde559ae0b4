"""An answer of a target may be anything: what is no JSON object is an empty one."""

from __future__ import annotations

import pytest

from pushserver.access import token_gate
from pushserver.doctor.target import TOKEN_COOKIE, Answered


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"[" * 100_000, b"\xff"])
def test_what_is_no_object_is_an_empty_one(body: bytes) -> None:
    assert Answered(200, {}, body, 0).json() == {}


def test_a_token_is_sent_in_the_cookie_that_the_gate_reads() -> None:
    assert TOKEN_COOKIE == token_gate.COOKIE
