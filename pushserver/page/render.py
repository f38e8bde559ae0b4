"""Entries and pages as HTML. Pure.

The first load and the frames are made by the same templates, so that a page that was updated live and one that is
loaded again are the same bytes. HTML was sanitised when it was published; every other text is escaped here.
"""

from __future__ import annotations

import functools
import json
import secrets
import zoneinfo
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from sys import getsizeof, intern
from typing import Any, NamedTuple

import jinja2
from babel import Locale, dates
from markupsafe import Markup, escape

from .. import metrics
from ..codec import dumps
from ..content import markup
from ..content.blocks import BLOCK_TYPES
from ..content.fields import direction
from ..model import Event, StoredEntry, StoredPage, StoredWithdrawal, order_of
from .site import ENTRY, INDEX, PAGE, Site, root
from .words import Words, words
from .zones import zone_name

NOWHERE = Site()
# It stands for HTML that is put in later: to carry megabytes through every template and escape would hold up everyone
# else. No publisher can guess it.
MARK = Markup(secrets.token_hex(16))
# Headlines in the lists of the latest and of the key events; static/entries.js has the same numbers.
LATEST, KEY = 5, 10


class Place(NamedTuple):
    """Place is the time zone and the language in which a page shows times."""

    timezone: str
    lang: str

    @classmethod
    def of(cls, page: StoredPage) -> Place:
        return cls(page["timezone"], page["lang"])


@functools.lru_cache(maxsize=256)
def _locale(lang: str) -> Locale:
    return Locale.parse(lang, sep="-")


def _local(at: str, place: Place) -> tuple[datetime, Locale]:
    return datetime.fromisoformat(at).astimezone(zoneinfo.ZoneInfo(place.timezone)), _locale(place.lang)


def timestamp(at: str, place: Place, length: Any = "medium") -> str:
    """An instant as text in the place's zone, with the zone's name at that instant: Jul 11, 2023, 11:53 AM EDT."""
    moment, locale = _local(at, place)
    time = dates.format_time(moment, "short", moment.tzinfo, locale).replace("\u202f", " ")
    # The abbreviation is from the time zone database: CLDR exchanges the names of Dublin's summer and winter time.
    zone = moment.tzname() or ""
    if not zone.isalpha():  # a zone without a name of its own, such as -03
        zone = dates.get_timezone_gmt(moment, "long", locale)
    # The longer forms join the two with a word, such as "at".
    form = str(dates.get_datetime_format("medium", locale)).replace("'", "")
    return form.format(f"{time} {zone}", dates.format_date(moment, length, locale))


def day_of(entry: StoredEntry, place: Place) -> str:
    """The section of an entry: its day in the page's zone, such as 2023-07-11, or `pinned`."""
    if entry["flags"].get("pinned"):
        return "pinned"
    return _local(entry["sort_at"], place)[0].date().isoformat()


@functools.lru_cache(maxsize=1_024)  # a page has few days, and shows them again after each event
def _day_title(key: str, place: Place) -> str:
    if key == "pinned":
        return words(place.lang).say("Pinned")
    return dates.format_date(datetime.fromisoformat(key), "full", _locale(place.lang))


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pushserver.page"),
    autoescape=True,
    auto_reload=False,  # each use would ask the file system
    undefined=jinja2.ChainableUndefined,
)
_STARTS = {
    **{("th", align): f'<th scope="col" class="{align}">' for align in ("left", "center", "right")},
    **{("td", align): f'<td class="{align}">' for align in ("left", "center", "right")},
}


def _cells(row: Sequence[str], tag: str, aligns: Sequence[str | None]) -> Markup:
    """A row of a table, whose HTML was sanitised: a template takes ten times as long for the 2,400 cells of one."""
    plain = '<th scope="col">' if tag == "th" else "<td>"
    pairs = zip(row, aligns, strict=True)
    cells = "".join(f"{_STARTS.get((tag, align or ''), plain)}{html}</{tag}>" for html, align in pairs)
    return Markup(f"<tr>{cells}</tr>")


def _byline(people: Sequence[Mapping[str, str]], voice: Words) -> Markup:
    """The names of the people as a list, with the role, and with the organisation unless the next one has it too."""
    names = []
    for person, following in zip(people, [*people[1:], {}], strict=True):
        org = person.get("org") if person.get("org") != following.get("org") else None
        more = "".join(f", {escape(part)}" for part in (person.get("role"), org) if part)
        names.append(Markup('<span class="name">{}</span>{}').format(person["name"], Markup(more)))
    return voice.join(names)


_TEMPLATES.filters["cells"] = _cells
_TEMPLATES.filters["table_name"] = lambda table: ", ".join(filter(None, map(markup.text, table["head"])))


@functools.lru_cache(maxsize=64)
def _sayings(place: Place) -> dict[str, Any]:
    """The functions that a template calls for what depends on the place: words, times, lists."""
    voice = words(place.lang)
    return {
        "_": voice.say,
        "when": lambda at: timestamp(at, place),
        "when_long": lambda at: timestamp(at, place, "long"),
        "byline_of": lambda people: _byline(people, voice),
    }


