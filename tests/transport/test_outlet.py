"""Bytes that clients do not read are kept once for all of them, and up to a limit."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pushserver.transport.outlet import Unread

from ..support.connections import LARGE, serving
from ..support.server import until


class Client:
    """A holder that remembers why it was cut."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def cut(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def clients() -> list[Client]:
    return [Client() for _ in range(3)]


def test_equal_bytes_count_once_until_nobody_holds_them(clients: list[Client]) -> None:
    unread = Unread(1_000)
    first = unread.hold(clients[0], b"x" * 600)
    for client in clients[1:]:
        assert unread.hold(client, b"x" * 600) is first
    assert unread.shared(b"x" * 600) is first
    assert unread.bytes == 600
    for client in clients:
        assert unread.bytes == 600
        unread.release(client)
        unread.release(client)
    assert unread.bytes == 0


def test_who_has_taken_nothing_for_the_longest_time_is_cut(clients: list[Client]) -> None:
    unread = Unread(1_000)
    unread.hold(clients[0], b"a" * 400)
    unread.hold(clients[1], b"b" * 400)
    unread.hold(clients[0], b"a" * 400)  # it has taken a piece
    unread.hold(clients[2], b"c" * 400)
    assert [client.reasons for client in clients] == [[], ["memory"], []]
    assert unread.bytes == 800


def test_to_cut_one_of_several_that_share_frees_nothing_and_the_next_is_cut(clients: list[Client]) -> None:
    unread = Unread(1_000)
    unread.hold(clients[0], b"a" * 600)
    unread.hold(clients[1], b"a" * 600)
    unread.hold(clients[2], b"c" * 600)
    assert [client.reasons for client in clients] == [["memory"], ["memory"], []]
    assert unread.bytes == 600


def test_a_single_answer_may_be_larger_than_the_limit(clients: list[Client]) -> None:
    unread = Unread(1_000)
    unread.hold(clients[0], b"a" * 5_000)
    assert clients[0].reasons == []
    unread.hold(clients[1], b"b")
    assert clients[0].reasons == ["memory"]


def test_equal_answers_that_nobody_reads_are_held_once() -> None:
    with serving() as server, ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(10)]
        for wire in wires:
            wire.get("/large")
        until(lambda: sum(map(bool, server.bodies())) == len(wires))
        assert server.unread.bytes <= LARGE
        assert len({id(body) for body in server.bodies()}) == 1
        for wire in wires:
            assert len(wire.answer()[1]) > LARGE - 10
        assert server.unread.bytes == 0


def test_beyond_the_limit_the_others_go_on() -> None:
    with serving(unread_bytes=2 * LARGE) as server, ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(3)]
        for number, wire in enumerate(wires):
            wire.get(f"/large/{number}")
            until(lambda: len(server.site.asked) == number + 1)  # noqa: B023
        assert len(wires[0].rest()) < LARGE
        for wire in wires[1:]:
            assert len(wire.answer()[1]) > LARGE - 10


def test_what_is_pipelined_counts_as_well() -> None:
    with serving(unread_bytes=2**20) as server, server.wire() as wire, server.wire() as other:
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
        until(lambda: server.unread.bytes > 10_000)
        other.get("/large")
        assert wire.rest() == b""
        assert len(other.answer()[1]) > LARGE - 10
