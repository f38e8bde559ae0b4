from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pushserver import model
from pushserver.content import changes, schema, validation
from pushserver.errors import GOT_LIMIT, Fault, Invalid
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


def test_an_address_that_no_stream_has_is_not_taken_for_a_mere_misspelling() -> None:
    with pytest.raises(Invalid, match="is not valid, or the stream has no such address"):
        model.check_stream("storm/entry")
    with pytest.raises(Invalid, match=r"is not valid\.$"):
        model.check_stream("Storm")


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
