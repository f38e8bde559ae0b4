"""A publisher's input and what is current, and the entry, page or event that they become."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver import model
from pushserver.content import changes, schema, validation
from pushserver.errors import Invalid
from pushserver.model import StoredEntry

FIRST, LAST = -2_208_988_800_000, 221_845_391_999_999  # milliseconds: the years 1900 to 8999, whole

LONGER_COMPOSED = "\u0958"  # two characters in NFC


def an_entry(**fields: Any) -> schema.EntryIn:
    return validation.read(schema.EntryIn, {"headline": "Headline", **fields})


def stored(entry_in: schema.EntryIn, *, at: int = 1_689_090_780_000, id: str = "id") -> StoredEntry:
    return changes.revise_entry(entry_in, stream="storm", id=id, at=at)


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


def test_text_of_windows_forms_and_translations_is_stored() -> None:
    text = "\u2068Ada\u2069 said:\r\n\r\nit holds\rstill"
    entry_in = an_entry(headline="one\r\ntwo", blocks=[{"type": "paragraph", "html": text}])
    body = stored(entry_in)
    assert body["headline"] == "one\ntwo"
    assert body["blocks"][0]["html"] == "\u2068Ada\u2069 said:\n\nit holds\nstill"
    page = validation.read(schema.PageIn, {"headline": "\u2067x\u2069", "dek": "one\r\ntwo"})
    assert (page.headline, page.dek) == ("\u2067x\u2069", "one\ntwo")


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
    entry_before = stored(validation.read(schema.EntryIn, entry))
    patched = stored(changes.patch_entry(entry_before, {"tags": ["a"]}))
    assert patched == {**entry_before, "tags": ["a"]}


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
    with pytest.raises(Invalid) as refused:
        an_entry(blocks=[{**IMAGE, "width": 1200.5}])
    (fault,) = refused.value.faults
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


@pytest.mark.parametrize(
    ("lang", "dir"), [("ar", "rtl"), ("he-IL", "rtl"), ("az-Arab", "rtl"), ("en", "ltr"), ("uk", "ltr")]
)
def test_a_page_reads_in_the_direction_of_its_language_unless_it_names_one(lang: str, dir: str) -> None:
    assert changes.revise_page(a_page_in(headline="x", lang=lang), at=0)["dir"] == dir
    assert changes.revise_page(a_page_in(headline="x", lang=lang, dir="ltr"), at=0)["dir"] == "ltr"


def test_a_page_that_changes_its_language_by_a_patch_changes_its_direction() -> None:
    english = changes.revise_page(a_page_in(headline="x"), at=0)
    arabic = changes.revise_page(changes.patch_page(english, {"lang": "ar"}), at=1, current=english)
    assert (arabic["lang"], arabic["dir"]) == ("ar", "rtl")
    fixed = changes.revise_page(a_page_in(headline="x", dir="rtl"), at=0)
    assert changes.revise_page(changes.patch_page(fixed, {"lang": "fr"}), at=1, current=fixed)["dir"] == "rtl"


def a_page_in(**fields: str) -> schema.PageIn:
    return validation.read(schema.PageIn, fields)
