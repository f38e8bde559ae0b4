"""What a reader says, frame by frame, and how it is answered: over raw sockets, on a connection that was detached."""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from pushserver.wire.codes import Close
from pushserver.wire.websocket import RECEIVE_BYTES, ClientFrames, accepts_deflate

from ..support.server import Running

LIMIT = 90.0  # seconds after which what is waited for will not come


class Received(NamedTuple):
    """A frame from the server. Its mask bit is checked as it is read: a server masks nothing."""

    opcode: int
    payload: bytes
    deflated: bool

    @property
    def code(self) -> int:
        """Of a close frame; 1005 where it has none."""
        assert self.opcode == Opcode.CLOSE
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else 1005


class Raw:
    """A connection after its handshake, without a library in between."""

    def __init__(self, connection: socket.socket, head: bytes, rest: bytes) -> None:
        self.connection = connection
        self.head = head
        self._rest = rest

    def send(self, *frames: bytes) -> None:
        self.connection.sendall(b"".join(frames))

    def receive(self) -> Received | None:
        """The next frame, None at the end."""
        head = self._read(2)
        if not head:
            return None
        assert not head[1] & 0x80, "the server masked a frame"
        assert head[0] & 0xB0 == 0x80, "a part of a message, or a reserved bit"
        size = head[1]
        if size == 126:
            (size,) = struct.unpack("!H", self._read(2))
            assert size >= 126
        elif size == 127:
            (size,) = struct.unpack("!Q", self._read(8))
            assert size >= 65_536
        return Received(head[0] & 0xF, self._read(size), bool(head[0] & 0x40))

    def until(self, opcode: Opcode) -> Received:
        """The next frame of a kind."""
        while True:
            frame = self.receive()
            assert frame is not None, "it ended before"
            if frame.opcode == opcode:
                return frame

    def closed_with(self) -> int:
        """The code that the server closes with; it is echoed, and then the connection ends."""
        code = self.until(Opcode.CLOSE).code
        with suppress(ConnectionError):
            self.send(client(Opcode.CLOSE, struct.pack("!H", code)))
            assert self.receive() is None, "something came after the close frame"
        return code

    def _read(self, size: int) -> bytes:
        while len(self._rest) < size:
            more = self.connection.recv(65_536)
            if not more:
                return b""
            self._rest += more
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def client(opcode: Opcode, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame as a client sends it."""
    head, *rest = Frame(opcode, payload, fin).serialize(mask=True)
    return bytes([head | (0x40 if rsv1 else 0), *rest])


@contextmanager
def connected(server: Running, stream: str, *headers: str, early: bytes = b"") -> Iterator[Raw]:
    """A reader's connection; what is early is sent in one packet with its request."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        lines = [
            f"GET /streams/{stream}/ws HTTP/1.1",
            "Host: x",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *headers,
        ]
        connection.sendall("\r\n".join([*lines, "\r\n"]).encode() + early)
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(4_096)
            assert more, head
            head += more
        head, rest = head.split(b"\r\n\r\n", 1)
        yield Raw(connection, head, rest)


@pytest.fixture
def raw(server: Running, stream: str) -> Iterator[Raw]:
    server.publish_ok(stream, "one")
    with connected(server, stream) as raw:
        yield raw


PING = client(Opcode.PING, b"are you there")


# --- the handshake


