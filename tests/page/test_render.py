from __future__ import annotations

import json
import re
import zoneinfo
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import jinja2
import pytest
from babel import localedata
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from pushserver import model
from pushserver.codec import dumps
from pushserver.content import changes, schema, validation
from pushserver.errors import Refused
from pushserver.model import Cursor, Event, StoredPage
from pushserver.page import render
from pushserver.page.words import words

PAGE: dict[str, Any] = {
    "kicker": "Harbour storm",
    "headline": "Storm updates: Ferries & trains stop as the tide rises",
    "dek": 'The port calls it "the worst since 1962".',
    "updated_at": "2023-07-11T15:53:00Z",
    "background": [{"type": "paragraph", "html": "Smith &amp; Sons built the <em>old</em> sea wall."}],
    "previous": [{"label": "Yesterday's updates", "url": "https://news.example/storm?day=1&page=2"}],
    "intro": "What we know so far.",
    "timezone": "America/New_York",
    "lang": "en-US",
    "topics": [{"label": "Weather & sea", "url": "https://news.example/weather"}, {"label": "Ferries"}],
}


def image(number: int, credit: str) -> dict[str, Any]:
    return {
        "type": "image",
        "src": f"https://photos.example/{number}.jpg?w=1200&h=800",
        "width": 1200,
        "height": 800,
        "alt": f'Boat {number} "Anna"',
        "caption": f"Boat {number} at the quay",
        "credit": credit,
    }


ENTRIES: list[dict[str, Any]] = [
    {
        "headline": "Sea wall holds, engineers say",
        "published_at": "2023-07-11T15:53:00Z",
        "blocks": [
            {"type": "paragraph", "html": "The wall holds, an engineer said."},
            image(1, "Ada Pell/Wire"),
            {"type": "paragraph", "html": 'More on <a href="https://a.example/?a=1&b=2">the plan</a>.'},
            image(2, "Ben Ode - Pool/Wire"),
        ],
        "bylines": [{"name": "Cy Roe", "org": "Wire"}],
    },
    {
        "headline": "Ferries stop",
        "published_at": "2023-07-11T04:00:00Z",
        "blocks": [{"type": "paragraph", "html": "All ferries are in port."}],
        "bylines": [],
    },
    {
        "headline": "Port & town close the quay",
        "published_at": "2023-07-11T03:59:00Z",
        "blocks": [
            {"type": "paragraph", "html": "The port &amp; the town closed it."},
            {
                "type": "social_post",
                "platform": "Wire",
                "author_name": "Port of Anna",
                "text": "Stay safe & dry.",
                "posted_at": "2023-07-11T03:30:00Z",
            },
            image(3, "Dee Fox & Co"),
        ],
        "bylines": [{"name": "Cy Roe", "org": "Wire"}, {"name": "Ada Pell", "org": "Wire"}],
    },
    {
        "headline": "First flood warning",
        "published_at": "2023-07-10T19:33:00Z",
        "blocks": [
            {"type": "heading", "text": "What to do"},
            {"type": "list", "items": ["Stay in", "Call <b>115</b>"]},
            {
                "type": "list",
                "ordered": True,
                "start": 5,
                "items": ["Close", {"html": "Switch <i>off</i>", "list": {"items": ["gas", "light"]}}],
            },
            {"type": "table", "head": ["Place", "<b>Level</b>"], "align": [None, "right"], "rows": [["Kelm", "2 m"]]},
            {"type": "break"},
            {"type": "quote", "html": "It comes fast.", "cite": "Eve Lin"},
            {"type": "embed", "url": "https://maps.example/flood", "title": "Flood map"},
        ],
        "bylines": [{"name": "Cy Roe"}, {"name": "Ada Pell"}, {"name": "Ben Ode"}],
    },
]

CURSOR = Cursor("0" * 16, "1689090780000-0", "f" * 16)
EASTERN = render.Place("America/New_York", "en-US")


def a_page(**fields: Any) -> StoredPage:
    """The seed page, with other fields, as it is stored."""
    return changes.revise_page(validation.read(schema.PageIn, {**PAGE, **fields}), at=0)


def an_entry(value: dict[str, Any], id: str = "id") -> str:
    """An entry as it is stored: JSON."""
    entry_in = validation.read(schema.EntryIn, value)
    return dumps(changes.revise_entry(entry_in, stream="storm", id=id, at=1_689_090_780_000))


