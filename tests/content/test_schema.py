from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pushserver import model
from pushserver.codec import read_json
from pushserver.content import changes, schema, validation
from pushserver.errors import GOT_LIMIT, Fault, Invalid, Malformed
from pushserver.model import Cursor, StoredEntry

FIRST, LAST = -2_208_988_800_000, 221_845_391_999_999  # milliseconds: the years 1900 to 8999, whole


def refusal(kind: type[BaseModel], value: Any) -> list[Fault]:
    """The faults that a value is refused for, in the order they are told."""
    with pytest.raises(Invalid) as refused:
        validation.read(kind, value)
    faults = list(refused.value.faults)
    assert faults
    assert all(fault.field and fault.expected and fault.got for fault in faults)
    assert faults[0].field in refused.value.detail
    json.dumps(refused.value.problem(), ensure_ascii=False).encode()
    return faults


def an_entry(**fields: Any) -> schema.EntryIn:
    return validation.read(schema.EntryIn, {"headline": "Headline", **fields})


def stored(entry_in: schema.EntryIn, *, at: int = 1_689_090_780_000, id: str = "id") -> StoredEntry:
    return changes.revise_entry(entry_in, stream="storm", id=id, at=at)


# --- instants and names


@pytest.mark.parametrize(
    ("ms", "at"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_689_090_780_000, "2023-07-11T15:53:00.000Z"),
        (1_689_090_780_999, "2023-07-11T15:53:00.999Z"),
        (FIRST, "1900-01-01T00:00:00.000Z"),
        (LAST, "8999-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_a_utc_string_of_milliseconds(ms: int, at: str) -> None:
    assert model.instant(ms) == at
    assert model.milliseconds(at) == ms


@given(st.integers(FIRST, LAST), st.integers(FIRST, LAST))
def test_instants_compare_as_their_milliseconds_do(one: int, other: int) -> None:
    assert model.milliseconds(model.instant(one)) == one
    assert len(model.instant(one)) == 24
    assert (model.instant(one) < model.instant(other)) == (one < other)


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ("2023-07-11T15:53:00Z", "2023-07-11T15:53:00.000Z"),
        ("2023-07-11T15:53Z", "2023-07-11T15:53:00.000Z"),
        ("2023-07-11T11:53:00-04:00", "2023-07-11T15:53:00.000Z"),
        ("2023-07-11T21:38:00+05:45", "2023-07-11T15:53:00.000Z"),
        ("2023-12-31T23:30:00-01:00", "2024-01-01T00:30:00.000Z"),
        ("2023-07-11T15:53:00.7Z", "2023-07-11T15:53:00.700Z"),
        ("2023-07-11T15:53:00.123456Z", "2023-07-11T15:53:00.123Z"),
        ("1900-01-02T00:00:00Z", "1900-01-02T00:00:00.000Z"),
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000Z"),
    ],
)
@pytest.mark.parametrize("field", ["published_at", "sort_at"])
def test_an_instant_with_any_offset_is_stored_as_utc(field: str, given: str, at: str) -> None:
    assert getattr(an_entry(**{field: given}), field) == at


@pytest.mark.parametrize(
    "given",
    [
        "2023-07-11T15:53:00",
        "2023-07-11",
        "2023-07-11T15:53:00 EDT",
        "2023-02-29T12:00:00Z",
        "2023-13-01T12:00:00Z",
        "2023-07-11T25:00:00Z",
        "0001-01-01T00:00:00Z",
        "1899-12-31T00:00:00Z",
        "1900-01-01T00:00:00+05:00",
        "9000-12-31T23:59:59-12:00",
        "9000-12-31T23:59:59.9999Z",
        "9999-12-31T23:59:59-12:00",
        "yesterday",
        "1689090780",
        "",
    ],
)
def test_an_instant_that_is_not_one_or_has_no_offset_is_refused(given: str) -> None:
    (fault,) = refusal(schema.EntryIn, {"headline": "x", "published_at": given})
    assert fault.field == "published_at"
    assert "offset" in fault.expected


