from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis.asyncio as aioredis
from redis.exceptions import MovedError

from pushserver.store import topology
from pushserver.store.connection import CLOCK_SAMPLES, READS, BlockingConnection, Node, StoreClock, within
from pushserver.store.log import Log
from pushserver.store.store import Store, StoreError

from ..support.answers import answering
from ..support.certificates import Authority
from ..support.ports import free_port
from ..support.proxy import Proxy, to_server, to_socket
from ..support.server import LIMIT, ROOT, entry_append
from ..support.stores import REDIS, Server

pytestmark = pytest.mark.anyio

DOCUMENT = (ROOT / "docs" / "redis.md").read_text()


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
async def node(store_url: str) -> AsyncIterator[Node]:
    node = Node(store_url)
    yield node
    await node.close()


class Late(NamedTuple):
    """Late is a node whose connections become open when its gate lets their handshakes through."""

    node: Node
    gate: Proxy

    async def until_connecting(self) -> None:
        async with asyncio.timeout(LIMIT):
            while not self.gate.connections:
                await asyncio.sleep(0)


@pytest.fixture
async def late(store_url: str, tmp_path: Path) -> AsyncIterator[Late]:
    """A node that reaches the store through a gate, and through the end of TLS behind it."""
    authority = Authority(tmp_path)
    authority.sign("server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    async with (
        Proxy(to_socket(store_url.removeprefix("unix://"))).running(tls=tls) as end,
        Proxy(to_server(end.url)).running() as gate,
    ):
        gate.hold()
        node = Node(f"rediss://127.0.0.1:{gate.port}?ssl_ca_certs={tmp_path / 'ca.pem'}")
        yield Late(node, gate)
        await node.close()


async def test_a_command_is_not_carried_out_whose_connection_is_made_while_its_server_is_left(
    late: Late, store: aioredis.Redis, stream: str
) -> None:
    """It would be acknowledged, and lost when the server becomes a replica."""
    command = asyncio.ensure_future(late.node.redis.set(stream, "lost"))
    await late.until_connecting()
    await late.node.close()
    late.gate.release()
    with pytest.raises(StoreError, match="no longer the primary"):
        async with asyncio.timeout(LIMIT):
            await command
    pool: Any = late.node.redis.connection_pool
    assert [connection.is_connected for connection in pool._available_connections] == [False]
    assert await store.get(stream) is None


async def test_a_connection_for_blocking_commands_is_not_opened_while_its_server_is_left(late: Late) -> None:
    connecting = asyncio.ensure_future(late.node.connect())
    await late.until_connecting()
    (connection,) = late.node._own
    await late.node.close()
    late.gate.release()
    with pytest.raises(StoreError, match="no longer the primary"):
        async with asyncio.timeout(LIMIT):
            await connecting
    assert not connection.is_connected


async def test_a_command_that_comes_while_its_server_is_left_is_not_sent(
    node: Node, store: aioredis.Redis, stream: str
) -> None:
    await node.redis.ping()
    command = asyncio.ensure_future(node.redis.set(stream, "lost"))  # it begins as soon as another task waits
    await node.close()
    with pytest.raises(StoreError):
        await command
    assert await store.get(stream) is None


async def test_the_next_of_several_commands_is_not_sent_to_a_server_that_is_left(
    node: Node, store: aioredis.Redis, stream: str
) -> None:
    """As when the pipeline of a publish has looked for its script."""
    async with node.redis.pipeline(transaction=False) as pipeline:
        await pipeline.immediate_execute_command("SCRIPT", "EXISTS", "0" * 40)  # type: ignore[no-untyped-call]
        await node.close()
        pipeline.set(stream, "lost")
        with pytest.raises(StoreError, match="no longer the primary"):
            await pipeline.execute()
    assert await store.get(stream) is None


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


async def test_a_connection_that_its_server_has_closed_is_not_opened_again(connection: BlockingConnection) -> None:
    """A tail or a subscription has to hear of it: what it knew of the former connection no longer holds."""
    await connection._node.redis.client_kill_filter(_id=str(connection.client_id))
    for _ in range(2):
        with pytest.raises(StoreError):
            await connection.execute("PING")


async def test_a_tail_does_not_go_back_to_a_server_that_is_left(connection: BlockingConnection) -> None:
    """The server is left between two reads: it answers on, and the tail would hear nothing of its successor."""
    assert await connection.execute("XREAD", "STREAMS", "nothing-here", "0-0") is None
    await connection._node.close()
    with pytest.raises(StoreError, match="closed"):
        await connection.execute("XREAD", "STREAMS", "nothing-here", "0-0")


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


