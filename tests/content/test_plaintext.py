from __future__ import annotations

import unicodedata

import pytest

from pushserver.content import plaintext


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a", "a"),
        ("", ""),
        ("  a  ", "a"),
        ("\u00a0a\n", "a"),
        ("a\tb\nc", "a\tb\nc"),
        ("<script>alert(1)</script> & \"co\" 'd'", "<script>alert(1)</script> & \"co\" 'd'"),
        ("e\u0301", "é"),
        ("\u212b", "Å"),
        ("ﬁ", "ﬁ"),
        ("日本語 עברית \u200fא\u200e", "日本語 עברית \u200fא\u200e"),
        ("👩\u200d🚒", "👩\u200d🚒"),
    ],
)
def test_plain_text_is_kept_as_it_is_but_composed_and_trimmed(text: str, stored: str) -> None:
    assert plaintext.plain(text) == stored


C0_AND_C1 = [chr(code) for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"]
SURROGATES = list("\ud800\udbff\udc00\udfff")
BIDI = list("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the last four are isolates without a partner


@pytest.mark.parametrize("character", [*C0_AND_C1, *BIDI, *SURROGATES, "\ufffe", "\uffff"], ids=ascii)
@pytest.mark.parametrize("place", ["{}", "a{}b", "{}b", "a{}"])
def test_controls_bidi_overrides_and_no_characters_are_refused_by_their_number(character: str, place: str) -> None:
    with pytest.raises(plaintext.Unsafe) as refused:
        plaintext.plain(place.format(character))
    assert refused.value.got == f"U+{ord(character):04X}"
    assert refused.value.expected


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a\r\n\r\nb", "a\n\nb"),
        ("a\rb", "a\nb"),
        ("a\r\r\nb\r", "a\n\nb"),
        ("é\r\nb", "é\nb"),
    ],
)
def test_every_end_of_a_line_is_a_newline(text: str, stored: str) -> None:
    assert plaintext.plain(text) == stored


@pytest.mark.parametrize("text", ["\u2068Ada\u2069 won", "\u2066a\u2067b\u2069c\u2069", "\u2068a\u2069\u2068b\u2069"])
def test_isolates_that_end_are_text(text: str) -> None:
    assert plaintext.plain(text) == text


@pytest.mark.parametrize("text", ["\u2069a\u2068", "\u2068\u2068a\u2069", "\u2068a\u2069\u2069", "a\u2067"])
def test_isolates_that_do_not_end_in_the_text_are_refused(text: str) -> None:
    with pytest.raises(plaintext.Unsafe, match="isolate"):
        plaintext.plain(text)


@pytest.mark.parametrize("mark", ["\u0301", "\u0323\u0301", "\u0f73", "\u3099", "\U0001e94a"], ids=ascii)
def test_a_character_has_no_more_marks_than_normalisation_can_sort(mark: str) -> None:
    """Normalisation takes seconds for 50,000 marks on one character: the square of their number."""
    most = mark * (plaintext.COMBINING_LIMIT // len(mark))
    assert plaintext.plain(f"x{most} y{most}")
    with pytest.raises(plaintext.Unsafe, match="at most 30 combining marks"):
        plaintext.plain(f"x{most}{mark}")


def test_every_character_that_normalisation_sorts_is_a_mark() -> None:
    for code in range(0x110000):
        if unicodedata.combining(unicodedata.normalize("NFD", chr(code))[0]):
            with pytest.raises(plaintext.Unsafe):
                plaintext.plain("x" + chr(code) * 31)


BLANK = [
    "\u200b",
    "\u2800",
    "\u3164",
    "\u115f\u1160",
    "\uffa0",
    "\u0301",
    "\ufeff",
    "\u00ad",
    "\u034f",
    "\ufe0f",
    "\u2060",
    "\U0001d159",
    "\U00013441",
]


@pytest.mark.parametrize("text", [*BLANK, "".join(BLANK), " \n", "\u2068\u2069", "\U000e0041", "\u2065"], ids=ascii)
def test_text_that_shows_nothing_is_refused(text: str) -> None:
    with pytest.raises(plaintext.Unsafe) as refused:
        plaintext.visible(text)
    assert refused.value.expected == "text that shows something"


@pytest.mark.parametrize("text", ["a", "\u200ba", "é", "e\u0301", "👩\u200d🚒", "—", "日", "\u0e33"], ids=ascii)
def test_text_that_shows_one_character_is_text(text: str) -> None:
    assert plaintext.visible(text) == text
