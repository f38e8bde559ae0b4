from __future__ import annotations

import asyncio
import socket

import pytest

from pushserver.server.channel import Channel, Word

from ..support.server import LIMIT

pytestmark = pytest.mark.anyio


async def test_words_come_in_order_with_a_listener_and_the_end() -> None:
    one, other = socket.socketpair()
    heard: asyncio.Queue[Word | None] = asyncio.Queue()
    speaking = Channel(one, lambda _: None)
    hearing = Channel(other, heard.put_nowait)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        speaking.say(Word.READY)
        speaking.say(Word.LISTEN, listener)
        speaking.say(Word.STOP)
        speaking.close()
        async with asyncio.timeout(LIMIT):
            words = [await heard.get() for _ in range(4)]
        assert words == [Word.READY, Word.LISTEN, Word.STOP, None]
        assert hearing.listener is not None
        with hearing.listener as same:
            assert same.getsockname() == listener.getsockname()
    speaking.close()
    hearing.close()


async def test_a_word_to_nobody_is_lost_and_one_to_who_hangs_holds_up_nobody() -> None:
    one, other = socket.socketpair()
    channel = Channel(one, lambda _: None)
    for _ in range(10_000):
        channel.say(Word.ALIVE)
    other.close()
    channel.say(Word.HURRY)
    channel.close()