# --- errors in plain words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("MOVED 5474 127.0.0.1:7001", "slot 5474 has moved to 127.0.0.1:7001 (MOVED)"),
        ("ASK 12 [::1]:7001", "slot 12 is moving to [::1]:7001, and this key may be there (ASK)"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "the slot is moving, and some of its keys are on"),
        (
            "WRONGPASS invalid username-password pair or user is disabled.",
            "it does not accept the user or the password",
        ),
        ("NOAUTH Authentication required.", "it asks for a password, and the URL has none"),
        ("READONLY You can't write against a read only replica.", "You can't write against a read only replica."),
    ],
)
async def test_an_error_is_told_in_plain_words(answer: str, words: str) -> None:
    async with answering({"GET": f"-{answer}"}) as port:
        node = Node(f"redis://127.0.0.1:{port}")
        with pytest.raises(StoreError) as refused:
            await within(node.redis.get("key"))
        assert str(refused.value).startswith(words)
        await node.close()


async def test_the_error_of_one_command_of_several_does_not_repeat_the_command() -> None:
    async with answering({"SET": "-OOM command not allowed when used memory > 'maxmemory'."}) as port:
        node = Node(f"redis://127.0.0.1:{port}")
        pipeline = node.redis.pipeline(transaction=False)
        pipeline.set("key", "a text (of somebody)")
        with pytest.raises(StoreError) as refused:
            await within(pipeline.execute())
        assert str(refused.value) == "command not allowed when used memory > 'maxmemory'."
        await node.close()


# --- TLS, client certificates, users


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentinels on a busy machine have as long as they need."""
    monkeypatch.setattr(topology, "ASK_TIMEOUT", LIMIT)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A primary and a Sentinel behind TLS with client certificates, whose users are those of docs/redis.md."""
    if not REDIS:
        pytest.skip("redis is not installed, and Valkey's wheel has no TLS")
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder / "tls")
    for name in ("server", "client"):
        authority.sign(name)
    Authority(folder / "other").sign("client")
    tls = [f"--tls-{name}-file" for name in ("cert", "key", "ca-cert")]
    files = [str(authority.folder / name) for name in ("server.pem", "server.key", "ca.pem")]
    options = [word for pair in zip(tls, files, strict=True) for word in pair]
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        primary = Server(folder, "--tls-port", str(ports[0]), *options, binary=REDIS)
        stack.callback(primary.close)
        config = folder / "sentinel.conf"
        config.write_text("")
        sentinel = Server(
            folder, str(config), "--sentinel", "--tls-port", str(ports[1]), "--tls-replication", "yes", *options,
            binary=REDIS,
        )  # fmt: skip
        stack.callback(sentinel.close)
        sentinel.ask("SENTINEL", "MONITOR", "live", "127.0.0.1", ports[0], 1)
        for server, line in zip((primary, sentinel), re.findall("^ACL SETUSER .*", DOCUMENT, re.M), strict=True):
            server.ask(*line.split())
            server.ask("ACL", "SETUSER", "default", "off")
        yield Guarded(folder, *ports)


class Guarded(NamedTuple):
    """Guarded is where the certificates are, and the ports with TLS of the primary and the Sentinel."""

    folder: Path
    port: int
    sentinel: int

    def url(self) -> str:
        """The URL of the example, on these servers."""
        match = re.search("PUSHSERVER_REDIS='(.*)'", DOCUMENT)
        assert match
        hosts = "10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379"
        return (
            match[1].replace("/etc/pushserver", str(self.folder / "tls")).replace(hosts, f"127.0.0.1:{self.sentinel}")
        )


async def test_the_example_of_the_documentation_connects(guarded: Guarded, stream: str, patient: None) -> None:
    store = Store(guarded.url(), partitions=16)
    await store.check()
    log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
    assert (await log.append(entry_append(stream, "Over TLS"))).n == 1
    await store.close()


