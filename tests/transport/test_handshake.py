"""A handshake that the application does not answer, or whose refusal is not read, ends by itself."""

from __future__ import annotations

import pytest

from pushserver.transport.deadline import LIMITS

from ..support.connections import serving
from .test_http import SHORT, UPGRADE


def test_an_application_that_does_not_answer_is_answered_for() -> None:
    with serving(LIMITS._replace(handshake=SHORT)) as server, server.wire() as wire:
        wire.get("/slow", UPGRADE)
        assert wire.answer()[0] == 503
        assert wire.rest() == b""


@pytest.mark.parametrize("parts", [1, 10])
def test_bytes_before_the_answer_are_bounded(parts: int) -> None:
    with serving() as server, server.wire() as wire:
        wire.get("/slow", UPGRADE + b"\r\n" + b"x" * (10_000 // parts))
        for _ in range(parts - 1):
            wire.send(b"x" * 1_000)
        assert wire.rest() == b""


def test_bytes_that_come_with_the_request_are_for_the_protocol_behind_it() -> None:
    with serving() as server, server.wire() as wire:
        wire.get("/socket", UPGRADE + b"\r\n" + b"x" * 3_000)
        assert wire.answer()[0] == 101
        assert wire.socket.recv(8) == b"accepted"
