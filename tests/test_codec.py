from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.codec import read_json
from pushserver.errors import GOT_LIMIT, Malformed

# --- JSON


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, "x", true, false, null]}', {"a": [1, 2.5, "x", True, False, None]}),
        (b" {} \n", {}),
        ('{"é": "日本"}'.encode(), {"é": "日本"}),
        (b'"\\u00e9\\ud83d\\ude00"', "é😀"),
        (b'{"a": 1, "A": 2}', {"a": 1, "A": 2}),
        (b'[{"a": 1}, {"a": 1}]', [{"a": 1}, {"a": 1}]),
    ],
)
def test_json_is_read(body: bytes, value: Any) -> None:
    assert read_json(body) == value


@pytest.mark.parametrize(
    ("body", "field", "got"),
    [
        (b"", "body", "the end"),
        (b" ", "body", "the end"),
        (b"{", "body", "the end"),
        (b'{"a": 1', "body", "the end"),
        (b'{"a": "x', "body", '"x'),
        (b"[1,", "body", "the end"),
        (b"[1,]", "body", "]"),
        (b"{'a': 1}", "body", "'a'"),
        (b'{"a": 1} x', "body", "x"),
        (b"{}{}", "body", "{}"),
        (b"nul", "body", "nul"),
        (b"01", "body", "1"),
        (b"/* */ {}", "body", "/* */ {}"),
        (b'"a\nb"', "body", "b"),
        (b"\x00", "body", "\x00"),
        (b"\xef\xbb\xbf{}", "body", "{}"),
        (b"\xff\xfe{\x00}\x00", "body", "0xff"),
        (b'{"a": "\xff"}', "body", "byte 0xff at offset 7"),
        (b'{"a": "\xc3"}', "body", "byte 0xc3 at offset 7"),
        (b'"\xed\xa0\x80"', "body", "byte 0xed at offset 1"),
        (b'"\xc0\x80"', "body", "byte 0xc0 at offset 1"),
        (b'{"a": NaN}', "body", "NaN"),
        (b"[Infinity]", "body", "Infinity"),
        (b"-Infinity", "body", "-Infinity"),
        (b"1e999", "body", "1e999"),
        (b"9" * 5_000, "body", "9"),
        (b'{"a": 1, "a": 1}', "a", "twice"),
        (b'{"a": 1, "b": 2, "\\u0061": 3}', "a", "twice"),
        (b'[{"x": {"headline": 1, "headline": 2}}]', "headline", "twice"),
        (b"[" * 33 + b"]" * 33, "body", "more"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "body", "more"),
        (b"[" * 100_000, "body", "more"),
        (b"[" * 30_000 + b"]" * 30_000, "body", "more"),
        (b'{"a":' * 12_000 + b"1" + b"}" * 12_000, "body", "more"),
    ],
    ids=range(34),
)
def test_json_that_is_broken_or_read_in_two_ways_is_refused(body: bytes, field: str, got: str) -> None:
    with pytest.raises(Malformed) as refused:
        read_json(body)
    (fault,) = refused.value.faults
    assert fault.field == field
    assert fault.expected
    assert got in fault.got
    assert len(fault.got) < GOT_LIMIT + 30


@pytest.mark.parametrize("body", [b"[" * 32 + b"]" * 32, b'{"a":' * 32 + b"1" + b"}" * 32], ids=["lists", "objects"])
def test_json_of_as_many_levels_as_are_allowed_is_read(body: bytes) -> None:
    assert read_json(body) == json.loads(body)


def test_lines_that_came_as_one_are_told_how_a_batch_is_sent() -> None:
    with pytest.raises(Malformed, match="one entry a line, and curl keeps the lines with --data-binary"):
        read_json(b'{"headline": "One"}{"headline": "Two"}')


def test_a_refusal_says_where_the_json_breaks() -> None:
    with pytest.raises(Malformed) as refused:
        read_json(b'{\n  "a": 1,\n  "b" 2\n}')
    assert "line 3 column 7" in refused.value.faults[0].expected


@given(st.binary(max_size=60))
def test_bytes_are_json_or_are_refused(body: bytes) -> None:
    try:
        value = read_json(body)
    except Malformed as refused:
        assert refused.faults
    else:
        assert json.loads(body) == value