def the_entries() -> list[str]:
    return [an_entry(value, f"id{number}") for number, value in enumerate(ENTRIES)]


def whole_page(entries: Sequence[str], page: StoredPage | None = None, older: str | None = None) -> str:
    page = page or a_page()
    return render.page(
        "storm",
        page,
        render.parts(page, render.items(page, entries), older=older),
        cursor=str(CURSOR),
        limit=100,
        newer=False,
        json_ld="",
        n=7,
    )


def framed(event_type: str, page: StoredPage, data: dict[str, Any]) -> dict[str, Any]:
    """The frame of an event in the html format, as it is read on the other side of the wire."""
    at = "2023-07-11T15:53:00.000Z"
    event = Event(CURSOR, CURSOR, 7, event_type, dumps({"at": at, **data}).encode(), at)
    frame: dict[str, Any] = json.loads(dumps(render.frame(event, page)))
    return frame


def put(entry: str, page: StoredPage) -> dict[str, Any]:
    return framed("entry.put", page, {"entry": json.loads(entry)})


class Seen(HTMLParser):
    """What a browser would see: the tags with the names of their attributes, the attributes' values, the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.text = ""
        self.texts: dict[str, list[str]] = {}  # by the class or tag of the element that it is directly in
        self.comments: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(str(html))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]
        if tag not in ("br", "hr", "img", "meta", "link"):
            self._open.append((tag, dict(attrs).get("class") or tag))
            self.texts.setdefault(self._open[-1][1], []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1][0] == tag, f"</{tag}> in {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        for _, name in self._open:
            self.texts[name][-1] += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def count(self, tag: str) -> int:
        return [name for name, _ in self.tags].count(tag)


# --- the page


def test_a_page_shows_every_entry_and_every_picture_with_its_credit() -> None:
    seen = Seen(whole_page(the_entries()))
    assert seen.count("article") == 4
    assert seen.count("figure") == seen.count("img") == seen.count("figcaption") == 3
    assert seen.texts["credit"] == ["Ada Pell/Wire", "Ben Ode - Pool/Wire", "Dee Fox & Co"]
    assert seen.texts["figcaption"][0] == "Boat 1 at the quay Ada Pell/Wire"
    assert seen.texts["h3"] == [entry["headline"] for entry in ENTRIES]


def test_a_page_shows_its_own_fields() -> None:
    seen = Seen(whole_page(the_entries()))
    assert seen.texts["kicker"] == ["Harbour storm"]
    assert seen.texts["h1"] == seen.texts["title"] == [PAGE["headline"]]
    assert seen.texts["dek"] == ['The port calls it "the worst since 1962".']
    assert seen.texts["previous"] == ["Previous coverage: Yesterday's updates"]
    assert "Smith & Sons built the old sea wall." in seen.texts["p"]
    assert "What we know so far. All times Eastern Time." in seen.texts["p"]
    assert "Last Updated: July 11, 2023, 11:53 AM EDT" in seen.texts["p"]
    assert "Weather & sea" in seen.texts["li"]
    assert "Ferries" in seen.texts["li"]
    assert PAGE["previous"][0]["url"] in seen.values


def test_a_page_carries_its_cursor_and_what_its_live_part_needs() -> None:
    html = whole_page(the_entries())
    assert f'data-cursor="{CURSOR}" data-n="7"' in html
    assert 'data-stream="storm"' in html
    assert 'data-limit="100"' in html
    assert 'data-timezone="America/New_York"' in html
    assert '<html lang="en-US" dir="ltr">' in html
    assert "data-newer" not in html


def test_a_page_of_older_entries_says_so() -> None:
    page = a_page()
    parts = render.parts(page, render.items(page, the_entries()), older=None)
    html = render.page("storm", page, parts, cursor=str(CURSOR), limit=100, newer=True, json_ld="", n=7)
    assert "data-newer" in html
    assert 'href="../streams/storm"' in html


def test_a_page_without_entries_is_a_page() -> None:
    page = model.unwritten_page("storm")
    seen = Seen(whole_page([], page))
    assert seen.count("article") == 0
    assert seen.texts["h1"] == ["Storm"]
    assert '<nav id="latest" aria-labelledby="latest-title" hidden>' in whole_page([], page)


def test_a_page_that_reads_from_right_to_left_says_so() -> None:
    html = whole_page(the_entries(), a_page(lang="ar", dir="rtl"))
    assert '<html lang="ar" dir="rtl">' in html


# --- text is escaped once


@pytest.mark.parametrize(
    "entry",
    [
        {"headline": "Smith & Sons"},
        {"body": "Smith & Sons"},
        {"body": "Smith &amp; Sons"},
        {"body": "# Smith & Sons"},
        {"body": "> Smith & Sons"},
        {"body": "- Smith & Sons"},
        {"body": "`Smith & Sons`"},
        {"blocks": [{"type": "paragraph", "html": "Smith & Sons"}]},
        {"blocks": [{"type": "paragraph", "html": "Smith &amp; Sons"}]},
        {"blocks": [{"type": "heading", "text": "Smith & Sons"}]},
        {"blocks": [{"type": "list", "items": ["Smith & Sons"]}]},
        {"blocks": [{"type": "quote", "html": "x", "cite": "Smith & Sons"}]},
        {"blocks": [{**image(1, "x"), "src": "/x.jpg", "credit": "Smith & Sons"}]},
        {"blocks": [{**image(1, "x"), "src": "/x.jpg", "alt": "Smith & Sons"}]},
        {"blocks": [{**image(1, "x"), "src": "/x.jpg?a=1&b=2"}]},
        {"blocks": [{"type": "embed", "url": "https://a.example/?a=1&b=2", "title": "x"}]},
        {"blocks": [{"type": "paragraph", "html": '<a href="https://a.example/?a=1&b=2">x</a>'}]},
        {"blocks": [{"type": "paragraph", "html": '<a href="https://a.example/?a=1&amp;b=2">x</a>'}]},
        {"headline": "x", "bylines": [{"name": "Smith & Sons"}]},
        {"headline": "x", "bylines": [{"name": "x", "org": "Smith & Sons"}]},
    ],
)
def test_an_ampersand_is_escaped_once_wherever_it_stands(entry: dict[str, Any]) -> None:
    html = render.entry(an_entry(entry), EASTERN)
    assert html.count("&amp;") == 1
    assert "&amp;amp;" not in html
    assert "Smith & Sons" in Seen(html).text or {"Smith & Sons", "/x.jpg?a=1&b=2", "https://a.example/?a=1&b=2"} & set(
        Seen(html).values
    )


def test_text_that_was_escaped_by_its_author_is_shown_as_it_was_written() -> None:
    html = render.entry(an_entry({"headline": "Use &amp; for &"}), EASTERN)
    assert Seen(html).texts["h3"] == ["Use &amp; for &"]


def test_a_quote_does_not_end_an_attribute() -> None:
    alt = '"Anna" onerror=\'alert(1)\' x="'
    block = {**image(1, "x"), "alt": alt, "src": '/a"onerror="alert(1).jpg'}
    seen = Seen(render.entry(an_entry({"blocks": [block]}), EASTERN))
    assert ("img", ("src", "width", "height", "alt", "loading", "decoding")) in seen.tags
    assert {alt, '/a"onerror="alert(1).jpg'} <= set(seen.values)


FRAGMENTS = [
    *("<script>alert(1)</script>", "</article></li>", '"><img src=x onerror=alert(1)>', "' onclick='x", "<!--", "-->"),
    *("</title>", "&amp;", "&lt;b&gt;", "&#60;", "{{ 7 * 7 }}", "{% raw %}", "]]>", "\x00", "\u2028", "é", " ", "x"),
]
anything = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join),
    st.text("<>\"'&;=/!-{}%x ", min_size=1, max_size=12),
    st.text(min_size=1, max_size=12),
)
FIELDS = 20


def entry_of(texts: Sequence[str]) -> str:
    """An entry that has a text in each field that can hold one; what is HTML already is left out."""
    (headline, heading, cite, src, alt, caption, credit, platform, author, handle, text, url, embed, title, *rest) = (
        texts
    )
    blocks = [
        {"type": "heading", "text": heading},
        {"type": "quote", "html": "x", "cite": cite},
        {"type": "image", "src": src, "width": 1, "height": 1, "alt": alt, "caption": caption, "credit": credit},
        {
            "type": "social_post",
            "platform": platform,
            "author_name": author,
            "handle": handle,
            "text": text,
            "url": url,
        },
        {"type": "embed", "url": embed, "title": title},
    ]
    bylines = [{"name": rest[at], "role": rest[at + 1], "org": rest[at + 2]} for at in (0, 3)]
    at = "2023-07-11T15:53:00.000Z"
    fields = {"id": "id", "rev": 1, "headline": headline, "blocks": blocks, "bylines": bylines, "tags": [], "flags": {}}
    return dumps({**fields, "published_at": at, "sort_at": at, "url": "/streams/storm#e-id"})


@given(st.lists(anything, min_size=FIELDS, max_size=FIELDS))
def test_no_text_of_an_entry_becomes_markup(texts: list[str]) -> None:
    seen = Seen(render.entry(entry_of(texts), EASTERN))
    harmless = Seen(render.entry(entry_of([f"x{number}" for number in range(FIELDS)]), EASTERN))
    assert seen.tags == harmless.tags
    assert seen.comments == []
    for text in texts:
        assert text in seen.text or text in seen.values


@given(st.lists(anything, min_size=10, max_size=10))
def test_no_text_of_a_page_becomes_markup(texts: list[str]) -> None:
    def page_of(texts: Sequence[str]) -> str:
        names = ("kicker", "headline", "dek", "intro")
        links = [{"label": texts[at], "url": texts[at + 1]} for at in (4, 6, 8)]
        fields = {**a_page(), **dict(zip(names, texts, strict=False))}
        page = {**fields, "previous": links[:1], "next": links[1], "topics": links[2:]}
        return whole_page([an_entry({"headline": "x"})], cast(StoredPage, page))

    seen, harmless = Seen(page_of(texts)), Seen(page_of(["x"] * 10))
    assert seen.tags == harmless.tags
    assert seen.comments == []
    for text in texts:
        assert text in seen.text or text in seen.values


# --- bylines


@pytest.mark.parametrize(
    ("bylines", "shown"),
    [
        ([], []),
        ([{"name": "Ada Pell"}], ["Ada Pell"]),
        ([{"name": "Ada Pell", "org": "Wire"}], ["Ada Pell, Wire"]),
        ([{"name": "Ada Pell", "role": "Reporter", "org": "Wire"}], ["Ada Pell, Reporter, Wire"]),
        ([{"name": "Ada Pell"}, {"name": "Ben Ode"}], ["Ada Pell and Ben Ode"]),
        ([{"name": "Ada Pell", "org": "Wire"}, {"name": "Ben Ode", "org": "Wire"}], ["Ada Pell and Ben Ode, Wire"]),
        (
            [{"name": "Ada Pell", "org": "Wire"}, {"name": "Ben Ode", "org": "Post"}],
            ["Ada Pell, Wire and Ben Ode, Post"],
        ),
        ([{"name": "Ada Pell", "org": "Wire"}, {"name": "Ben Ode"}], ["Ada Pell, Wire and Ben Ode"]),
        ([{"name": "Ada Pell"}, {"name": "Ben Ode"}, {"name": "Cy Roe"}], ["Ada Pell, Ben Ode, and Cy Roe"]),
        (
            [{"name": name, "org": "Wire"} for name in ("Ada Pell", "Ben Ode", "Cy Roe")],
            ["Ada Pell, Ben Ode, and Cy Roe, Wire"],
        ),
    ],
)
def test_names_are_joined_as_a_newspaper_does(bylines: list[dict[str, str]], shown: list[str]) -> None:
    seen = Seen(render.entry(an_entry({"headline": "x", "bylines": bylines}), EASTERN))
    assert seen.texts.get("byline", []) == shown


# --- times and days


@pytest.mark.parametrize(
    ("at", "zone", "lang", "shown"),
    [
        ("2023-07-11T15:53:00.000Z", "America/New_York", "en-US", "Jul 11, 2023, 11:53 AM EDT"),
        ("2023-01-11T15:53:00.000Z", "America/New_York", "en-US", "Jan 11, 2023, 10:53 AM EST"),
        ("2023-03-12T06:59:59.999Z", "America/New_York", "en-US", "Mar 12, 2023, 1:59 AM EST"),
        ("2023-03-12T07:00:00.000Z", "America/New_York", "en-US", "Mar 12, 2023, 3:00 AM EDT"),
        ("2023-11-05T05:30:00.000Z", "America/New_York", "en-US", "Nov 5, 2023, 1:30 AM EDT"),
        ("2023-11-05T06:30:00.000Z", "America/New_York", "en-US", "Nov 5, 2023, 1:30 AM EST"),
        ("2023-07-11T15:53:00.000Z", "UTC", "en", "Jul 11, 2023, 3:53 PM UTC"),
        ("2023-07-11T15:53:00.000Z", "Europe/Dublin", "en-GB", "11 Jul 2023, 16:53 IST"),
        ("2023-01-11T15:53:00.000Z", "Europe/Dublin", "en-GB", "11 Jan 2023, 15:53 GMT"),
        ("2023-07-11T15:53:00.000Z", "America/Sao_Paulo", "en", "Jul 11, 2023, 12:53 PM GMT-03:00"),
        ("2023-07-11T23:00:00.000Z", "Asia/Tokyo", "en", "Jul 12, 2023, 8:00 AM JST"),
    ],
)
def test_an_instant_is_shown_in_the_zone_of_the_page_as_it_is_called_then(
    at: str, zone: str, lang: str, shown: str
) -> None:
    assert render.timestamp(at, render.Place(zone, lang)) == shown


def test_every_entry_says_when_it_was_published() -> None:
    seen = Seen(whole_page(the_entries()))
    assert [text.strip() for text in seen.texts["stamp"]] == [
        "Jul 11, 2023, 11:53 AM EDT",
        "Jul 11, 2023, 12:00 AM EDT",
        "Jul 10, 2023, 11:59 PM EDT",
        "Jul 10, 2023, 3:33 PM EDT",
    ]
    assert {"2023-07-11T04:00:00.000Z", "#e-id1"} <= set(seen.values)
    assert "Port of Anna on Wire, Jul 10, 2023, 11:30 PM EDT" in seen.texts["footer"]


def test_entries_stand_under_the_day_that_it_is_in_the_zone_of_the_page() -> None:
    html = whole_page(the_entries())
    seen = Seen(html)
    assert [text for text in seen.texts["h2"] if "2023" in text] == ["Tuesday, July 11, 2023", "Monday, July 10, 2023"]
    after, before = html.split('data-day="2023-07-11"')[1].split('data-day="2023-07-10"')
    assert [f"e-id{number}" in after for number in range(4)] == [True, True, False, False]
    assert [f'id="e-id{number}"' in before for number in range(4)] == [False, False, True, True]


def test_the_same_entries_are_of_other_days_elsewhere() -> None:
    seen = Seen(whole_page(the_entries(), a_page(timezone="Asia/Tokyo")))
    assert [text for text in seen.texts["h2"] if "2023" in text] == [
        "Wednesday, July 12, 2023",
        "Tuesday, July 11, 2023",
    ]


def test_pinned_entries_have_the_first_section_whatever_their_day() -> None:
    entries = [an_entry({**ENTRIES[3], "flags": {"pinned": True}}, "pinned-one"), *the_entries()[:3]]
    html = whole_page(entries)
    assert [text for text in Seen(html).texts["h2"] if text == "Pinned" or "2023" in text] == [
        "Pinned",
        "Tuesday, July 11, 2023",
        "Monday, July 10, 2023",
    ]
    assert html.index('id="e-pinned-one"') < html.index('data-day="2023-07-11"')


def test_flags_are_shown_as_words() -> None:
    seen = Seen(render.entry(an_entry({"headline": "x", "flags": {"breaking": True, "key": True}}), EASTERN))
    assert seen.texts["flag"] == ["Breaking", "Key update"]
    assert "flag" not in Seen(render.entry(an_entry({"headline": "x"}), EASTERN)).texts


@given(
    st.sampled_from(sorted(localedata.locale_identifiers())), st.sampled_from(sorted(zoneinfo.available_timezones()))
)
@example("wa", "America/New_York")
@example("tn_ZA", "America/New_York")
@example("root", "America/New_York")
@example("en", "Factory")
def test_every_page_that_is_taken_can_be_shown(locale: str, zone: str) -> None:
    try:
        page = a_page(lang=locale.replace("_", "-"), timezone=zone)
    except Refused:
        return
    html = whole_page(the_entries(), page)
    assert Seen(html).count("article") == 4


# --- the list of the latest, and the way to older entries


def test_the_latest_headlines_are_the_first_five_that_there_are() -> None:
    entries = [an_entry({"headline": f"Headline {number}"}, f"id{number}") for number in range(7)]
    entries.insert(1, an_entry({"body": "No headline"}, "none"))
    latest = render.parts(a_page(), render.items(a_page(), entries), older=None)["latest"]
    seen = Seen(latest)
    assert seen.texts["li"] == [f"Headline {number}" for number in range(5)]
    assert [value for value in seen.values if value.startswith("#")] == [f"#e-id{number}" for number in range(5)]
    assert "hidden" not in latest


def test_entries_without_a_headline_are_not_among_the_latest() -> None:
    latest = render.parts(a_page(), render.items(a_page(), [an_entry({"body": "x"})]), older=None)["latest"]
    assert "li" not in Seen(latest).texts
    assert " hidden" in latest


def test_where_there_are_older_entries_a_link_leads_to_them() -> None:
    entries = the_entries()
    older = render.older_link(entries)
    assert older == f"?before={model.milliseconds('2023-07-10T19:33:00Z')}.id3"
    assert f'<p id="older"><a rel="next" href="{older}">' in whole_page(entries, older=older)
    assert '<p id="older" hidden>' in whole_page(entries)


def test_the_link_to_older_entries_after_a_pinned_one_keeps_its_order() -> None:
    pinned = an_entry({**ENTRIES[3], "flags": {"pinned": True}}, "abc")
    assert render.older_link([pinned]) == f"?before={model.order_of(json.loads(pinned))}.abc"
    assert model.order_of(json.loads(pinned)) > model.PINNED


# --- what is made once


def test_no_entry_and_no_place_makes_a_template_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile one takes 80 ms, and everyone on the worker would wait for it."""
    render.prepare()

    def compile(*_: Any, **__: Any) -> None:
        raise AssertionError("a template was compiled")

    monkeypatch.setattr(jinja2.Environment, "compile", compile)
    page = a_page()
    for timezone, lang in (("Europe/Dublin", "en-IE"), ("Asia/Tokyo", "ja"), ("Pacific/Apia", "fr-FR")):
        there: Any = {**page, "timezone": timezone, "lang": lang}
        parts = render.parts(there, render.items(there, the_entries()), older=None)
        assert render.page("storm", there, parts, cursor="", n=1, limit=1, newer=False, json_ld="")
        assert render.entry_page(there, "storm", id="x", entry_json=the_entries()[0], withdrawal=None, json_ld="")
    assert render.index([("storm", page)])
    assert render.refusal_page(404, "There is none.", depth=0)


