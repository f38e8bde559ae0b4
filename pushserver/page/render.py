"""Entry and page as HTML, by the same templates for the first load and for frames, so that live and reload are
the same bytes.

Pure. HTML that was sanitised at publish is shown as it is; everything else is text and is escaped once, here.
"""

from __future__ import annotations

import functools
import json
import zoneinfo
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import jinja2
from babel import Locale, dates
from markupsafe import Markup

from .. import metrics
from ..codec import dumps
from ..content.fields import BLOCK_TYPES
from ..model import Event, order_of

LATEST = 5  # headlines in the list of the latest; static/page.js keeps the same number


class Place(NamedTuple):
    """Where and in which language times are read."""

    timezone: str
    lang: str

    @classmethod
    def of(cls, page: dict[str, Any]) -> Place:
        return cls(page["timezone"], page["lang"])


def _local(at: str, place: Place) -> tuple[datetime, Locale]:
    zone = zoneinfo.ZoneInfo(place.timezone)
    return datetime.fromisoformat(at).astimezone(zone), Locale.parse(place.lang, sep="-")


def stamp(at: str, place: Place, length: Any = "medium") -> str:
    """An instant in the page's zone, with the zone's name at that instant: Jul 11, 2023, 11:53 AM EDT."""
    moment, locale = _local(at, place)
    time = dates.format_time(moment, "short", moment.tzinfo, locale).replace("\u202f", " ")
    # The abbreviation is the time zone database's: CLDR's has Dublin's summer and winter the wrong way round.
    zone = moment.tzname() or ""
    if not zone.isalpha():  # a zone without a name of its own, as -03
        zone = dates.get_timezone_gmt(moment, "long", locale)
    return f"{dates.format_date(moment, length, locale)}, {time} {zone}"


def zone_name(place: Place) -> str:
    """The zone's own name, whatever the season: Eastern Time."""
    area, _, name = place.timezone.rpartition("/")
    if area in ("", "Etc"):  # UTC and its like are no region's
        return name
    zone = zoneinfo.ZoneInfo(place.timezone)
    try:
        return dates.get_timezone_name(zone, "long", zone_variant="generic", locale=Locale.parse(place.lang, sep="-"))
    except KeyError:  # a language for which CLDR has no pattern to name a zone with
        return place.timezone.replace("_", " ")


def day_of(entry: dict[str, Any], place: Place) -> str:
    """The section that an entry stands in: its day in the page's zone, or the pinned ones."""
    if entry["flags"].get("pinned"):
        return "pinned"
    return _local(entry["sort_at"], place)[0].date().isoformat()


def _day_title(key: str, place: Place) -> str:
    if key == "pinned":
        return "Pinned"
    return dates.format_date(datetime.fromisoformat(key), "long", Locale.parse(place.lang, sep="-"))


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pushserver.page"), autoescape=True, undefined=jinja2.ChainableUndefined
)


@functools.lru_cache(maxsize=64)
def _parts(place: Place) -> Any:
    """The macros, with the filters that depend on the place."""
    environment = _TEMPLATES.overlay()
    environment.filters = {**_TEMPLATES.filters, "when": lambda at: stamp(at, place)}
    return environment.get_template("parts.html").module


@functools.lru_cache(maxsize=1024)
def entry(entry_json: str, place: Place) -> Markup:
    """An entry's list item. The same revision is rendered once, whoever asks for it."""
    fields = json.loads(entry_json)
    metrics.UNKNOWN_BLOCKS.inc(sum(block["type"] not in BLOCK_TYPES for block in fields["blocks"]))
    return Markup(_parts(place).entry(fields, order_of(fields)))


def _day(key: str, place: Place, entries: Markup) -> Markup:
    return Markup(_parts(place).day(key, _day_title(key, place), entries))


