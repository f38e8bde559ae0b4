"""Names of time zones as people say them, in the language of a page. Pure.

The names are CLDR's, through Babel, which knows some zones by an older spelling of their identifier alone.
"""

from __future__ import annotations

import functools
import zoneinfo
from datetime import UTC, datetime
from typing import Any

from babel import Locale, dates
from babel.core import get_global

_UTC = frozenset("UTC UCT Universal Zulu Etc/UTC Etc/UCT Etc/Universal Etc/Zulu".split())
_GMT = frozenset("GMT GMT0 GMT+0 GMT-0 Greenwich Etc/GMT Etc/GMT0 Etc/GMT+0 Etc/GMT-0 Etc/Greenwich".split())
_SEASONS = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC))


@functools.lru_cache(maxsize=1024)
def zone_name(timezone: str, lang: str) -> str:
    """The name of a zone in every season: Eastern Time. A zone that has none is named by its city, or by its offset."""
    if timezone in _UTC or timezone in _GMT:
        return "UTC" if timezone in _UTC else "GMT"
    locale, spellings = Locale.parse(lang, sep="-"), _spellings(timezone)
    seasonless = len(set(_offsets(timezone))) == 1
    names = _names(locale, spellings)
    name = names.get("generic") or (names.get("standard") if seasonless else None)
    return name or _named_by_place(locale, spellings, timezone)


def _spellings(timezone: str) -> list[str]:
    """All identifiers of a zone, the one of today first."""
    aliases = get_global("zone_aliases")
    today = aliases.get(timezone, timezone)
    return [today, timezone, *(name for name, other in aliases.items() if other == today)]


def _offsets(timezone: str) -> list[Any]:
    zone = zoneinfo.ZoneInfo(timezone)
    return [season.astimezone(zone).utcoffset() for season in _SEASONS]


def _names(locale: Locale, spellings: list[str]) -> dict[str, str]:
    """The long names of the zones that share a clock with this one."""
    regions = get_global("meta_zones")
    for spelling in spellings:
        if spelling in regions:
            return dict(locale.meta_zones.get(regions[spelling], {}).get("long", {}))
    return {}


def _named_by_place(locale: Locale, spellings: list[str], timezone: str) -> str:
    """Such as Ireland Time where the country has one zone, Troll Time where not; an offset, such as for Etc/GMT+5."""
    area, _, last = spellings[0].rpartition("/")
    if not area or area == "Etc":
        return dates.get_timezone_gmt(_SEASONS[0].astimezone(zoneinfo.ZoneInfo(timezone)), "long", locale)
    # Babel has the format of Russian for summer time in the place of the one for all seasons.
    form = str(locale.zone_formats.get("region", "%s")) if locale.language != "ru" else "%s"
    if country := _country(locale, spellings):
        return form % country
    known = (locale.time_zones.get(spelling, {}).get("city") for spelling in spellings)
    city = next(filter(None, known), None) or last.replace("_", " ")
    return form % city.rpartition("/")[2]


def _country(locale: Locale, spellings: list[str]) -> str | None:
    """The name of the country of a zone, None where the country has other zones as well."""
    territories = (get_global("zone_territories").get(spelling) for spelling in spellings)
    territory = next(filter(None, territories), "ZZ")
    is_alone = len(get_global("territory_zones").get(territory, ())) == 1
    return locale.territories.get(territory) if is_alone and territory not in ("001", "ZZ") else None