def test_the_entries_that_are_kept_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render.Items, "MAX_BYTES", 200_000)
    items, made = render.Items(), []

    def make(entry: str, place: render.Place) -> render.Item:
        made.append(entry)
        return an_item(entry)

    monkeypatch.setattr(render, "make_item", make)
    for number in range(100):
        items("first", EASTERN)  # it is used all the time
        items(str(number) * 5_000, EASTERN)
        assert items.bytes <= 200_000
    assert made.count("first") == 1
    items("x" * 300_000, EASTERN)
    assert items.bytes == 0
    items("first", EASTERN)
    assert made.count("first") == 2


def an_item(html: str) -> render.Item:
    return render.Item(Markup(html), "x", 0, "2023-07-11", None, "2023-07-11T15:53:00.000Z", False)


# --- frames are the same bytes as the page


@pytest.mark.parametrize("number", range(4))
def test_a_frame_carries_the_entry_as_the_page_has_it(number: int) -> None:
    page, entries = a_page(), the_entries()
    frame = put(entries[number], page)
    render.item.cache_clear()
    parts = render.parts(page, render.items(page, entries), older=None)
    assert frame["html"] in parts["entries"]
    assert frame["parts"]["updated"] in parts["header"]
    assert frame["day"]["html"].removesuffix("</ol></section>") in parts["entries"]
    assert frame["entry"] == {
        "id": f"id{number}",
        "rev": 1,
        "sort_at": json.loads(entries[number])["sort_at"],
    }
    assert frame["at"] == "2023-07-11T15:53:00.000Z"


