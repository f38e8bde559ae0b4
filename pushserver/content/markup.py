"""Inline HTML by a list of tags, and the addresses in it. Pure.

Nothing is removed silently: HTML that is not on the list is refused by name, so that an editor's text is never stored
as another one. A scan of our own comes first, in linear time; nh3 cleans what passed, and its output is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import urlsplit

import nh3

from .plaintext import Unsafe, plain, shows

TAGS = {"a", "b", "br", "code", "em", "i", "s", "strong", "sub", "sup", "u"}
LINK_SCHEMES = {"http", "https", "mailto"}
LINK_REL = "noopener noreferrer"
LINK_LIMIT = 2_000  # characters of an address
DEPTH_LIMIT = 16  # tags in one another
_REL = f' rel="{LINK_REL}"'
_LISTED = f"inline HTML of {', '.join(sorted(TAGS))}, or <p> without attributes around all of it"

_CLEANER = nh3.Cleaner(tags=TAGS, attributes={"a": {"href"}}, url_schemes=LINK_SCHEMES, link_rel=LINK_REL)


def length(html: str) -> int:
    """The number of characters of inline HTML, without those that cleaning adds to each link."""
    return len(html) - len(_REL) * html.count(_REL)


# --- addresses


def link(url: str) -> str:
    """An absolute http, https or mailto URL. Raises Unsafe."""
    return _address(url, LINK_SCHEMES, "an absolute http, https or mailto URL")


def source(url: str) -> str:
    """The address of a picture: an absolute http or https URL, or a path of the server. Raises Unsafe."""
    if re.fullmatch(r"/(?![/\\])[^\s\\]*", url):
        return plain(url)
    return _address(url, LINK_SCHEMES - {"mailto"}, "an http or https URL, or a path that begins with /")


def _address(url: str, schemes: set[str], expected: str) -> str:
    address = plain(url)
    if len(address) > LINK_LIMIT:
        raise Unsafe(f"an address of at most {LINK_LIMIT} characters", url)
    try:
        parts = urlsplit(address)
        # https://bank.example@evil.example would be read as a link to bank.example.
        has_host = bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # not a URL, such as http://[x or http://x:y
        raise Unsafe(expected, url) from None
    if parts.scheme == "mailto":
        has_host = not parts.netloc and "@" in parts.path
    if parts.scheme not in schemes or not has_host or re.search(r"[\s\\]", address):
        raise Unsafe(expected, url)
    return address


# --- inline HTML

_NAME = re.compile(r"<([A-Za-z][^\s/>]*+)")
_END = re.compile(r"</([A-Za-z][^\s/>]*+)\s*+>")
_ATTRIBUTE = re.compile(r"""[\s/]*+([^\s/>=]++)(?:\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s"'<>`]++))?+""")
_CLOSE = re.compile(r"\s*+(/?)>")
_LONG_NUMBER = re.compile("&#(?:[0-9]{9}|[xX][0-9a-fA-F]{9})")


class _Scan:
    """The start tags and the text of a fragment, read once from left to right by a grammar in which every tag ends.

    Raises Unsafe, which names the first tag, attribute or declaration that is not of the grammar.
    """

    def __init__(self, html: str) -> None:
        self.tags: list[str] = []
        self._texts: list[str] = []
        self._open: list[str] = []
        self._html = html
        at = 0
        while (tag := html.find("<", at)) >= 0:
            self._texts.append(html[at:tag])
            at = self._read(tag)
        self._texts.append(html[at:])
        if self._open:
            raise Unsafe(f"</{self._open[-1]}> after <{self._open[-1]}>", "the end of the text")

    @property
    def text(self) -> str:
        """The text between the tags, with its character references resolved."""
        return "".join(map(_unescape, self._texts))

    def _read(self, at: int) -> int:
        """Read what begins with `<`, and return the place after it."""
        following = self._html[at + 1 : at + 2]
        if following == "/":
            return self._read_end(at)
        if following in ("!", "?"):
            raise Unsafe("no comment or declaration in HTML", self._html[at:])
        if name := _NAME.match(self._html, at):
            return self._read_start(name)
        self._texts.append("<")
        return at + 1

    def _read_start(self, name: re.Match[str]) -> int:
        tag, at = name[1].lower(), name.end()
        if tag not in TAGS:
            raise Unsafe(_LISTED, f"<{tag}>")
        names: set[str] = set()
        while match := _ATTRIBUTE.match(self._html, at):
            _check_attribute(tag, match[1].lower(), names, match[2])
            names.add(match[1].lower())
            at = match.end()
        close = _CLOSE.match(self._html, at)
        if not close or (close[1] and tag != "br"):
            raise Unsafe(f"<{tag}> that ends with >", self._html[name.start() : at + 1])
        if tag == "a" and "href" not in names:
            raise Unsafe("a link with its href", "<a>")
        self._enter(tag)
        return close.end()

    def _enter(self, tag: str) -> None:
        self.tags.append(tag)
        if tag == "br":
            return
        if tag == "a" and "a" in self._open:
            raise Unsafe("no link inside a link", "<a>")
        if len(self._open) == DEPTH_LIMIT:
            raise Unsafe(f"at most {DEPTH_LIMIT} tags inside one another", f"<{tag}>")
        self._open.append(tag)

    def _read_end(self, at: int) -> int:
        end = _END.match(self._html, at)
        if not end:
            raise Unsafe("an end tag without anything but its name", self._html[at : at + 20])
        expected = self._open.pop() if self._open else None
        if end[1].lower() != expected:
            raise Unsafe(f"</{expected}>" if expected else "an end tag after its start tag", f"</{end[1]}>")
        return end.end()