@pytest.mark.parametrize(
    ("pattern", "replacement", "cause"),
    [
        ("p%40ss%23word", "wrong", "^it does not accept the user or the password"),
        ("w%40tch%23er", "wrong", "no Sentinel answers.*it does not accept the user or the password"),
        ("&ssl_certfile.*", "", "no Sentinel answers.*client certificate.*ssl_certfile"),
        ("ssl_ca_certs=[^&]*&", "", "no Sentinel answers.*its certificate is not trusted"),
        ("tls/client", "other/client", "no Sentinel answers.*accept.* (the client certificate|that) of ssl_certfile"),
        ("/live", "/other", "no Sentinel answers.*it watches no primary of that name"),
        ("sentinel_user=watcher", "sentinel_user=nobody", "it does not accept the user or the password"),
    ],
)
async def test_a_mistake_in_it_is_named(
    guarded: Guarded, patient: None, pattern: str, replacement: str, cause: str
) -> None:
    store = Store(re.sub(pattern, replacement, guarded.url()), partitions=16)
    with pytest.raises(StoreError, match=cause):
        await store.check()
    await store.close()


async def test_a_server_without_tls_is_named() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR hello\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        store = Store(f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}", partitions=16)
        with pytest.raises(StoreError, match="it does not speak TLS"):
            await store.check()
        await store.close()


def test_a_store_s_clock_is_estimated_by_its_fastest_answers() -> None:
    clock = StoreClock()
    assert clock.ahead_ms == 0
    clock.note(1_000, 1_500, 1_900)  # a slow answer: half of it may have been on either way
    assert clock.ahead_ms == 50
    clock.note(2_000, 2_301, 2_002)
    assert clock.ahead_ms == 300
    clock.note(3_000, 3_200, 3_100)
    assert clock.ahead_ms == 300
    for _ in range(CLOCK_SAMPLES):  # the clock was set since
        clock.note(4_000, 4_020, 4_010)
    assert clock.ahead_ms == 15
    clock.note(5_000, 5_000, 4_000)  # ours was, in between
    assert clock.ahead_ms == 500


# --- scripts that only read


ECHO = aioredis.Redis().register_script("return {KEYS[1], ARGV[1]}")


async def echo(node: Node, word: str) -> Any:
    return await node.reads.run(ECHO, ["key"], [word])


async def clients_of(node: Node) -> int:
    return len(await node.redis.client_list())


async def test_reads_share_a_few_connections(node: Node) -> None:
    assert await echo(node, "first") == [b"key", b"first"]  # its script was not on the server
    await echo(node, "next")
    clients = await clients_of(node)
    for number in range(10):
        assert await echo(node, str(number)) == [b"key", str(number).encode()]
    assert await clients_of(node) == clients
    answers = await asyncio.gather(*(echo(node, str(number)) for number in range(10 * READS)))
    assert answers == [[b"key", str(number).encode()] for number in range(10 * READS)]


async def test_a_read_whose_connection_the_server_has_closed_is_sent_again(node: Node) -> None:
    await echo(node, "before")
    await echo(node, "before")
    await node.redis.client_kill_filter(_type="normal", skipme=True)
    assert await echo(node, "after") == [b"key", b"after"]


async def test_a_read_that_is_given_up_leaves_no_answer_to_the_next(node: Node) -> None:
    await echo(node, "loads the script")
    for number in range(5):
        reading = asyncio.create_task(echo(node, "given up"))
        for _ in range(number):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert await echo(node, "next") == [b"key", b"next"]


async def test_a_refused_read_keeps_its_connection(node: Node) -> None:
    wrong = aioredis.Redis().register_script("return redis.error_reply('MOVED 1 127.0.0.1:1')")
    for _ in range(3 * READS):
        with pytest.raises(MovedError):
            await node.reads.run(wrong, ["key"], [])
    assert await echo(node, "after") == [b"key", b"after"]


async def test_a_server_that_is_left_is_not_read_any_more(node: Node) -> None:
    """It may go on answering, without what its successor has acknowledged."""
    await echo(node, "before")
    await echo(node, "before")
    await node.close()
    with pytest.raises(StoreError, match="no longer the primary"):
        await echo(node, "after")


async def test_a_read_goes_by_way_of_the_pool_where_no_connection_can_be_opened(store_url: str, tmp_path: Path) -> None:
    """As where somebody deletes the folder with the socket of an embedded store."""
    path = tmp_path / "socket"
    path.symlink_to(store_url.removeprefix("unix://"))
    node = Node(f"unix://{path}")
    await node.redis.ping()
    path.unlink()
    assert await echo(node, "still there") == [b"key", b"still there"]
    await node.close()