def test_the_entries_of_a_page_are_the_sum_of_their_frames() -> None:
    page = a_page()
    entries = [an_entry({**ENTRIES[2], "flags": {"pinned": True}}, "p"), *the_entries()]
    frames = [put(entry, page) for entry in entries]
    sections = []
    for _, of_day in groupby(frames, key=lambda frame: frame["day"]["id"]):
        days = list(of_day)
        empty = days[0]["day"]["html"]
        assert empty.endswith("</ol></section>")
        sections.append(empty.replace("</ol></section>", "".join(frame["html"] for frame in days) + "</ol></section>"))
    render.item.cache_clear()
    assert (
        render.parts(page, render.items(page, entries), older=None)["entries"]
        == f'<div id="entries">{"".join(sections)}</div>'
    )


def test_a_frame_of_a_page_carries_its_parts_as_the_page_has_them() -> None:
    page = a_page()
    frame = framed("page.put", page, {"page": page})
    assert set(frame["parts"]) == {"header", "intro", "topics"}
    html = whole_page(the_entries(), page)
    assert all(part in html for part in frame["parts"].values())
    assert frame["page"] == {
        "rev": 1,
        "headline": PAGE["headline"],
        "timezone": "America/New_York",
        "lang": "en-US",
        "dir": "ltr",
    }


