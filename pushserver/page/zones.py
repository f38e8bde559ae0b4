"""Names of time zones as people say them, in the language of a page. Pure.

The names are CLDR's, through Babel.
"""

from __future__ import annotations

import functools
import zoneinfo
from datetime import UTC, datetime

from babel import Locale, dates
from babel.core import get_global

# CLDR spells these out, and readers know them by these letters.
_OF_ALL_LANGUAGES = {"Etc/UTC": "UTC", "Etc/GMT": "GMT"}
# The time zone database has made these links since 2024b, and CLDR has no names for them: they would be named by their
# offset in winter, all the year.
_LINKS = {
    "EST5EDT": "America/New_York",
    "CST6CDT": "America/Chicago",
    "MST7MDT": "America/Denver",
    "PST8PDT": "America/Los_Angeles",
}
_SEASONS = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC))


@functools.lru_cache(maxsize=1024)
def zone_name(timezone: str, lang: str) -> str:
    """The name of a zone in every season: Eastern Time. A zone that has none is named by its city, or by its offset."""
    zone = get_global("zone_aliases").get(timezone) or _LINKS.get(timezone, timezone)
    # CLDR also knows identifiers that the time zone database does not.
    clock, locale = zoneinfo.ZoneInfo(timezone), Locale.parse(lang, sep="-")
    return _OF_ALL_LANGUAGES.get(zone) or _shared_name(locale, zone, clock) or _named_by_place(locale, zone, clock)


def _shared_name(locale: Locale, zone: str, clock: zoneinfo.ZoneInfo) -> str | None:
    """The long name of all zones that share a clock with this one."""
    names = locale.meta_zones.get(get_global("meta_zones").get(zone), {}).get("long", {})
    seasonless = len({season.astimezone(clock).utcoffset() for season in _SEASONS}) == 1
    return names.get("generic") or (names.get("standard") if seasonless else None)


def _named_by_place(locale: Locale, zone: str, clock: zoneinfo.ZoneInfo) -> str:
    """Such as Jordan Time where the country has one zone, Troll Time where not; an offset, such as for Etc/GMT+5."""
    area, _, last = zone.rpartition("/")
    if not area or area == "Etc":
        return dates.get_timezone_gmt(_SEASONS[0].astimezone(clock), "long", locale)
    # Babel has the format of Russian for summer time in the place of the one for all seasons.
    form = str(locale.zone_formats.get("region", "%s")) if locale.language != "ru" else "%s"
    city = locale.time_zones.get(zone, {}).get("city") or last.replace("_", " ")
    return form % (_country(locale, zone) or city.rpartition("/")[2])


def _country(locale: Locale, zone: str) -> str | None:
    """The name of the country of a zone, None where the country has other zones as well."""
    territory = get_global("zone_territories").get(zone, "ZZ")
    is_alone = len(get_global("territory_zones").get(territory, ())) == 1
    return locale.territories.get(territory) if is_alone and territory not in ("001", "ZZ") else None