_PARTS = _TEMPLATES.get_template("parts.html")


@functools.lru_cache(maxsize=64)
def _parts(place: Place) -> Any:
    """The macros of parts.html, as a place has them."""
    return _PARTS.make_module(_sayings(place))


def prepare() -> None:
    """Compile every template, and load what times need: on first use they would keep everyone waiting for 0.1 s."""
    for name in _TEMPLATES.list_templates():
        _TEMPLATES.get_template(name)
    place = Place("America/New_York", "en")
    timestamp("2023-07-11T15:53:00.000Z", place, "long")
    zone_name(*place)


class Item(NamedTuple):
    """Item is an entry as a page lists it: its HTML, its place in the page's order, its day, headline and time.

    `is_key` says whether it is one of the key events.
    """

    html: Markup
    id: str
    order: int
    day: str
    headline: str | None
    published_at: str
    is_key: bool


def make_item(entry_json: str, place: Place) -> Item:
    """Render an entry as the item of a list. Its link to its own page is relative to the page of its stream."""
    fields = json.loads(entry_json)
    metrics.UNKNOWN_BLOCKS.inc(by=sum(block["type"] not in BLOCK_TYPES for block in fields["blocks"]))
    order = order_of(fields)
    link = fields["url"].removeprefix("/streams/")
    html = Markup(_parts(place).entry(fields, order, link))
    headline, is_key = fields.get("headline"), bool(fields["flags"].get("key"))
    return Item(html, fields["id"], order, intern(day_of(fields, place)), headline, fields["published_at"], is_key)


class Items:
    """Items are entries as `make_item` makes them. Called again, it has those of the last MAX_BYTES that were used."""

    MAX_BYTES = 16 * 2**20  # of a worker's entries and their HTML

    def __init__(self) -> None:
        self._items: OrderedDict[tuple[str, Place], Item] = OrderedDict()
        self.bytes = 0

    def __call__(self, entry_json: str, place: Place) -> Item:
        key = entry_json, place
        made = self._items.get(key)
        if made is not None:
            self._items.move_to_end(key)
            return made
        made = self._items[key] = make_item(entry_json, place)
        self.bytes += _size(key, made)
        while self.bytes > self.MAX_BYTES:
            self.bytes -= _size(*self._items.popitem(last=False))
        return made

    def made(self, entry_json: str, place: Place) -> Item | None:
        """The item if it has been made, such as for a frame."""
        return self._items.get((entry_json, place))

    def cache_clear(self) -> None:
        """Let all go."""
        self._items.clear()
        self.bytes = 0


def _size(key: tuple[str, Place], item: Item) -> int:
    return getsizeof(key[0]) + getsizeof(item.html)


# A revision is rendered once, however many frames show it.
item = Items()


def items(page: StoredPage, entries: Sequence[str]) -> list[Item]:
    """The entries of a page as items."""
    place = Place.of(page)
    return [item(entry, place) for entry in entries]


def entry(entry_json: str, place: Place) -> Markup:
    """The list item of an entry."""
    return item(entry_json, place).html


def _day(key: str, place: Place, entries: Markup) -> Markup:
    return Markup(_parts(place).day(key, _day_title(key, place), entries))


def _joined(html: Iterable[str]) -> Markup:
    """HTML as one text. `Markup.join` would look at each piece for what it has to escape, on every page load."""
    return Markup("".join(html))


def parts(page: StoredPage, items: Sequence[Item], *, older: str | None) -> dict[str, Markup]:
    """Every part of a page by its element's id. `items` are in the page's order; `older` links to more."""
    place = Place.of(page)
    days = groupby(items, key=lambda item: item.day)
    sections = [_day(key, place, _joined(item.html for item in group)) for key, group in days]
    titled, macros = [item for item in items if item.headline], _parts(place)
    latest = [item for item in titled if item.day != "pinned"]  # a pinned entry may be days old
    return {
        **page_parts(page),
        "latest": Markup(macros.latest(latest[:LATEST])),
        "entries": _joined(['<div id="entries">', *sections, "</div>"]),
        "older": Markup(macros.older(older)),
        # Pages of before these were added stop at a part that they do not have.
        "key": Markup(macros.key([item for item in titled if item.is_key][:KEY])),
        "words": _words_part(place.lang),
        "empty": Markup(macros.empty()),
    }


@functools.lru_cache(maxsize=64)
def _words_part(lang: str) -> Markup:
    """The words that the page's script says, as an element."""
    text = words(lang).script.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&#39;")
    return Markup(f"<div id=\"words\" hidden data-words='{text}'></div>")


def page_parts(page: StoredPage) -> dict[str, Markup]:
    """The parts of a page that show its own fields, by their element's id."""
    place = Place.of(page)
    macros = _parts(place)
    return {
        "header": Markup(macros.header(page)),
        "intro": Markup(macros.intro(page, zone_name(place.timezone, place.lang))),
        "topics": Markup(macros.topics(page)),
    }


def page_head(page: StoredPage) -> dict[str, Any]:
    """The fields of a page that its script reads, and that no part shows."""
    return {name: page[name] for name in ("rev", "headline", "timezone", "lang", "dir")}