def test_a_frame_of_a_pinned_entry_names_the_pinned_section() -> None:
    frame = put(an_entry({"headline": "x", "flags": {"pinned": True}}), a_page())
    assert frame["day"]["id"] == "pinned"
    assert 'data-day="pinned"' in frame["day"]["html"]


# --- the list of the streams


def test_the_list_of_streams_names_each_and_when_it_changed() -> None:
    page = a_page(headline="Wind & <rain>", updated_at="2023-07-11T15:53:00Z")
    seen = Seen(render.index([("storm", page)]))
    assert "./streams/storm" in seen.values
    assert seen.texts["a"] == ["Wind & <rain>"]
    assert "storm · Last Updated: Jul 11, 2023, 3:53 PM UTC" in seen.texts["p"]
    assert "No stream yet" in Seen(render.index([])).text


def block_html(block: dict[str, Any]) -> str:
    """The HTML of a block as a page shows it."""
    return str(render.content(json.loads(an_entry({"blocks": [block]})), EASTERN)).strip()


def test_a_table_scrolls_in_a_region_that_has_a_name_and_takes_the_focus() -> None:
    table = {"type": "table", "head": ["Place", '<b>Le"vel</b>'], "align": ["left", "right"], "rows": [["Kelm", ""]]}
    assert block_html(table) == (
        '<div class="table" role="region" tabindex="0" aria-label="Place, Le&#34;vel" dir="auto"><table><thead><tr>'
        '<th scope="col" class="left">Place</th><th scope="col" class="right"><b>Le"vel</b></th></tr></thead>'
        '<tbody><tr><td class="left">Kelm</td><td class="right"></td></tr></tbody></table></div>'
    )


