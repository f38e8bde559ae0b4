"""Plain text: a text as it is stored, or a refusal that names the character which no text may have. Pure.

The work is linear in the length of the text, whatever its characters are.
"""

from __future__ import annotations

import re
import unicodedata

COMBINING_LIMIT = 30  # combining marks on one character, as in the Stream-Safe Text Format (UAX 15, section 13)


class Unsafe(ValueError):
    """A text that is refused, with what was expected and what came."""

    def __init__(self, expected: str, got: str) -> None:
        got = got.strip() or "an empty string"
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got


# C0 and C1 controls but for tab and newline; the bidi embeddings and overrides (UAX 9) that can make a headline read as
# something else; surrogates, which cannot be written as UTF-8, and the two that XML cannot hold.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff\ufffe\uffff]")
_ISOLATES = re.compile("[\u2066-\u2069]")
_END_OF_ISOLATE = "\u2069"


def _marks() -> str:
    """The characters that normalisation sorts, as the members of a class: the last is in Unicode 15 U+1E94A."""
    marks = (chr(code) for code in range(0x300, 0x1E94B) if unicodedata.combining(chr(code)))
    return (
        "".join(marks) + "\u0f73\u0f75\u0f81"
    )  # these three are not sorted themselves, and decompose to ones that are


# Normalisation sorts the marks on a character, in time that grows with the square of their number.
_COMBINING = frozenset(_marks())
# A class of the marks themselves takes a hundred times as long, as they lie far apart.
_HIGH_RUN = re.compile(f"[\u0300-\U0010ffff]{{{COMBINING_LIMIT + 1},}}")


def plain(text: str) -> str:
    """Plain text as `normal` has it, without spaces at its ends. Raises Unsafe."""
    return normal(text).strip()


def normal(text: str) -> str:
    """Text in NFC, with `\\n` as its line end.

    Raises Unsafe where it has a control character, a bidi isolate without its end (UAX 9), or more than COMBINING_LIMIT
    combining marks on one character.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        _check_controls(text)
        return text
    _check_controls(text)
    _check_isolates(text)
    _check_combining(text)
    return unicodedata.normalize("NFC", text)


def _check_controls(text: str) -> None:
    match = _CONTROLS.search(text)
    if match:
        raise Unsafe("text without control or bidi override characters", f"U+{ord(match.group()):04X}")


def _check_combining(text: str) -> None:
    for match in _HIGH_RUN.finditer(text):
        run = ""
        for character in match[0]:
            run = run + character if character in _COMBINING else ""
            if len(run) > COMBINING_LIMIT:
                expected = f"at most {COMBINING_LIMIT} combining marks on a character"
                raise Unsafe(expected, f"more from U+{ord(run[0]):04X} on")


def _check_isolates(text: str) -> None:
    """Raises Unsafe where an isolate has no end: it would order the text after it as well."""
    openings: list[str] = []
    for character in _ISOLATES.findall(text):
        if character != _END_OF_ISOLATE:
            openings.append(character)
        elif openings:
            openings.pop()
        else:
            raise Unsafe("a bidi isolate before its end, U+2069", "U+2069")
    if openings:
        raise Unsafe("the end of each bidi isolate, U+2069", f"U+{ord(openings[0]):04X}")


# Characters of other categories that show nothing: the fillers of Hangul, the blank pattern of Braille, a note of music
# and the blanks of hieroglyphs.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159\U00013441\U00013442")
_UNSEEN = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me"))
_RESERVED = re.compile("[\u2065\ufff0-\ufff8\U000e0000-\U000e0fff]")  # default ignorable code points (UAX 44)


def shows(text: str) -> bool:
    """Whether a reader sees something of a text: more than spaces, format characters, and marks on nothing."""
    return any(
        unicodedata.category(character) not in _UNSEEN and character not in _BLANK and not _RESERVED.match(character)
        for character in text
    )


def visible(text: str) -> str:
    """Returns the text if it shows something. Raises Unsafe."""
    if not shows(text):
        raise Unsafe("text that shows something", " ".join(f"U+{ord(each):04X}" for each in text[:8]) or "only spaces")
    return text
