from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib import resources
from zoneinfo import ZoneInfo

import pytest

from pushserver.page.zones import zone_name

ZONES = resources.files("tzdata").joinpath("zones").read_text("utf-8").split()
LANGUAGES = ["en", "en-GB", "de", "fr", "es", "pt-BR", "ar", "ja", "ru", "zh-Hans"]


@pytest.mark.parametrize(
    ("zone", "lang", "name"),
    [
        ("America/New_York", "en-US", "Eastern Time"),
        ("America/Indiana/Indianapolis", "en", "Eastern Time"),
        ("America/Kentucky/Louisville", "en", "Eastern Time"),
        ("US/East-Indiana", "en", "Eastern Time"),
        ("America/Argentina/Buenos_Aires", "en", "Argentina Time"),
        ("America/Argentina/ComodRivadavia", "en", "Argentina Time"),
        ("America/Los_Angeles", "en", "Pacific Time"),
        ("America/Indiana/Indianapolis", "de", "Nordamerikanische Ostküstenzeit"),
        ("Europe/Berlin", "fr", "heure d’Europe centrale"),
        ("Europe/London", "en", "British Time"),
        ("Asia/Tokyo", "en", "Japan Time"),
        ("Europe/Dublin", "en", "Irish Time"),
        ("Asia/Amman", "en", "Jordan Time"),
        ("Antarctica/Troll", "en", "Troll Station Time"),
        ("EST5EDT", "en", "Eastern Time"),
        ("CST6CDT", "en", "Central Time"),
        ("MST7MDT", "de", "Rocky-Mountains-Zeit"),
        ("PST8PDT", "en", "Pacific Time"),
        ("Factory", "en", "GMT+00:00"),
        ("Pacific/Port_Moresby", "en", "Papua New Guinea Time"),
        ("UTC", "de", "UTC"),
        ("Etc/UTC", "en", "UTC"),
        ("Zulu", "en", "UTC"),
        ("Etc/Greenwich", "en", "GMT"),
        ("Europe/London", "ru", "Британское время"),
        ("Asia/Amman", "ru", "Иордания"),
        ("Etc/GMT+5", "en", "GMT-05:00"),
    ],
)
def test_a_zone_is_named_for_the_whole_year_as_people_say(zone: str, lang: str, name: str) -> None:
    assert zone_name(zone, lang) == name


@pytest.mark.parametrize(
    "lang", [*LANGUAGES[:1], *(pytest.param(lang, marks=pytest.mark.full) for lang in LANGUAGES[1:])]
)
def test_no_zone_reads_like_a_path(lang: str) -> None:
    named = {zone: zone_name(zone, lang) for zone in ZONES}
    # German calls the time of Eucla Zentral-/Westaustralische Zeit.
    assert {zone: name for zone, name in named.items() if not name or re.search(r"\w/\w|[_%{}]", name)} == {}
    assert not lang.startswith("en") or not [name for name in named.values() if "(" in name]
    assert {zone for zone, name in named.items() if name == zone} <= {"UTC", "GMT"}


def test_only_a_zone_without_seasons_is_named_by_its_offset() -> None:
    seasons = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7)]
    for zone in ZONES:
        if re.search(r"[-+]\d\d:\d\d", zone_name(zone, "en")):
            assert len({season.astimezone(ZoneInfo(zone)).utcoffset() for season in seasons}) == 1, zone