def test_ids_sort_by_the_time_they_were_made_in_and_are_unique() -> None:
    ids = []
    for _ in range(1_000):
        ids.append(model.new_id())
        made_in = time.time_ns() // 1_000
        while time.time_ns() // 1_000 == made_in:
            pass  # ids of one microsecond have no order
    assert ids == sorted(ids)
    many = [model.new_id() for _ in range(20_000)]
    assert len({*ids, *many}) == 21_000
    assert {len(id) for id in many} == {15}
    assert set("".join(many)) <= set("0123456789abcdefghjkmnpqrstvwxyz")


@pytest.mark.parametrize("name", ["a", "0", "storm", "nato-summit-2023", "a-", "a--b", "0-0", "a" * 64])
def test_good_names_of_streams_are_taken(name: str) -> None:
    assert model.check_stream(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 65,
        "a" * 300,
        "-a",
        "A",
        "Storm",
        "a_b",
        "a b",
        " a",
        "a\n",
        "a.b",
        "..",
        "a/b",
        "/",
        "a%2fb",
        "{a}",
        "a}b",
        "{p07}:a",
        "a:log",
        "a*",
        "é",
        "ａ",
        "a\u0661",
        "\u00b2",
        "a\x00",
        "a\ud800",
    ],
    ids=ascii,
)
def test_bad_names_of_streams_are_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        model.check_stream(name)
    (fault,) = refused.value.faults
    assert fault.field == "stream"
    assert fault.expected
    assert fault.got
    assert len(fault.got) < GOT_LIMIT + 30
    json.dumps(refused.value.problem(), ensure_ascii=False).encode()


@pytest.mark.parametrize(("stream", "partition"), [("storm", 5), ("nato-summit", 8), ("a", 3)])
def test_the_partition_of_a_stream_never_changes(stream: str, partition: int) -> None:
    assert model.partition_of(stream, 16) == partition


@given(st.from_regex(model.STREAM, fullmatch=True), st.integers(1, 64))
def test_the_partition_of_a_stream_is_one_of_those_there_are(stream: str, partitions: int) -> None:
    assert 0 <= model.partition_of(stream, partitions) < partitions


def test_streams_are_spread_over_all_partitions() -> None:
    counts = [0] * 16
    for number in range(1_600):
        counts[model.partition_of(f"stream-{number}", 16)] += 1
    assert min(counts) > 50


# --- cursors

HEX16 = st.text("0123456789abcdef", min_size=16, max_size=16)
GOOD_CURSOR = "v1.0123456789abcdef.1689090780000-0.fedcba9876543210"


@given(HEX16, st.integers(0, 2**63), st.integers(0, 2**63), HEX16)
def test_a_cursor_is_read_back_as_it_was_written(epoch: str, ms: int, sequence: int, nonce: str) -> None:
    cursor = Cursor(epoch, f"{ms}-{sequence}", nonce)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text(max_size=80))
def test_rubbish_is_no_cursor_and_no_error(text: str) -> None:
    assert Cursor.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "1689090780000-0",
        GOOD_CURSOR + "0",
        GOOD_CURSOR + "\n",
        " " + GOOD_CURSOR,
        GOOD_CURSOR[:-1],
        GOOD_CURSOR.upper(),
        GOOD_CURSOR.replace("v1", "v2"),
        GOOD_CURSOR.replace("v1.", ""),
        GOOD_CURSOR.replace("-0", ""),
        GOOD_CURSOR.replace("-0", "-*"),
        GOOD_CURSOR.replace("1689090780000-0", "$"),
        GOOD_CURSOR.replace("1689090780000", "\u0661"),
        GOOD_CURSOR.replace("1689090780000", "9" * 20),
        GOOD_CURSOR.replace("1689090780000", "9" * 100_000),
        GOOD_CURSOR.replace("0123456789abcdef", "0123456789abcdeg"),
        GOOD_CURSOR * 1_000,
        "\x00",
        "\ud800",
    ],
    ids=range(20),
)
def test_what_only_resembles_a_cursor_is_none(text: str) -> None:
    assert Cursor.parse(GOOD_CURSOR) is not None
    assert Cursor.parse(text) is None


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


