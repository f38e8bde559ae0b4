from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest

from pushserver.store.connection import BlockingConnection, Node, within
from pushserver.store.store import Store, StoreError

from ..support.server import LIMIT

pytestmark = pytest.mark.anyio


async def test_a_server_that_takes_a_connection_and_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.store.connection.within", partial(within, limit=0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = Node(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreError, match=r"no answer within 0\.2 s"):
            async with asyncio.timeout(LIMIT):
                await node.connect()


async def test_a_server_that_is_left_ends_its_connections(store_url: str) -> None:
    """A read that waits in a store which nobody calls the primary any more would wait there for ever."""
    node = Node(store_url)
    connection = await node.connect()
    await connection.send_command("XREAD", "BLOCK", 0, "STREAMS", "nothing-here", "0-0")
    reading = asyncio.create_task(connection.read_response())
    await asyncio.sleep(0)
    await node.close()
    with pytest.raises(StoreError):
        async with asyncio.timeout(LIMIT):
            await reading


@pytest.fixture
async def connection(store_url: str) -> AsyncIterator[BlockingConnection]:
    node = Node(store_url)
    connection = await BlockingConnection.open(node)
    yield connection
    await connection.close()
    await node.close()


@pytest.mark.parametrize(
    "words",
    [
        ["plain", ""],
        [b"", b"\xff\x00", b"\r\n"],
        ["é – 猫 😀", "two\r\nlines", "with \x00"],
        [0, -1, 2**63, 256],
        ["", "é", b"\xc3", 7] * 1_000,
    ],
    ids=["str", "bytes", "beyond ASCII", "int", "many"],
)
async def test_a_server_understands_every_word_of_a_command(
    connection: BlockingConnection, words: list[str | bytes | int]
) -> None:
    received = await connection.execute("EVAL", "return ARGV", 0, *words)
    assert received == [word if isinstance(word, bytes) else str(word).encode() for word in words]


async def test_a_word_that_is_no_text_is_not_sent(connection: BlockingConnection) -> None:
    with pytest.raises(UnicodeEncodeError):
        await connection.execute("ECHO", "\ud800")
    assert await connection.execute("ECHO", "on") == b"on"


async def test_a_blocked_read_is_unblocked(connection: BlockingConnection) -> None:
    reading = asyncio.create_task(connection.execute("XREAD", "BLOCK", 60_000, "STREAMS", "nothing-here", "0-0"))
    while not reading.done():  # the first ones may arrive before the read does
        await connection.unblock()
    assert await reading is None


async def test_channels_carry_messages_until_they_are_closed(log_store: Store) -> None:
    async with log_store.channels("{p00}:one", "{p00}:two") as channels:
        assert await log_store.publish("{p00}:two", "hello") == 1
        assert await channels.read() == b"hello"
    async with asyncio.timeout(LIMIT):  # the server sees the end of the connection after this side does
        while await log_store.publish("{p00}:two", "hello"):
            pass


async def test_a_quiet_channel_whose_store_answers_has_no_message(
    log_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.store.connection.QUIET", 0.05)
    async with log_store.channels("{p00}:quiet") as channels:
        assert await channels.read() is None
        await log_store.publish("{p00}:quiet", "hello")
        assert await channels.read() == b"hello"
