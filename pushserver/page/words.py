"""The words of the reader's page, in the languages of the catalogs `locale/*.po`; the English ones stand in the code.

A page in another language has English words, and dates, lists and names of time zones in its own language. Pure.
"""

from __future__ import annotations

import functools
import gettext
import io
import json
from collections.abc import Iterable
from importlib import resources
from typing import Any

from babel import Locale, UnknownLocaleError, lists, negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from markupsafe import Markup, escape

ACCEPTED = 16  # languages of an Accept-Language field that are looked at
ORDINALS = (*range(200), 1_000_000)  # numbers that have every plural category that a whole number can have


def _load() -> dict[str, gettext.NullTranslations]:
    catalogs: dict[str, gettext.NullTranslations] = {"en": gettext.NullTranslations()}
    for file in resources.files(__package__).joinpath("locale").iterdir():
        if file.name.endswith(".po"):
            compiled = io.BytesIO()
            write_mo(compiled, read_po(io.BytesIO(file.read_bytes())))
            compiled.seek(0)
            catalogs[file.name.removesuffix(".po")] = gettext.GNUTranslations(compiled)
    return catalogs


_CATALOGS = _load()
LANGUAGES = tuple(sorted(_CATALOGS))


class Words:
    """Words are those of one language. Text that is put into them is escaped, unless it is Markup."""

    def __init__(self, lang: str) -> None:
        self.locale = Locale.parse(lang, sep="-")
        self._catalog = _CATALOGS.get(self.locale.language, _CATALOGS["en"])

    def say(self, message: str, **values: Any) -> Markup:
        """The translation of a message, with the values in the place of their names in braces."""
        return escape(self._catalog.gettext(message)).format(**values)

    def join(self, parts: Iterable[Any]) -> Markup:
        """A list as one text: Ada, Ben and Cy."""
        escaped = [escape(part) for part in parts]
        names = [f"\x00{number}\x00" for number in range(len(escaped))]  # no text has this character
        text = escape(lists.format_list(names, locale=self.locale)) if names else Markup("")
        for name, part in zip(names, escaped, strict=True):
            text = Markup(str(text).replace(name, part))
        return text

    @functools.cached_property
    def script(self) -> str:
        """The words that the page's script says, as JSON by name; a count has a form for each plural category."""
        plain = {name: self._catalog.gettext(message) for name, message in _script_messages()}
        return json.dumps(
            {**plain, **{name: self._plural(*forms) for name, forms in _script_plurals()}}, ensure_ascii=False
        )

    def _plural(self, one: str, other: str) -> dict[str, str]:
        """The forms of a plural by the category that Intl.PluralRules names."""
        forms: dict[str, str] = {}
        for number in ORDINALS:
            forms.setdefault(self.locale.plural_form(number), self._catalog.ngettext(one, other, number))
        forms.setdefault("other", self._catalog.ngettext(one, other, 5))  # of fractions, which nothing is counted in
        return forms


@functools.lru_cache(maxsize=256)
def words(lang: str) -> Words:
    """The words of a language, by its tag."""
    return Words(lang)


def preferred(accept_language: str) -> str:
    """The language of the catalogs that a reader prefers, by the value of an Accept-Language field; else English."""
    weighted = []
    for part in accept_language.split(",")[:ACCEPTED]:
        tag, _, weight = part.partition(";q=")
        try:
            weighted.append((float(weight or 1), tag.strip()))
        except ValueError:
            continue
    tags = [tag for weight, tag in sorted(weighted, key=lambda pair: -pair[0]) if weight > 0]
    try:
        return negotiate_locale([tag.partition("-")[0] for tag in tags], LANGUAGES) or "en"
    except (ValueError, UnknownLocaleError):
        return "en"


def _script_messages() -> list[tuple[str, str]]:
    def _(message: str) -> str:
        return message

    return [
        ("connecting", _("Connecting…")),
        ("live", _("Live")),
        ("behind", _("Catching up…")),
        ("waiting", _("Reconnecting…")),
        ("offline", _("Offline – showing {time}")),
        ("stale", _("Updates are delayed since {time}")),
        ("buffered", _("Updates come late: something on the way here holds them back")),
        ("ended", _("This page is no longer updating")),
        ("token", _("Sign in again to go on")),
        ("refused", _("You may not read this page")),
        ("unknown", _("There are no live updates for this page")),
        ("deleted", _("This page has been taken down")),
        ("auto", _("Show new updates automatically")),
        ("zone", _("Show my time")),
        ("latest", _("Latest: {what}")),
        ("since", _("Since you left: {what}")),
        ("copied", _("Link copied")),
    ]


def _script_plurals() -> list[tuple[str, tuple[str, str]]]:
    def ngettext(one: str, other: str) -> tuple[str, str]:
        return one, other

    return [
        ("new", ngettext("{n} new update", "{n} new updates")),
        ("corrected", ngettext("{n} update you read was corrected", "{n} updates you read were corrected")),
        ("updates", ngettext("{n} update", "{n} updates")),
        ("keys", ngettext("{n} key event", "{n} key events")),
        ("corrections", ngettext("{n} correction", "{n} corrections")),
        ("readers", ngettext("{n} reader now", "{n} readers now")),
    ]