# --- entries

PARAGRAPH = {"type": "paragraph", "html": "x"}
IMAGE = {
    "type": "image",
    "src": "/harbour.jpg",
    "width": 1200,
    "height": 800,
    "alt": "Boats",
    "caption": "Boats in the harbour",
    "credit": "Ada Pell/Wire",
}


def without(block: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != name}


@pytest.mark.parametrize(
    ("value", "field", "expected", "got"),
    [
        ({}, "body", "a headline, a body or blocks", "an empty entry"),
        ({"headline": None, "blocks": []}, "body", "a headline, a body or blocks", "an empty entry"),
        ({"body": ""}, "body", "a headline, a body or blocks", "an empty entry"),
        ({"body": " \n "}, "body", "a headline, a body or blocks", "an empty entry"),
        ({"body": "---"}, "body", "a headline, a body or blocks", "an empty entry"),
        ({"tags": ["x"], "bylines": [{"name": "A"}]}, "body", "a headline, a body or blocks", "an empty entry"),
        ([], "body", "a JSON object", "[] (list)"),
        ("x", "body", "a JSON object", "x"),
        (None, "body", "a JSON object", "None"),
        (1, "body", "a JSON object", "1 (int)"),
        ({"headline": "x", "titel": "y"}, "titel", "no such field", "y"),
        ({"headline": "x", "id": "y"}, "id", "no such field", "y"),
        ({"headline": "x", "rev": 1}, "rev", "no such field", "1 (int)"),
        ({"headline": "x", "url": "https://a.example/"}, "url", "no such field", "https://a.example/"),
        ({"headline": ""}, "headline", "", ""),
        ({"headline": " "}, "headline", "text", "only spaces"),
        ({"headline": 1}, "headline", "a string", "1 (int)"),
        ({"headline": ["x"]}, "headline", "a string", "['x'] (list)"),
        ({"headline": "x" * 301}, "headline", "at most 300 characters", "(301 characters)"),
        ({"headline": "a\x00b"}, "headline", "without control", "U+0000"),
        ({"headline": "a\u202eb"}, "headline", "bidi", "U+202E"),
        ({"headline": "a\ud800b"}, "headline", "", "\\ud800"),
        ({"body": 1}, "body", "a string", "1 (int)"),
        ({"body": "x", "blocks": [PARAGRAPH]}, "body", "either body or blocks", "both"),
        ({"body": "x" * 20_001}, "body", "at most 20000 characters", "(20001 characters)"),
        ({"body": "\n\n".join(["x" * 17_000] * 3)}, "body", "at most 50000 characters", "(51004 characters)"),
        ({"body": "\n\n".join("x" * 201)}, "body", "200", ""),
        ({"body": "a\u202eb"}, "body", "bidi", "U+202E"),
        ({"body": "a\ud800b"}, "body", "", "U+D800"),
        ({"body": "![x](/x.jpg)"}, "body", "image blocks", "image"),
        ({"body": "- x\n  - y"}, "body", "flat lists", "list"),
        ({"body": "ok\n\n<script>alert(1)</script>"}, "body", "inline HTML", "<script>"),
        ({"body": "ok\n\n- [x](javascript:alert(1))"}, "body", "https", "javascript:alert(1)"),
        ({"body": "> [x](/y)"}, "body", "https", "/y"),
        ({"body": "ok\n\n# " + "x" * 301}, "body", "at most 300 characters", "(301 characters)"),
        ({"blocks": {}}, "blocks", "a list", "{} (dict)"),
        ({"blocks": None}, "blocks", "a list", "None"),
        ({"blocks": ["x"]}, "blocks.0", "", "x"),
        ({"blocks": [PARAGRAPH] * 201}, "blocks", "200", ""),
        ({"blocks": [PARAGRAPH, {"html": "x"}]}, "blocks.1", "type", ""),
        ({"blocks": [PARAGRAPH, {"type": "video"}]}, "blocks.1.type", "social_post", "video"),
        ({"blocks": [{"type": "paragraph"}]}, "blocks.0.html", "a value", "nothing"),
        ({"blocks": [{"type": "paragraph", "html": ""}]}, "blocks.0.html", "", ""),
        ({"blocks": [{"type": "paragraph", "html": "<p>x</p>"}]}, "blocks.0.html", "inline HTML", "<p>"),
        ({"blocks": [{"type": "paragraph", "html": "<b></b>"}]}, "blocks.0.html", "text", "<b></b>"),
        ({"blocks": [{"type": "paragraph", "html": "x", "text": "y"}]}, "blocks.0.text", "no such field", "y"),
        ({"blocks": [{"type": "heading", "text": "x" * 301}]}, "blocks.0.text", "at most 300", "(301 characters)"),
        ({"blocks": [{"type": "list", "items": []}]}, "blocks.0.items", "1", "[] (list)"),
        ({"blocks": [{"type": "list", "items": ["x", "<p>"]}]}, "blocks.0.items.1", "inline HTML", "<p>"),
        ({"blocks": [{"type": "list", "items": ["x"], "ordered": 1}]}, "blocks.0.ordered", "true or false", "1 (int)"),
        ({"blocks": [{"type": "quote", "html": "x", "cite": ""}]}, "blocks.0.cite", "", ""),
        ({"blocks": [{**IMAGE, "src": "javascript:alert(1)"}]}, "blocks.0.src", "https", "javascript:alert(1)"),
        ({"blocks": [{**IMAGE, "src": "https://[::1"}]}, "blocks.0.src", "URL", "https://[::1"),
        ({"blocks": [{**IMAGE, "width": "1200"}]}, "blocks.0.width", "a whole number", "1200"),
        ({"blocks": [{**IMAGE, "width": 1200.5}]}, "blocks.0.width", "a whole number", "1200.5"),
        ({"blocks": [{**IMAGE, "width": True}]}, "blocks.0.width", "a whole number", "True"),
        ({"blocks": [{**IMAGE, "height": 0}]}, "blocks.0.height", "1", "0 (int)"),
        ({"blocks": [{**IMAGE, "height": 20_001}]}, "blocks.0.height", "20000", "20001 (int)"),
        ({"blocks": [{"type": "embed", "url": "/x", "title": "y"}]}, "blocks.0.url", "absolute", "/x"),
        ({"headline": "x", "bylines": ["Ada"]}, "bylines.0", "a JSON object", "Ada"),
        ({"headline": "x", "bylines": [{"org": "Wire"}]}, "bylines.0.name", "a value", "nothing"),
        ({"headline": "x", "bylines": [{"name": "A", "mail": "a@b"}]}, "bylines.0.mail", "no such field", "a@b"),
        ({"headline": "x", "bylines": [{"name": "A"}] * 21}, "bylines", "20", ""),
        ({"headline": "x", "tags": "x"}, "tags", "a list", "x"),
        ({"headline": "x", "tags": ["x", 1]}, "tags.1", "a string", "1 (int)"),
        ({"headline": "x", "tags": ["x"] * 51}, "tags", "50", ""),
        ({"headline": "x", "flags": None}, "flags", "a JSON object", "None"),
        ({"headline": "x", "flags": ["key"]}, "flags", "a JSON object", "['key'] (list)"),
        ({"headline": "x", "flags": {"key": "yes"}}, "flags.key", "true or false", "yes"),
        ({"headline": "x", "flags": {"urgent": True}}, "flags.urgent", "no such field", "True (bool)"),
        ({"headline": "x", "published_at": 1689090780}, "published_at", "a string", "1689090780 (int)"),
        ({"headline": "x", "sort_at": "2023-07-11T15:53:00"}, "sort_at", "offset", "2023-07-11T15:53:00"),
    ],
)
def test_an_entry_that_is_not_valid_is_refused_by_field(value: Any, field: str, expected: str, got: str) -> None:
    (fault,) = refusal(schema.EntryIn, value)
    assert fault.field == field
    assert expected in fault.expected
    assert got in fault.got
    assert len(fault.got) < GOT_LIMIT + 30