def _check_attribute(tag: str, name: str, names: set[str], value: str | None) -> None:
    if name in names:
        raise Unsafe("each attribute once", f"<{tag} {name} {name}>")
    if (tag, name) == ("a", "href"):
        link(_unescape(value[1:-1] if value and value[0] in "\"'" else value or ""))
    elif (tag, name) != ("a", "rel"):
        raise Unsafe("no attribute but href on a link", f"<{tag} {name}>")


def _checked_number(text: str) -> str:
    """Returns the text. Raises Unsafe where a character reference has more digits than a character's number."""
    match = _LONG_NUMBER.search(text)
    if match:
        raise Unsafe("a character reference of at most 8 digits", match[0])
    return text


def _unescape(text: str) -> str:
    return unescape(_checked_number(text)) if "&" in text else text


def inline(html: str) -> str:
    """Inline HTML of the listed tags, cleaned; paragraphs around all of it become lines. Raises Unsafe."""
    return "<br>".join(map(_clean, paragraphs(plain(html))))


_PARAGRAPHS = re.compile(r"<p\s*+>(.*)</p\s*+>", re.DOTALL | re.IGNORECASE)
_BETWEEN = re.compile(r"</p\s*+>\s*+<p\s*+>", re.IGNORECASE)


def paragraphs(html: str) -> list[str]:
    """The inline HTML of each `<p>` that HTML consists of; the HTML itself where it has none around it."""
    around = _PARAGRAPHS.fullmatch(html.strip())
    return [part.strip() for part in _BETWEEN.split(around[1])] if around else [html]


def _clean(html: str) -> str:
    if not re.search("[<>&\xa0]", html):  # nh3 changes nothing else
        return _shown(html, html)
    before = _Scan(html)
    cleaned = _CLEANER.clean(html)
    after = _Scan(cleaned)
    text = before.text
    if before.tags != after.tags or text != after.text:
        raise Unsafe("well-formed inline HTML, which every parser reads alike", html)
    # &#8238; is a control character by now, and an export of the stored text has to be valid.
    if plain(cleaned) != cleaned or _CLEANER.clean(cleaned) != cleaned:
        raise Unsafe("characters that need no reference, and no space at the ends", html)
    return _shown(cleaned, text)


def _shown(html: str, text: str) -> str:
    if not shows(text):
        raise Unsafe("text that shows something", html[:40].encode("ascii", "backslashreplace").decode())
    return html


_TAG = re.compile(r'<[A-Za-z/][^<>"]*+(?:"[^"]*+"[^<>"]*+)*+>')


def text(html: str) -> str:
    """The text of inline HTML that is stored, with a space for each line break."""
    return unescape(_TAG.sub("", html.replace("<br>", " ")))


# --- bare addresses

_BARE = re.compile(r"(?<![^\s*_~(])(?:https?://|www\.)[^\s<]++", re.IGNORECASE)


def bare_links(text: str) -> Iterator[tuple[int, int, str]]:
    """The beginning, the end and the address of each bare link in a text.

    They are found as GitHub Flavored Markdown (6.9) finds them: http and https, and www. as http. What would be refused
    as a link is none.
    """
    for match in _BARE.finditer(text):
        shown = _trimmed(match[0])
        address = f"http://{shown}" if shown[:4].lower() == "www." else shown
        try:
            yield match.start(), match.start() + len(shown), link(address)
        except Unsafe:
            continue


def _trimmed(url: str) -> str:
    """An address without the punctuation of the sentence around it."""
    unmatched = url.count(")") - url.count("(")
    end = len(url)
    while end:
        if url[end - 1] in "?!.,:*_~'\";":
            end -= 1
        elif url[end - 1] == ")" and unmatched > 0:
            unmatched -= 1
            end -= 1
        else:
            break
    return url[:end]