def parts(page: dict[str, Any], entries: Sequence[str], *, older: str | None) -> dict[str, Markup]:
    """Every part of a page by its element's id; `entries` are JSON in the page's order, `older` leads to the next."""
    place = Place.of(page)
    macros = _parts(place)
    fields = [json.loads(text) for text in entries]
    days = groupby(zip(entries, fields, strict=True), key=lambda pair: day_of(pair[1], place))
    sections = [_day(key, place, Markup("").join(entry(text, place) for text, _ in group)) for key, group in days]
    latest = [item for item in fields if item.get("headline")][:LATEST]
    return {
        **page_parts(page),
        "latest": Markup(macros.latest(latest)),
        "entries": Markup('<div id="entries">{}</div>').format(Markup("").join(sections)),
        "older": Markup('<p id="older"{}><a rel="next" href="{}">Older updates</a></p>').format(
            Markup("" if older else " hidden"), older or ""
        ),
    }


def page_parts(page: dict[str, Any]) -> dict[str, Markup]:
    """The parts that a page's own fields are shown in."""
    place = Place.of(page)
    macros = _parts(place)
    return {
        "header": Markup(macros.header(page, stamp(page["updated_at"], place, "long"))),
        "intro": Markup(macros.intro(page, zone_name(place))),
        "topics": Markup(macros.topics(page)),
    }


def page_head(page: dict[str, Any]) -> dict[str, Any]:
    """The fields of a page that stand outside its parts."""
    return {name: page[name] for name in ("rev", "headline", "timezone", "lang", "dir")}


def older_link(entries: Sequence[str]) -> str:
    """Where the entries after these are, in the order of the page: an address relative to the stream's own."""
    last = json.loads(entries[-1])
    return f"?before={order_of(last)}.{last['id']}"


def frame(event: Event, page: dict[str, Any]) -> dict[str, Any]:
    """The fields of an event's frame in the html format, `page` being as it was after the event.

    An event of a type that this version does not know keeps its own.
    """
    data: dict[str, Any] = json.loads(event.data)
    place = Place.of(page)
    match event.type:
        case "entry.put":
            fields = data["entry"]
            key = day_of(fields, place)
            updated = _parts(place).updated(page, stamp(page["updated_at"], place, "long"))
            data["entry"] = {name: fields[name] for name in ("id", "rev", "sort_at")}
            data["html"] = entry(dumps(fields), place)
            data["day"] = {"id": key, "html": _day(key, place, Markup(""))}
            data["parts"] = {"updated": updated}
        case "entry.withdraw":
            data["parts"] = {"updated": _parts(place).updated(page, stamp(page["updated_at"], place, "long"))}
        case "page.put" | "stream.end":
            data["page"] = page_head(page)
            data["parts"] = page_parts(page)
    return data


def preview(fields: dict[str, Any], page: dict[str, Any]) -> Markup:
    """The list item that an entry would be. It is not remembered: nobody else asks for it."""
    return entry.__wrapped__(dumps(fields), Place.of(page))


def content(fields: dict[str, Any], place: Place) -> Markup:
    """An entry's blocks and correction, without what surrounds them on a page."""
    return Markup(_parts(place).content(fields))


def page(
    stream: str, page: dict[str, Any], parts: dict[str, Markup], *, cursor: str, limit: int, newer: bool, **head: str
) -> str:
    """The whole page; `newer` where it is a slice of older entries, which does not go live. `head`: url, json_ld."""
    template = _TEMPLATES.get_template("page.html")
    return template.render(stream=stream, page=page, parts=parts, cursor=cursor, limit=limit, newer=newer, **head)


def entry_page(
    page: dict[str, Any], stream: str, *, entry_json: str | None, withdrawal: dict[str, Any] | None, **head: str
) -> str:
    """An entry's own page: the entry, or that it was withdrawn. `head`: url, json_ld."""
    place = Place.of(page)
    template = _TEMPLATES.get_template("entry.html")
    shown = entry(entry_json, place) if entry_json else None
    title = (json.loads(entry_json) if entry_json else withdrawal or {}).get("headline")
    when = stamp(withdrawal["at"], place) if withdrawal else None
    return template.render(stream=stream, page=page, entry=shown, title=title, withdrawal=withdrawal, when=when, **head)


def index(streams: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The list of the streams and their pages."""
    place = Place("UTC", "en")
    items = [
        {"stream": stream, "headline": page["headline"], "when": stamp(page["updated_at"], place)}
        for stream, page in streams
    ]
    return _TEMPLATES.get_template("index.html").render(streams=items)