def older_link(entries: Sequence[str | bytes]) -> str:
    """The link to the entries after these in the page's order, relative to the stream's address."""
    last = json.loads(entries[-1])
    return f"?before={order_of(last)}.{last['id']}"


def frame(event: Event, page: StoredPage) -> dict[str, Any]:
    """The fields of an event's frame in the html format. `page` is the page after the event.

    An event of an unknown type keeps the fields that it has.
    """
    data: dict[str, Any] = json.loads(event.data)
    place = Place.of(page)
    match event.type:
        case "entry.put":
            fields = data["entry"]
            key = day_of(fields, place)
            data["entry"] = {name: fields[name] for name in ("id", "rev", "sort_at")}
            data["html"] = entry(dumps(fields), place)
            data["day"] = {"id": key, "html": _day(key, place, Markup(""))}
            data["parts"] = {"updated": Markup(_parts(place).updated(page))}
        case "entry.withdraw":
            data["parts"] = {"updated": Markup(_parts(place).updated(page))}
        case "page.put" | "stream.end":
            data["page"] = page_head(page)
            data["parts"] = page_parts(page)
    return data


def preview(fields: StoredEntry, page: StoredPage) -> Markup:
    """The list item of an entry that is not stored. It is not cached: no other request needs it."""
    return make_item(dumps(fields), Place.of(page)).html


def content(fields: StoredEntry, place: Place) -> Markup:
    """The blocks of an entry and its correction, without headline, time and bylines."""
    return Markup(_parts(place).content(fields))


def page(
    stream: str,
    page: StoredPage,
    parts: dict[str, Markup],
    *,
    limit: int,
    newer: bool,
    late: str | None = None,
    site: Site = NOWHERE,
    **head: str | int,
) -> str:
    """The page of a stream. `newer` marks a slice of older entries, which is not updated live.

    `late` is the time since which the page may be late, as text, where the store is away.
    `head`: cursor, n, json_ld, card.
    """
    about = {"stream": stream, "page": page, "parts": parts, "limit": limit, "newer": newer, "late": late, **head}
    links = {**_links(site, PAGE), "url": site.canonical(f"/streams/{stream}"), "modules": site.modules}
    return _TEMPLATES.get_template("page.html").render(**about, **links, **_sayings(Place.of(page)))


def _links(site: Site, depth: int) -> dict[str, str]:
    """The addresses with which the links of a document begin that is so many folders down."""
    return {"root": root(depth), "static": site.static(depth), "build": site.build}


def entry_page(
    page: StoredPage,
    stream: str,
    *,
    id: str,
    entry_json: str | None,
    withdrawal: StoredWithdrawal | None,
    site: Site = NOWHERE,
    **head: str,
) -> str:
    """The page of one entry, or the notice that it was withdrawn. `head`: json_ld, card."""
    place = Place.of(page)
    fields: Any = json.loads(entry_json) if entry_json else withdrawal or {}
    shown = Markup(_parts(place).entry(fields, order_of(fields), id, "h1")) if entry_json else None
    about = {"stream": stream, "page": page, "entry": shown, "title": fields.get("headline"), "withdrawal": withdrawal}
    links = {**_links(site, ENTRY), "url": site.canonical(f"/streams/{stream}/entries/{id}")}
    return _TEMPLATES.get_template("entry.html").render(**about, **links, **head, **_sayings(place))


def index(streams: Sequence[tuple[str, StoredPage]], lang: str = "en", *, site: Site = NOWHERE) -> str:
    """The page that lists the streams, with the headline and the time of the last update of each."""
    listed = [{"stream": stream, "page": page} for stream, page in streams]
    shell = {**_links(site, INDEX), **_shell(Place("UTC", lang))}
    return _TEMPLATES.get_template("index.html").render(streams=listed, **shell)


def _shell(place: Place) -> dict[str, Any]:
    """The language, direction and words of a page that belongs to no stream."""
    return {"lang": place.lang, "dir": direction(place.lang), **_sayings(place)}


def _refused(status: int) -> tuple[str, bool]:
    """The title of a page in the place of one that is not shown, and whether it says all that people need to know."""

    def _(message: str) -> str:
        return message

    titles = {
        401: _("Please sign in to read this page"),
        403: _("You may not read this page"),
        404: _("There is no page at this address"),
        410: _("This page has been taken down"),
        429: _("There were too many requests from your address; please try again in a moment"),
        503: _("This page cannot be shown right now; please try again in a moment"),
    }
    return titles.get(status, _("This page cannot be shown")), status in titles


def refusal_page(status: int, detail: str, lang: str = "en", *, depth: int, site: Site = NOWHERE) -> str:
    """The page for people in the place of one that is not shown, so many folders down.

    The detail is English: a page in another language shows it only where its title does not say what is wrong.
    """
    shell = {**_links(site, depth), **_shell(Place("UTC", lang))}
    title, is_enough = _refused(status)
    shown = "" if is_enough and lang != "en" else detail
    return _TEMPLATES.get_template("refusal.html").render(title=shell["_"](title), detail=shown, **shell)
