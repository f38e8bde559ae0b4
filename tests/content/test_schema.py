from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from pushserver.content import changes, schema, validation
from pushserver.errors import GOT_LIMIT, Fault, Invalid
from pushserver.model import StoredEntry

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
        ({"body": "[x]: https://a.example/"}, "body", "a headline, a body or blocks", "an empty entry"),
        ({"tags": ["x"], "bylines": [{"name": "A"}]}, "body", "a headline, a body or blocks", "an empty entry"),
        ([], "body", "a JSON object", "[] (list)"),
        ("x", "body", "a JSON object", "x"),
        (None, "body", "a JSON object", "null"),
        (1, "body", "a JSON object", "1 (int)"),
        ({"headline": "x", "titel": "y"}, "titel", "only known fields", "y"),
        ({"headline": "x", "id": "y"}, "id", "only known fields", "y"),
        ({"headline": "x", "rev": 1}, "rev", "only known fields", "1 (int)"),
        ({"headline": "x", "url": "https://a.example/"}, "url", "only known fields", "https://a.example/"),
        ({"headline": ""}, "headline", "", ""),
        ({"headline": " "}, "headline", "text", "only spaces"),
        ({"headline": "\u200b"}, "headline", "text that shows something", "U+200B"),
        ({"body": "\u200b"}, "body", "text that shows something", "u200b"),
        ({"headline": "x", "tags": ["\u3164"]}, "tags.0", "text that shows something", "U+3164"),
        ({"headline": "x", "bylines": [{"name": "\ufeff"}]}, "bylines.0.name", "text that shows", "U+FEFF"),
        ({"blocks": [{"type": "paragraph", "html": "<b>\u2800</b>"}]}, "blocks.0.html", "text that shows", "<b>"),
        ({"headline": "\u2068x"}, "headline", "the end of each bidi isolate", "U+2068"),
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
        ({"body": "- - y"}, "body", "text before the list", "list"),
        ({"body": "ok\n\n<script>alert(1)</script>"}, "body", "inline HTML", "<script>"),
        ({"body": "ok\n\n- [x](javascript:alert(1))"}, "body", "https", "javascript:alert(1)"),
        ({"body": "> [x](/y)"}, "body", "https", "/y"),
        ({"body": "ok\n\n# " + "x" * 301}, "body", "at most 300 characters", "(301 characters)"),
        ({"blocks": {}}, "blocks", "a list", "{} (dict)"),
        ({"blocks": None}, "blocks", "a list", "null"),
        ({"blocks": ["x"]}, "blocks.0", "", "x"),
        ({"blocks": [PARAGRAPH] * 201}, "blocks", "200", ""),
        ({"blocks": [PARAGRAPH, {"html": "x"}]}, "blocks.1", "type", ""),
        ({"blocks": [PARAGRAPH, {"type": "video"}]}, "blocks.1.type", "social_post", "video"),
        ({"blocks": [{"type": "paragraph"}]}, "blocks.0.html", "a value", "nothing"),
        ({"blocks": [{"type": "paragraph", "html": ""}]}, "blocks.0.html", "", ""),
        ({"blocks": [{"type": "paragraph", "html": "<p>x"}]}, "blocks.0.html", "inline HTML", "<p>"),
        ({"blocks": [{"type": "paragraph", "html": "<b></b>"}]}, "blocks.0.html", "text", "<b></b>"),
        ({"blocks": [{"type": "paragraph", "html": "x", "text": "y"}]}, "blocks.0.text", "only known fields", "y"),
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
        ({"headline": "x", "bylines": [{"name": "A", "mail": "a@b"}]}, "bylines.0.mail", "only known fields", "a@b"),
        ({"headline": "x", "bylines": [{"name": "A"}] * 21}, "bylines", "20", ""),
        ({"headline": "x", "tags": "x"}, "tags", "a list", "x"),
        ({"headline": "x", "tags": ["x", 1]}, "tags.1", "a string", "1 (int)"),
        ({"headline": "x", "tags": ["x"] * 51}, "tags", "50", ""),
        ({"headline": "x", "flags": None}, "flags", "a JSON object", "null"),
        ({"headline": "x", "flags": ["key"]}, "flags", "a JSON object", "['key'] (list)"),
        ({"headline": "x", "flags": {"key": "yes"}}, "flags.key", "true or false", "yes"),
        ({"headline": "x", "flags": {"urgent": True}}, "flags.urgent", "only known fields", "True (bool)"),
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


LONGER_COMPOSED = "\u0958"  # two characters in NFC
PARAGRAPH = {"type": "paragraph", "html": "x"}


@pytest.mark.parametrize(
    ("entry", "field", "expected"),
    [
        ({"headline": LONGER_COMPOSED * 151}, "headline", "at most 300 characters"),
        ({"blocks": [{**IMAGE, "alt": LONGER_COMPOSED * 1_001}]}, "blocks.0.alt", "at most 2000 characters"),
        ({"blocks": [{**IMAGE, "src": "/" + LONGER_COMPOSED * 1_000}]}, "blocks.0.src", "at most 2000 characters"),
        ({"blocks": [{**PARAGRAPH, "html": ">" * 5_001}]}, "blocks.0.html", "at most 20000 characters"),
        ({"body": "x" * 19_000 + "\\>" * 500}, "body", "at most 20000 characters"),
    ],
)
def test_a_limit_holds_for_what_is_stored(entry: dict[str, Any], field: str, expected: str) -> None:
    (fault,) = refusal(schema.EntryIn, entry)
    assert (fault.field, fault.expected) == (field, expected)


def test_a_headline_may_have_300_characters() -> None:
    assert an_entry(headline="x" * 300).headline == "x" * 300


# --- pages


@pytest.mark.parametrize(
    ("value", "field", "expected", "got"),
    [
        ({}, "headline", "a value", "nothing"),
        ([], "body", "a JSON object", "[] (list)"),
        ({"headline": None}, "headline", "a string", "null"),
        ({"headline": ""}, "headline", "", ""),
        ({"headline": "x" * 301}, "headline", "at most 300 characters", "(301 characters)"),
        ({"headline": "x", "titel": "y"}, "titel", "only known fields", "y"),
        ({"headline": "x", "body": "y"}, "body", "only known fields", "y"),
        ({"headline": "x", "rev": 1}, "rev", "only known fields", "1 (int)"),
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
        ({"headline": "x", "timezone": None}, "timezone", "a string", "null"),
        ({"headline": "x", "lang": "xx"}, "lang", "a language tag of Unicode CLDR", "xx"),
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