def test_a_table_of_nothing_but_a_row_has_a_name_too() -> None:
    table = block_html({"type": "table", "head": [""], "rows": [["x"]]})
    assert 'aria-label="Table"' in table
    assert '<th scope="col"></th>' in table


def test_lists_stand_in_their_items_and_begin_with_their_number() -> None:
    inner = {"ordered": True, "start": 3, "items": [{"html": "c", "list": {"items": ["<i>d</i>"]}}]}
    assert block_html({"type": "list", "items": ["a", {"html": "b", "list": inner}]}) == (
        '<ul dir="auto"><li>a</li><li>b<ol dir="auto" start="3"><li>c'
        '<ul dir="auto"><li><i>d</i></li></ul></li></ol></li></ul>'
    )


def test_a_break_is_a_line() -> None:
    fields = json.loads(an_entry({"body": "a\n\n---\n\nb"}))
    assert str(render.content(fields, EASTERN)) == '<p dir="auto">a</p>\n<hr>\n<p dir="auto">b</p>\n'


# --- what the page has beside its entries


def test_the_key_events_are_listed_with_their_times() -> None:
    entries = [an_entry({**ENTRIES[0], "flags": {"key": True}}, "one"), *the_entries()[1:]]
    parts = render.parts(a_page(), render.items(a_page(), entries), older=None)
    assert parts["key"] == (
        '<nav id="key" aria-labelledby="key-title"><h2 id="key-title">Key events</h2><ol><li><a href="#e-one">'
        '<time datetime="2023-07-11T15:53:00.000Z">Jul 11, 2023, 11:53 AM EDT</time> Sea wall holds, engineers say'
        "</a></li></ol></nav>"
    )
    assert "data-key" in parts["entries"]
    assert " hidden>" in render.parts(a_page(), render.items(a_page(), the_entries()), older=None)["key"]