@pytest.mark.parametrize("name", ["src", "width", "height", "alt", "caption", "credit"])
def test_a_picture_without_one_of_its_fields_is_refused(name: str) -> None:
    (fault,) = refusal(schema.EntryIn, {"blocks": [PARAGRAPH, without(IMAGE, name)]})
    assert fault == Fault(f"blocks.1.{name}", "a value", "nothing")


def test_every_field_that_is_wrong_is_named_at_once() -> None:
    value = {"headline": 1, "tags": [2], "blocks": [{"type": "image", "src": "/x"}], "titel": "x"}
    fields = {fault.field for fault in refusal(schema.EntryIn, value)}
    missing = {f"blocks.0.{name}" for name in ("width", "height", "alt", "caption", "credit")}
    assert fields == {"headline", "tags.0", "titel", *missing}


def test_however_much_is_wrong_the_answer_is_short() -> None:
    faults = refusal(schema.EntryIn, {"headline": "x", "tags": list(range(50))})
    assert len(faults) == 20
    faults = refusal(schema.EntryIn, {"headline": "x", "y" * 60_000: 1})
    assert len(faults[0].field) < GOT_LIMIT + 30


@pytest.mark.parametrize("body", [None, 1])
def test_blocks_that_the_publisher_sent_are_reported_as_blocks(body: object) -> None:
    faults = refusal(schema.EntryIn, {"body": body, "blocks": [{"type": "heading", "text": 1}]})
    assert "blocks.0.text" in [fault.field for fault in faults]


