"""Frames are encoded once per variant, and a batch is cut into pieces that end with a frame."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

import pytest

from pushserver.model import Cursor
from pushserver.wire import frames
from pushserver.wire.frames import (
    DEFLATED_FROM,
    PIECE,
    STEP,
    Batch,
    Coding,
    Format,
    Notice,
    SnapshotFrame,
    encode_text,
)
from pushserver.wire.websocket import DEFLATE_STEP

from ..support.frames import cursor, frame


def test_a_frame_is_encoded_once_per_variant() -> None:
    event = frame(1)
    for format in Format:
        assert event.text(format) is event.text(format)
        for coding in Coding:
            assert event.encoded(format, coding) is event.encoded(format, coding)


def test_a_frame_names_its_event_and_the_one_before_it() -> None:
    for format in Format:
        fields = json.loads(frame(2).text(format))
        assert (fields["type"], fields["n"]) == ("entry.put", 2)
        assert (fields["cursor"], fields["prev"]) == (str(cursor(2)), str(cursor(1)))


def test_a_replaced_event_is_encoded_again() -> None:
    event = frame(1)
    before = event.encoded(Format.JSON, Coding.MESSAGE)
    event.replace(event.event.withdrawn(b'{"id":"x"}'), dict)
    assert event.encoded(Format.JSON, Coding.MESSAGE) != before
    assert json.loads(event.text(Format.JSON))["type"] == "entry.withdraw"


def test_a_replaced_snapshot_is_encoded_again() -> None:
    snapshot = SnapshotFrame(cursor(1), lambda format: "before")
    assert snapshot.text(Format.JSON) == "before"
    snapshot.replace(lambda format: "after")
    assert (snapshot.text(Format.JSON), snapshot.cursor) == ("after", cursor(1))


@pytest.mark.parametrize("format", Format)
@pytest.mark.parametrize("coding", Coding)
def test_a_snapshot_that_is_made_in_steps_says_what_one_at_once_does(format: Format, coding: Coding) -> None:
    parts = [f"{number} \u2028 é" * 5_000 for number in range(100)]
    at_once, in_steps = (SnapshotFrame(cursor(1), lambda format: parts) for _ in range(2))
    steps = sum(1 for _ in in_steps.steps(format, coding))
    length = sum(map(len, parts))
    assert steps >= len(parts) + length // STEP + (length // DEFLATE_STEP if coding is Coding.DEFLATED else 0)
    assert in_steps.text(format) == at_once.text(format)
    assert unpacked(in_steps.encoded(format, coding), coding) == unpacked(at_once.encoded(format, coding), coding)
    assert list(in_steps.steps(format, coding)) == [], "it was made again"


def unpacked(data: bytes, coding: Coding) -> bytes:
    if coding is not Coding.DEFLATED:
        return data
    header = 2 if data[1] < 126 else 4 if data[1] == 126 else 10
    return zlib.decompressobj(wbits=-15).decompress(data[header:] + b"\x00\x00\xff\xff")


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_snapshot_that_is_replaced_between_two_steps_does_not_keep_what_was_made(after: int) -> None:
    snapshot = SnapshotFrame(cursor(1), lambda format: ["secret", "text"])
    steps = snapshot.steps(Format.HTML, Coding.DEFLATED)
    for _ in range(after):
        next(steps, None)
    snapshot.replace(lambda format: ["after"])
    list(steps)
    assert snapshot.text(Format.HTML) == "after"


@pytest.mark.parametrize(
    ("late", "counted"), [(-5, 0), (0, 0), (7, 7), (99, 99), (100, 100), (101, 110), (250, 250), (1_234, 1_300)]
)
def test_latencies_are_counted_in_milliseconds_and_two_digits(late: int, counted: int) -> None:
    event = frame(1)
    event.replace(event.event._replace(cursor=Cursor("e" * 16, "1000-0", "0" * 16)), dict)
    event.count_readers(3, 1_000 + late)
    assert dict(event.latencies) == {counted: 3}


# --- codings


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_the_length_of_a_message_takes_7_16_or_64_bits(size: int) -> None:
    data = encode_text("x" * size, Coding.MESSAGE, None)
    headers = {range(126): 2, range(126, 65_536): 4}
    assert len(data) == size + next((length for sizes, length in headers.items() if size in sizes), 10)
    assert data[0] == 0x81, "not a whole text message"
    assert not data[1] & 0x80, "a server masks nothing"


def test_a_short_text_is_not_deflated_and_a_long_one_is() -> None:
    short, long = "x" * (DEFLATED_FROM - 1), "x" * DEFLATED_FROM
    assert encode_text(short, Coding.DEFLATED, None) == encode_text(short, Coding.MESSAGE, None)
    data = encode_text(long, Coding.DEFLATED, None)
    assert data[0] == 0xC1, "RSV1 says that a message is compressed (RFC 7692, 6)"
    assert zlib.decompressobj(wbits=-15).decompress(data[2:] + b"\0\0\xff\xff") == long.encode()


def test_a_server_sent_event_is_one_line_of_data_and_has_the_cursor_for_its_id() -> None:
    data = encode_text('{"a":"b\u2028c\u2029d"}', Coding.EVENT, cursor(1)).decode()
    assert data == f'id: {cursor(1)}\ndata: {{"a":"b\\u2028c\\u2029d"}}\n\n'
    assert encode_text("{}", Coding.EVENT, None) == b"data: {}\n\n"


# --- batches


def test_a_batch_is_cut_after_the_frame_that_fills_a_piece() -> None:
    whole = [Notice("x" * (PIECE // 2)) for _ in range(5)]
    batch = Batch(whole, Format.JSON)
    encoded = [each.encoded(Format.JSON, Coding.MESSAGE) for each in whole]
    assert batch.first() == (b"".join(encoded[:2]), False)
    assert list(batch.rest()) == [b"".join(encoded[2:4]), encoded[4]]


def test_a_small_batch_is_one_piece_that_is_joined_once() -> None:
    batch = Batch([Notice("a"), Notice("b")], Format.JSON)
    assert batch.first()[1] is True
    assert batch.first() is batch.first()
    assert list(batch.rest()) == []


def test_a_piece_is_made_when_it_is_sent() -> None:
    """A text that was withdrawn after the first piece went out must not be in a later one."""
    event = frame(1)
    batch = Batch([Notice("x" * PIECE), event], Format.JSON)
    batch.first()
    rest: Iterator[bytes] = batch.rest()
    event.replace(event.event.withdrawn(b'{"id":"x"}'), dict)
    assert b"entry.withdraw" in next(rest)


# --- the frames that are about no event


def test_the_frames_about_no_event_have_the_fields_of_the_protocol() -> None:
    head = {"n": 3, "cursor": str(cursor(3))}
    hello = frames.hello("storm", cursor(3), 3, start=2, reason=None, heartbeat=15.0)
    assert json.loads(hello.body) == {
        "type": "hello",
        "protocol": 1,
        "stream": "storm",
        "epoch": cursor(3).epoch,
        "head": head,
        "from": 2,
        "complete": True,
        "heartbeat": 15.0,
    }
    snapshot = json.loads(frames.hello("storm", cursor(3), 3, start=3, reason="no_cursor", heartbeat=15.0).body)
    assert (snapshot["complete"], snapshot["reason"]) == (False, "no_cursor")
    heartbeat = json.loads(frames.heartbeat(cursor(3), 3, readers=2, at="now", stale=None).body)
    assert heartbeat == {"type": "head", "head": head, "readers": 2, "at": "now"}
    assert json.loads(frames.heartbeat(cursor(3), 3, readers=2, at="now", stale="then").body)["stale"] == "then"
    assert json.loads(frames.bye("drain", 500).body) == {"type": "bye", "reason": "drain", "retry_ms": 500}
    assert json.loads(frames.bye("build", 500, reload_ms=7).body)["reload_ms"] == 7
    assert json.loads(frames.reset("epoch", ["x"]).body) == {"type": "reset", "reason": "epoch", "withdrawn": ["x"]}