def test_the_time_of_an_entry_leads_to_its_own_page() -> None:
    assert 'href="storm/entries/one"' in render.entry(an_entry({"headline": "x"}, "one"), EASTERN)
    html = entry_page_of({"headline": "Sea & wall", "body": "x"})
    seen = Seen(html)
    assert seen.texts["h1"] == ["Sea & wall"]
    assert 'href="storm/' not in html
    assert "All updates on the live page" in seen.texts["a"]
    assert Seen(entry_page_of({"body": "No headline."})).texts["h1"] == [PAGE["headline"]]


def entry_page_of(value: dict[str, Any], page: StoredPage | None = None) -> str:
    entry = an_entry(value, "one")
    return render.entry_page(page or a_page(), "storm", id="one", entry_json=entry, withdrawal=None, json_ld="")


@pytest.mark.parametrize(
    ("state", "shown"), [("ended", "This page is no longer updating"), ("paused", "Updates are paused"), ("live", "")]
)
def test_a_page_that_is_not_live_says_so(state: str, shown: str) -> None:
    page = a_page()
    page["state"] = state
    assert Seen(whole_page([], page)).texts.get("over", []) == ([shown] if shown else [])


def test_a_page_without_updates_says_so_below_its_empty_list() -> None:
    assert '<div id="entries"></div><p id="empty">There are no updates yet.</p>' in whole_page([])