@pytest.mark.parametrize(
    "value",
    [
        {"headline": "x", "\ud800": 1},
        {"headline": "x", "titel": "\ud800"},
        {"headline": "x", "tags": ["\ud800"]},
        {"headline": "x", "flags": {"\ud800": True}},
        {"headline": "x", "bylines": [{"name": "x", "\ud800": "y"}]},
        {"headline": "x", "published_at": "\ud800"},
        {"blocks": [{"type": "\ud800"}]},
        {"blocks": [{**IMAGE, "src": "/\ud800"}]},
    ],
    ids=range(8),
)
def test_half_of_a_surrogate_pair_is_refused_wherever_it_is(value: dict[str, Any]) -> None:
    assert refusal(schema.EntryIn, value)


def test_text_is_stored_composed_and_trimmed() -> None:
    entry_in = an_entry(
        headline=" Cafe\u0301 ",
        blocks=[{**IMAGE, "caption": "Zu\u0308rich"}, {"type": "paragraph", "html": "e\u0301"}],
        tags=["A\u030angstro\u0308m"],
        bylines=[{"name": "Zoe\u0308"}],
    )
    body = stored(entry_in)
    assert body["headline"] == "Café"
    assert body["blocks"][0]["caption"] == "Zürich"
    assert body["blocks"][1]["html"] == "é"
    assert body["tags"] == ["Ångström"]
    assert body["bylines"] == [{"name": "Zoë"}]


LONGER_COMPOSED = "\u0958"  # two characters in NFC
PARAGRAPH = {"type": "paragraph", "html": "x"}


@pytest.mark.parametrize(
    ("entry", "field", "expected"),
    [
        ({"headline": LONGER_COMPOSED * 151}, "headline", "at most 300 characters"),
        ({"blocks": [{**IMAGE, "alt": LONGER_COMPOSED * 1_001}]}, "blocks.0.alt", "at most 2000 characters"),
        ({"blocks": [{**IMAGE, "src": "/" + LONGER_COMPOSED * 1_000}]}, "blocks.0.src", "at most 2000 characters"),
        ({"blocks": [{**PARAGRAPH, "html": ">" * 5_001}]}, "blocks.0.html", "at most 20000 characters"),
        ({"body": "\\>" * 5_001}, "body", "at most 20000 characters"),
    ],
)
def test_a_limit_holds_for_what_is_stored(entry: dict[str, Any], field: str, expected: str) -> None:
    (fault,) = refusal(schema.EntryIn, entry)
    assert (fault.field, fault.expected) == (field, expected)


