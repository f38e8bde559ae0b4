"""A newsroom takes a stream down, or a text, under its readers: who is told, what is left, and what still works."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest
import redis.asyncio as aioredis
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pushserver.store.folder import SOCKET

from ..live.test_receipts import connected_to
from ..support.logs import log_key, texts_of
from ..support.server import LIMIT, Running, reader, receive, running

pytestmark = [pytest.mark.anyio, pytest.mark.full]

SECRET = "secret-a1b2c3d4"
AT_ONCE = 50  # readers who connect


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of two workers, of which none is replaced for being frozen."""
    folder = tmp_path_factory.mktemp("two") / "data"
    with running(folder, "--workers", "2", "--hung", "0", "--admit", "10000") as server:
        yield server


@asynccontextmanager
async def store_of(server: Running) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis(unix_socket_path=str(server.data / SOCKET)) as store:
        yield store


async def connected(stack: AsyncExitStack, server: Running, stream: str, count: int) -> list[ClientConnection]:
    sockets: list[ClientConnection] = []
    while len(sockets) < count:
        part = [stack.enter_async_context(reader(server, stream)) for _ in range(min(AT_ONCE, count - len(sockets)))]
        sockets += await asyncio.gather(*part)
    return sockets


async def ending(socket: ClientConnection) -> tuple[str, int | None]:
    """The reason of the last frame, and the code of the close after it."""
    bye = await receive(socket, "bye")
    with pytest.raises(ConnectionClosed) as closed:
        await receive(socket)
    return bye["reason"], closed.value.rcvd.code if closed.value.rcvd else None


async def post_until_refused(server: Running, stream: str) -> int:
    """Publish again and again; the status of the refusal."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=LIMIT) as http:
        while True:
            headers = {"Authorization": f"Bearer {server.key}"}
            with suppress(httpx2.TransportError):
                answer = await http.post(f"/streams/{stream}/entries", json={"headline": "more"}, headers=headers)
                if answer.status_code != 201:
                    return answer.status_code


async def test_a_stream_is_deleted_under_its_readers_while_a_script_posts_and_a_worker_is_frozen(
    two: Running, stream: str
) -> None:
    two.publish_ok(stream, "first")
    frozen, awake = (pid for pid in two.children() if pid != two.store_pid())
    async with AsyncExitStack() as stack:
        sockets = await connected(stack, two, stream, 200)
        for socket in sockets:
            await receive(socket, "snapshot")
        endings = [asyncio.create_task(ending(socket)) for socket in sockets]
        with connected_to(two, awake) as connection:
            os.kill(frozen, signal.SIGSTOP)
            try:
                # A post that the kernel gives to the frozen worker waits for it: others go on beside it.
                posts = [asyncio.create_task(post_until_refused(two, stream)) for _ in range(8)]

                def delete() -> tuple[int, dict[str, Any]]:
                    connection.request("DELETE", f"/streams/{stream}", headers={"Authorization": f"Bearer {two.key}"})
                    answer = connection.getresponse()
                    return answer.status, httpx2.Response(answer.status, content=answer.read()).json()

                status, body = await asyncio.to_thread(delete)
                assert (status, body["receipt"]["silent"]) == (200, 1)
                done = body["receipt"]["workers"][0]["readers"]
                assert done < 200
            finally:
                os.kill(frozen, signal.SIGCONT)
        async with asyncio.timeout(LIMIT):
            assert set(await asyncio.gather(*endings)) == {("deleted", 4410)}
            assert set(await asyncio.gather(*posts)) == {410}
    async with store_of(two) as store:
        keys = [name async for name in store.scan_iter(f"*{stream}*")]
        assert keys == [log_key(stream, "deleted").encode()]
    assert two.http.get(f"/streams/{stream}").status_code == 410


async def test_readers_with_cursors_from_before_an_erasure_resume_complete(two: Running, stream: str) -> None:
    cursors = [two.publish_ok(stream, f"before {number}")["cursor"] for number in range(10)]
    id = two.publish_ok(stream, SECRET)["id"]
    cursors += [two.publish_ok(stream, f"after {number}")["cursor"] for number in range(10)]
    answer = two.send("DELETE", f"/streams/{stream}/entries/{id}?reason=legal", b"").json()
    assert answer["erased"]["files"] is True
    async with store_of(two) as store:
        assert SECRET not in await texts_of(store)
    for _ in range(500 // len(cursors)):
        await assert_complete(two, stream, cursors, answer["n"])


async def assert_complete(server: Running, stream: str, cursors: list[str], n: int) -> None:
    """Readers with these cursors resume with every event up to this one, and none has the text."""
    for hello, *events in await asyncio.gather(*(resumed(server, stream, cursor, n) for cursor in cursors)):
        assert hello["complete"] is True
        assert [event["n"] for event in events] == list(range(hello["from"] + 1, n + 1))
        assert SECRET not in repr(events)


async def resumed(server: Running, stream: str, cursor: str, n: int) -> list[dict[str, Any]]:
    """The frames of a reader that resumes, up to this event."""
    async with reader(server, stream, cursor=cursor) as socket:
        frames = [await receive(socket, "hello")]
        while frames[-1].get("n") != n and frames[-1].get("from") != n:
            frames.append(await receive(socket))
    return frames