def test_publishers_text_has_its_own_direction_wherever_the_page_reads_to() -> None:
    html = whole_page(the_entries(), a_page(lang="he", dir="rtl"))
    for tag in ("h1", "h3", "figcaption", "blockquote"):
        starts = re.findall(f"<{tag}[ >][^>]*>?", html)
        assert starts
        assert all('dir="auto"' in start for start in starts), tag


LANGUAGES = ("en", "es", "fr", "de", "pt", "ar", "he", "hi", "ja", "uk")


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_no_word_of_the_page_is_english_on_a_page_in_another_language(lang: str) -> None:
    page = a_page(
        lang=lang, timezone="UTC", intro="9", background=[], topics=[], previous=[{"label": "9", "url": "https://9.9/"}]
    )
    page |= {"kicker": "9", "headline": "9", "dek": "9", "state": "ended", "next": page["previous"][0]}
    flags = {"key": True, "breaking": True, "pinned": True}
    post = {
        "type": "social_post",
        "platform": "9",
        "author_name": "9",
        "text": "9",
        "posted_at": "2023-07-11T03:30:00Z",
    }
    table = {"type": "table", "head": [""], "rows": [["9"]]}
    value = {"headline": "9", "blocks": [post, table], "bylines": [{"name": "9"}, {"name": "9"}], "flags": flags}
    at = "2023-07-11T15:53:00.000Z"
    stamps = {"updated_at": at, "correction": {"class": "correction", "note": "9", "at": at}}
    entry = dumps({**json.loads(an_entry(value)), **stamps})
    html = (
        whole_page([entry], page, older="9")
        + entry_page_of({"headline": "9"}, page)
        + render.index([("9", page)], lang)
    )
    withdrawal: Any = {"id": "9", "rev": 2, "at": at, "reason": "error", "note": "9"}
    html += render.entry_page(page, "9", id="9", entry_json=None, withdrawal=withdrawal, json_ld="")
    html += "".join(render.refusal_page(status, "9", lang, depth=1) for status in (401, 403, 404, 410, 429, 503, 500))
    known = " ".join([*words_of(lang), babel_words(lang)])
    assert latin_words(Seen(html).text) <= latin_words(known)


def latin_words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{3,}", text))


def words_of(lang: str) -> list[str]:
    """Every translated text of a language's catalog."""
    catalog = (Path(render.__file__).parent / "locale" / f"{lang}.po").read_text()
    return re.findall(r'^msgstr(?:\[\d\])? "(.*)"$', catalog, re.MULTILINE)


def babel_words(lang: str) -> str:
    """The words of dates in a language."""
    place = render.Place("UTC", lang)
    instant = "2023-07-11T15:53:00.000Z"
    return " ".join(
        [*(render.timestamp(instant, place, length) for length in ("medium", "long", "full")), words(lang).join("12")]
    )