@pytest.mark.parametrize(
    "entry",
    [
        {"headline": LONGER_COMPOSED * 150},
        {"blocks": [{**PARAGRAPH, "html": "<a href='https://a.example'>b</a>" * 600}]},
        {"body": "[b](https://a.example) " * 580},
        {"blocks": [{**PARAGRAPH, "html": ">" * 5_000}]},
        {"headline": "x", "published_at": "1900-01-01T00:00:00Z", "sort_at": "9000-12-31T23:59:59.999Z"},
    ],
    ids=range(5),
)
def test_whatever_is_stored_can_be_patched(entry: dict[str, Any]) -> None:
    held = stored(validation.read(schema.EntryIn, entry))
    patched = stored(changes.patch_entry(held, {"tags": ["a"]}))
    assert patched == {**held, "tags": ["a"]}


def test_a_headline_may_have_300_characters() -> None:
    assert an_entry(headline="x" * 300).headline == "x" * 300


def test_a_body_becomes_blocks() -> None:
    body = stored(validation.read(schema.EntryIn, {"body": "Cafe\u0301 *opens*\n\n- one\n- two"}))
    assert "body" not in body
    assert "headline" not in body
    assert body["blocks"] == [
        {"type": "paragraph", "html": "Café <em>opens</em>"},
        {"type": "list", "ordered": False, "items": ["one", "two"]},
    ]


def test_blocks_are_stored_as_they_came_without_what_was_not_said() -> None:
    blocks: list[dict[str, Any]] = [
        PARAGRAPH,
        {"type": "heading", "text": "Smith & Sons <b>"},
        {"type": "list", "ordered": True, "items": ["x"]},
        {"type": "quote", "html": "x", "cite": "Ada"},
        {"type": "quote", "html": "x"},
        IMAGE,
        {"type": "social_post", "platform": "Wire", "author_name": "Ada", "text": "x"},
        {
            "type": "social_post",
            "platform": "Wire",
            "author_name": "Ada",
            "handle": "@ada",
            "text": "x",
            "url": "https://a.example/",
            "posted_at": "2023-07-11T15:53:00.000Z",
        },
        {"type": "embed", "url": "https://a.example/", "title": "x"},
    ]
    assert stored(validation.read(schema.EntryIn, {"blocks": blocks}))["blocks"] == blocks


def test_a_whole_number_may_be_written_with_a_fraction_of_zero() -> None:
    body = stored(an_entry(blocks=[{**IMAGE, "width": 1200.0}]))
    assert repr(body["blocks"][0]["width"]) == "1200"
    (fault,) = refusal(schema.EntryIn, {"blocks": [{**IMAGE, "width": 1200.5}]})
    assert (fault.field, fault.expected) == ("blocks.0.width", "a whole number")


def test_an_entry_has_its_defaults() -> None:
    entry = changes.revise_entry(an_entry(), stream="storm", id="abc", at=1_689_090_780_123)
    assert entry == {
        "id": "abc",
        "rev": 1,
        "headline": "Headline",
        "blocks": [],
        "bylines": [],
        "tags": [],
        "flags": {},
        "published_at": "2023-07-11T15:53:00.123Z",
        "sort_at": "2023-07-11T15:53:00.123Z",
        "url": "/streams/storm/entries/abc",
    }


def test_an_entry_is_sorted_by_when_it_was_published_unless_it_says_otherwise() -> None:
    body = stored(an_entry(published_at="2023-07-11T11:53:00-04:00"))
    assert (body["published_at"], body["sort_at"]) == ("2023-07-11T15:53:00.000Z", "2023-07-11T15:53:00.000Z")
    body = stored(an_entry(published_at="2023-07-11T15:53:00Z", sort_at="2023-07-12T00:00:00Z"))
    assert (body["published_at"], body["sort_at"]) == ("2023-07-11T15:53:00.000Z", "2023-07-12T00:00:00.000Z")
    body = stored(an_entry(sort_at="2023-07-12T00:00:00Z"), at=0)
    assert (body["published_at"], body["sort_at"]) == ("1970-01-01T00:00:00.000Z", "2023-07-12T00:00:00.000Z")