def test_the_answer_to_a_handshake_is_the_one_of_the_standard(raw: Raw) -> None:
    lines = raw.head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert sorted(line.lower() for line in lines[1:] if not line.lower().startswith("x-request-id: ")) == [
        "connection: upgrade",
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".lower(),
        "upgrade: websocket",
    ]
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in raw.head.decode()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("GET ", "PUT "), 405),
        (("HTTP/1.1", "HTTP/1.0"), 505),
        (("Version: 13", "Version: 8"), 426),
        (("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "not base64, this"), 400),
        (("Host: x", "Host: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (("Upgrade: websocket", "Upgrade: h2c"), 426),
        (("Connection: Upgrade", "Connection: close"), 426),
    ],
)
def test_a_request_that_is_no_handshake_is_refused(
    server: Running, stream: str, change: tuple[str, str], status: int
) -> None:
    server.publish_ok(stream, "one")
    request = (
        f"GET /streams/{stream}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert change[0] in request
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.sendall(request.replace(*change).encode())
        assert connection.recv(4_096).startswith(f"HTTP/1.1 {status} ".encode())


def test_what_comes_in_one_packet_with_the_handshake_is_heard(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    with connected(server, stream, early=PING) as raw:
        assert raw.until(Opcode.PONG).payload == b"are you there"


# --- what may be said


def test_a_ping_is_answered_and_a_pong_is_not(raw: Raw) -> None:
    raw.send(client(Opcode.PONG, b"unasked"), PING)
    assert raw.until(Opcode.PONG).payload == b"are you there"


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9going away", b"\x0f\xa0"])
def test_a_close_is_echoed_and_ends_the_connection(raw: Raw, payload: bytes) -> None:
    raw.send(client(Opcode.CLOSE, payload))
    assert raw.until(Opcode.CLOSE).payload == payload
    assert raw.receive() is None


def test_frames_that_come_byte_by_byte_are_heard(raw: Raw) -> None:
    raw.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for frames, answer in [
        (PING, Opcode.PONG),
        (client(Opcode.PONG, b"x" * 125) + PING, Opcode.PONG),
        (client(Opcode.CLOSE, b"\x03\xe8bye"), Opcode.CLOSE),
    ]:
        for at in range(len(frames)):
            raw.send(frames[at : at + 1])
        assert raw.until(answer).payload in (b"are you there", b"\x03\xe8bye")


SAID = [
    PING,
    client(Opcode.PONG),
    client(Opcode.PING, b"x" * 125),
    client(Opcode.CLOSE, CloseFrame(1001, "gone").serialize()),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_it_does_not_matter_where_what_is_said_is_split(size: int) -> None:
    whole = b"".join(SAID)
    for first in range(len(whole)):
        frames, answers = ClientFrames(deflated=False), []
        for part in [whole[:first], *(whole[at : at + size] for at in range(first, len(whole), size))]:
            frames.receive(part)
            assert frames.code is None
            answers += [frames.reply] if frames.reply else []
            if frames.is_between_frames() and not frames.close_received:
                frames = ClientFrames(deflated=False)
        assert frames.close_received
        assert answers[-1] == Frame(Opcode.CLOSE, CloseFrame(1001, "gone").serialize()).serialize(mask=False)


def test_nothing_is_kept_after_a_frame_and_all_of_it_before() -> None:
    frame = client(Opcode.PING, b"x" * 100)
    frames = ClientFrames(deflated=False)
    for at in range(len(frame)):
        frames.receive(frame[at : at + 1])
        assert frames.is_between_frames() is (at == len(frame) - 1)


# --- what may not


TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
WRONG: dict[str, tuple[bytes, int]] = {
    "a text": (client(TEXT, b"hello"), Close.BAD_MESSAGE),
    "an empty text": (client(TEXT), Close.BAD_MESSAGE),
    "a binary message": (client(BINARY, b"\0"), Close.BAD_MESSAGE),
    "the first part of a text": (client(TEXT, b"hel", fin=False), Close.BAD_MESSAGE),
    "a text in parts with a ping between": (
        client(TEXT, b"hel", fin=False) + PING + client(CONT, b"lo"),
        Close.BAD_MESSAGE,
    ),
    "a text that is not UTF-8: nobody reads it": (client(TEXT, b"\xff\xfe"), Close.BAD_MESSAGE),
    "a text and then nonsense: the first decides": (client(TEXT, b"hello") + b"\xff" * 20, Close.BAD_MESSAGE),
    "a part of nothing": (client(CONT, b"lo"), Close.PROTOCOL_ERROR),
    "no mask": (Frame(Opcode.PING, b"x").serialize(mask=False), Close.PROTOCOL_ERROR),
    "a text without a mask": (Frame(TEXT, b"hello").serialize(mask=False), Close.PROTOCOL_ERROR),
    "reserved bit 1": (b"\xc9\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "reserved bit 2": (b"\xa9\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "reserved bit 3": (b"\x99\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "a deflated text that was not agreed to": (b"\xc1\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "opcode 3": (b"\x83\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "opcode 15": (b"\x8f\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "a ping of 126 bytes": (b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126, Close.PROTOCOL_ERROR),
    "a ping in parts": (b"\x09\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "a close in parts": (b"\x08\x80\0\0\0\0", Close.PROTOCOL_ERROR),
    "a close of one byte": (client(Opcode.CLOSE, b"\x03"), Close.PROTOCOL_ERROR),
    "a close with a code that is never sent": (client(Opcode.CLOSE, b"\x03\xed"), Close.PROTOCOL_ERROR),
    "a close with an unknown code": (client(Opcode.CLOSE, b"\0\x01"), Close.PROTOCOL_ERROR),
    "a close with a reason that is not UTF-8": (client(Opcode.CLOSE, b"\x03\xe8\xff"), Close.NOT_UTF8),
    "a text of 5,000 bytes": (client(TEXT, b"x" * 5_000), Close.TOO_BIG),
    "the head of a text of 2^62 bytes": (b"\x81\xff\x40\0\0\0\0\0\0\0\0\0\0\0", Close.TOO_BIG),
    "more pings at once than a frame has bytes": (client(Opcode.PING) * (RECEIVE_BYTES // 6 + 1), Close.FLOOD),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_may_not_be_said_closes_with_its_code(raw: Raw, name: str) -> None:
    said, code = WRONG[name]
    raw.send(said)
    assert raw.closed_with() == code


@pytest.mark.parametrize("name", [name for name in WRONG if WRONG[name][1] != Close.FLOOD])
def test_it_does_so_however_it_is_split(name: str) -> None:
    said, code = WRONG[name]
    for size in (1, 2, 3, len(said)):
        frames = ClientFrames(deflated=False)
        for at in range(0, len(said), size):
            frames.receive(said[at : at + size])
            if frames.code is not None:
                break
        assert frames.code == code


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_whatever_is_said_is_judged(parts: list[bytes]) -> None:
    frames = ClientFrames(deflated=False)
    for part in parts:
        frames.receive(part)
        if frames.code is not None or frames.close_received:
            break
        assert len(frames.reply) <= 127
        frames = ClientFrames(deflated=False) if frames.is_between_frames() else frames


def test_after_its_goodbye_the_server_waits_for_the_echo_and_answers_nothing(raw: Raw) -> None:
    raw.send(client(TEXT, b"hello"))
    assert raw.until(Opcode.CLOSE).code == Close.BAD_MESSAGE
    raw.send(PING, client(TEXT, b"more"), b"\xff" * 10)
    raw.connection.shutdown(socket.SHUT_WR)
    assert raw.receive() is None


def test_who_floods_with_pings_and_reads_nothing_is_let_go_and_harms_nobody(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    with connected(server, stream) as flooding, connected(server, stream) as healthy:
        flooding.connection.setblocking(False)
        sent, flood = 0, client(Opcode.PING, b"x" * 125) * 30
        with suppress(ConnectionError):
            while sent < 50_000_000:
                try:
                    sent += flooding.connection.send(flood)
                except BlockingIOError:
                    healthy.send(PING)
                    assert healthy.until(Opcode.PONG).payload == b"are you there"
            raise AssertionError("it took all of that")


# --- deflate


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def inflate(frame: Received) -> bytes:
    """Each message by itself: no context comes over from the one before."""
    return (
        zlib.decompressobj(wbits=-15).decompress(frame.payload + b"\0\0\xff\xff") if frame.deflated else frame.payload
    )


def test_who_offers_deflate_gets_what_is_large_deflated_and_what_is_small_as_it_is(
    server: Running, stream: str
) -> None:
    server.publish(stream, {"headline": "one", "body": "word " * 500})
    with connected(server, stream, DEFLATE) as raw, connected(server, stream) as plain:
        agreed = b"sec-websocket-extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        assert agreed in raw.head
        assert b"extensions" not in plain.head
        seen = {}
        for _ in ("hello", "snapshot"):
            ours, theirs = raw.until(TEXT), plain.until(TEXT)
            assert not theirs.deflated
            assert inflate(ours) == theirs.payload
            seen[ours.deflated] = len(theirs.payload) / len(ours.payload)
        assert seen[False] == 1
        assert seen[True] > 4


def test_a_deflated_text_is_a_text(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    deflate = zlib.compressobj(wbits=-15)
    said = (deflate.compress(b"hello") + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    with connected(server, stream, DEFLATE) as raw:
        raw.send(client(TEXT, said, rsv1=True))
        assert raw.closed_with() == Close.BAD_MESSAGE


def test_a_text_that_is_large_once_inflated_is_not_inflated(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    deflate = zlib.compressobj(wbits=-15)
    said = (deflate.compress(b"x" * 2_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    assert len(said) < 4_096
    with connected(server, stream, DEFLATE) as raw:
        raw.send(client(TEXT, said, rsv1=True))
        assert raw.closed_with() == Close.TOO_BIG


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits", True),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", True),
        ("permessage-deflate; server_max_window_bits=15", True),
        ("permessage-deflate; server_max_window_bits=10", False),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", True),
        ("permessage-deflate; nonsense", False),
        ("x-webkit-deflate-frame", False),
        ("", False),
        (";;=,", False),
    ],
)
def test_which_offers_are_agreed_to(offers: str, agreed: bool) -> None:
    assert accepts_deflate(offers) is agreed
