"""The words of the reader's page: every message in every catalog, and the words that the script says."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract
from markupsafe import Markup

from pushserver.page import words as module
from pushserver.page.words import LANGUAGES, preferred, words

PAGE = Path(module.__file__).parent


def messages() -> dict[str, tuple[str, ...]]:
    """Every message of the code and the templates, by its English text, with its plural if it has one."""
    names_of: list[Any] = []
    for path in sorted(PAGE.rglob("*")):
        if path.suffix == ".html":
            names_of += [names for _, _, names, _ in babel_extract(BytesIO(path.read_bytes()), ("_",), [], {})]
        elif path.suffix == ".py":
            code = BytesIO(path.read_bytes())
            names_of += [
                names for _, names, _, _ in extract("python", code, {"_": None, "say": None, "ngettext": (1, 2)})
            ]
    tuples = [(names,) if isinstance(names, str) else tuple(filter(None, names)) for names in names_of]
    return {names[0]: names for names in tuples}


def test_the_languages_are_these() -> None:
    assert {"en", "es", "fr", "de", "pt", "ar", "he", "hi", "ja", "uk"} <= set(LANGUAGES)


PLURALS = {"new", "corrected", "updates", "keys", "corrections", "readers"}


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_every_message_is_translated_with_the_same_variables(lang: str) -> None:
    catalog = read_po(BytesIO((PAGE / "locale" / f"{lang}.po").read_bytes()))
    translated = {
        message.id if isinstance(message.id, str) else message.id[0]: message for message in catalog if message.id
    }
    assert translated.keys() == messages().keys()
    for english, names in messages().items():
        texts = translated[english].string
        forms = [texts] if isinstance(texts, str) else [*(texts or ())]
        assert len(forms) == (1 if len(names) == 1 else catalog.num_plurals), english
        for text in forms:
            assert text.strip()
            assert sorted(re.findall(r"{\w*}", text)) == sorted(re.findall(r"{\w*}", english)), text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_script_has_a_form_for_every_number(lang: str) -> None:
    """Every plural category that Intl.PluralRules may name for a whole number is there."""
    said = json.loads(words(lang).script)
    locale = Locale.parse(lang)
    for number in (*range(1_000), 1_000_000, 1_000_001):
        for name in PLURALS:
            assert "{n}" in said[name][locale.plural_form(number)]
    assert {name for name, form in said.items() if isinstance(form, dict) and "other" in form} == PLURALS


def test_the_plurals_are_those_of_the_language() -> None:
    said = json.loads(words("uk").script)["new"]
    assert said["one"] == "{n} нове оновлення"
    assert said["few"] == "{n} нові оновлення"
    assert said["many"] == "{n} нових оновлень"
    assert set(json.loads(words("ar").script)["new"]) == {"zero", "one", "two", "few", "many", "other"}
    assert set(json.loads(words("ja").script)["new"]) == {"other"}


def test_a_language_without_a_catalog_has_english_words_and_its_own_lists() -> None:
    assert words("it").say("Pinned") == "Pinned"
    assert words("it").join(["Ada", "Ben"]) == "Ada e Ben"


def test_what_is_put_into_a_message_or_a_list_is_escaped_once() -> None:
    assert words("fr").say("Updated {time}", time="<b> & {x}") == "Mis à jour : &lt;b&gt; &amp; {x}"
    assert words("fr").say("Updated {time}", time=Markup("<b>1</b>")) == "Mis à jour : <b>1</b>"
    assert words("en").join(["<a>", Markup("<b>b</b>"), "{0} {1}"]) == "&lt;a&gt;, <b>b</b>, and {0} {1}"
    assert words("en").join([]) == ""


@pytest.mark.parametrize(
    ("field", "lang"),
    [
        ("", "en"),
        ("fr-CA, en;q=0.8", "fr"),
        ("en;q=0.5, de", "de"),
        ("zz, uk;q=0.1", "uk"),
        ("fr;q=0", "en"),
        ("*", "en"),
        ("fr;q=high,,;;;q=1", "en"),
        ("x," * 10_000, "en"),
    ],
)
def test_a_reader_is_answered_in_the_language_that_the_browser_prefers(field: str, lang: str) -> None:
    assert preferred(field) == lang