def test_only_flags_that_are_set_are_stored() -> None:
    assert stored(an_entry(flags={"key": True, "pinned": False, "breaking": True}))["flags"] == {
        "key": True,
        "breaking": True,
    }


def test_pinned_entries_stand_above_all_others() -> None:
    newest = stored(an_entry(sort_at="9000-06-01T00:00:00Z"))
    oldest_pinned = stored(an_entry(sort_at="1900-06-01T00:00:00Z", flags={"pinned": True}))
    newer_pinned = stored(an_entry(sort_at="1900-06-01T00:00:00.001Z", flags={"pinned": True}))
    orders = [model.order_of(entry) for entry in (newest, oldest_pinned, newer_pinned)]
    assert orders == sorted(set(orders))
    assert all(float(order) == order and float(order + 1) != float(order) for order in orders)


@given(st.integers(FIRST, LAST), st.integers(FIRST, LAST))
def test_entries_are_in_the_order_of_their_instants(one: int, other: int) -> None:
    orders = [model.order_of(stored(an_entry(sort_at=model.instant(ms)))) for ms in (one, other)]
    assert orders == [one, other]


# --- pages


@pytest.mark.parametrize(
    ("value", "field", "expected", "got"),
    [
        ({}, "headline", "a value", "nothing"),
        ([], "body", "a JSON object", "[] (list)"),
        ({"headline": None}, "headline", "a string", "None"),
        ({"headline": ""}, "headline", "", ""),
        ({"headline": "x" * 301}, "headline", "at most 300 characters", "(301 characters)"),
        ({"headline": "x", "titel": "y"}, "titel", "no such field", "y"),
        ({"headline": "x", "body": "y"}, "body", "no such field", "y"),
        ({"headline": "x", "rev": 1}, "rev", "no such field", "1 (int)"),
        ({"headline": "x", "dek": "x" * 10_001}, "dek", "at most 10000 characters", "(10001 characters)"),
        ({"headline": "x", "dek": "a\u202eb"}, "dek", "bidi", "U+202E"),
        ({"headline": "x", "timezone": "Mars/Olympus"}, "timezone", "IANA time zone", "Mars/Olympus"),
        ({"headline": "x", "timezone": "EDT"}, "timezone", "IANA time zone", "EDT"),
        ({"headline": "x", "timezone": "america/new_york"}, "timezone", "IANA time zone", "america/new_york"),
        ({"headline": "x", "timezone": "America"}, "timezone", "IANA time zone", "America"),
        ({"headline": "x", "timezone": "../../etc/passwd"}, "timezone", "IANA time zone", "../../etc/passwd"),
        ({"headline": "x", "timezone": "/etc/localtime"}, "timezone", "IANA time zone", "/etc/localtime"),
        ({"headline": "x", "timezone": "localtime"}, "timezone", "IANA time zone", "localtime"),
        ({"headline": "x", "timezone": "posixrules"}, "timezone", "IANA time zone", "posixrules"),
        ({"headline": "x", "timezone": "right/America/New_York"}, "timezone", "IANA time zone", "right/"),
        ({"headline": "x", "timezone": "A\x00"}, "timezone", "IANA time zone", "A\x00"),
        ({"headline": "x", "timezone": "\ud800"}, "timezone", "", "\\ud800"),
        ({"headline": "x", "timezone": "x" * 5_000}, "timezone", "", "(5000 characters)"),
        ({"headline": "x", "timezone": ""}, "timezone", "IANA time zone", ""),
        ({"headline": "x", "timezone": None}, "timezone", "a string", "None"),
        ({"headline": "x", "lang": "xx"}, "lang", "a language tag", "xx"),
        ({"headline": "x", "lang": "e"}, "lang", "a language tag", "e"),
        ({"headline": "x", "lang": "C"}, "lang", "a language tag", "C"),
        ({"headline": "x", "lang": "en_US"}, "lang", "a language tag", "en_US"),
        ({"headline": "x", "lang": "en.UTF-8"}, "lang", "a language tag", "en.UTF-8"),
        ({"headline": "x", "lang": 'en@"><script>'}, "lang", "a language tag", 'en@"><script>'),
        ({"headline": "x", "lang": "English, please"}, "lang", "a language tag", "English, please"),
        ({"headline": "x", "lang": ""}, "lang", "a language tag", ""),
        ({"headline": "x", "lang": "en-" * 20}, "lang", "at most 35 characters", "en-en"),
        ({"headline": "x", "lang": 1}, "lang", "a string", "1 (int)"),
        ({"headline": "x", "dir": "up"}, "dir", "rtl", "up"),
        ({"headline": "x", "state": "ended"}, "state", "paused", "ended"),
        ({"headline": "x", "updated_at": "2023-07-11"}, "updated_at", "offset", "2023-07-11"),
        ({"headline": "x", "coverage_start": "now"}, "coverage_start", "offset", "now"),
        ({"headline": "x", "background": [{"type": "video"}]}, "background.0.type", "social_post", "video"),
        ({"headline": "x", "background": [{"type": "paragraph"}]}, "background.0.html", "a value", "nothing"),
        ({"headline": "x", "previous": [{"label": "y"}]}, "previous.0.url", "a value", "nothing"),
        ({"headline": "x", "previous": [{"label": "y", "url": "/y"}]}, "previous.0.url", "absolute", "/y"),
        ({"headline": "x", "next": {"url": "https://a.example/"}}, "next.label", "a value", "nothing"),
        ({"headline": "x", "topics": ["y"]}, "topics.0", "a JSON object", "y"),
        (
            {"headline": "x", "topics": [{"label": "y", "url": "javascript:alert(1)"}]},
            "topics.0.url",
            "https",
            "javascript:alert(1)",
        ),
    ],
)
def test_a_page_that_is_not_valid_is_refused_by_field(value: Any, field: str, expected: str, got: str) -> None:
    (fault,) = refusal(schema.PageIn, value)
    assert fault.field == field
    assert expected in fault.expected
    assert got in fault.got


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu", "America/Argentina/Buenos_Aires"])
def test_a_page_takes_an_iana_time_zone(zone: str) -> None:
    assert validation.read(schema.PageIn, {"headline": "x", "timezone": zone}).timezone == zone


@pytest.mark.parametrize("lang", ["en", "en-US", "de-CH", "zh-Hant-TW", "sr-Latn", "ar", "es-419"])
def test_a_page_takes_a_language_tag(lang: str) -> None:
    assert validation.read(schema.PageIn, {"headline": "x", "lang": lang}).lang == lang


def test_a_page_has_its_defaults() -> None:
    page = changes.revise_page(
        validation.read(schema.PageIn, {"headline": " Storm "}),
        at=1_689_090_780_123,
        current={**model.unwritten_page("storm"), "rev": 1},
    )
    assert page == {
        "rev": 2,
        "headline": "Storm",
        "background": [],
        "timezone": "UTC",
        "lang": "en",
        "dir": "ltr",
        "state": "live",
        "previous": [],
        "topics": [],
        "updated_at": "2023-07-11T15:53:00.123Z",
    }


def test_a_page_keeps_when_it_says_it_was_updated() -> None:
    page_in = validation.read(schema.PageIn, {"headline": "x", "updated_at": "2023-09-06T11:47:00-04:00"})
    assert changes.revise_page(page_in, at=0)["updated_at"] == "2023-09-06T15:47:00.000Z"


def test_a_stream_without_a_page_gets_one_from_its_name() -> None:
    page = model.unwritten_page("nato-summit-2023")
    assert (page["headline"], page["rev"]) == ("Nato summit 2023", 0)
    assert set(page) == set(changes.revise_page(validation.read(schema.PageIn, {"headline": "x"}), at=0))
