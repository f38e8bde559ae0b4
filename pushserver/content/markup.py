"""Sanitising: inline HTML by a list of tags, Markdown as blocks, plain text without control characters. Pure.

Nothing is removed silently: HTML that is not on the list is refused by name, so that an editor's text is never stored
as another one. nh3 cleans whatever passed, and its output is stored.
"""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

TAGS = {"a", "b", "br", "code", "em", "i", "s", "strong", "sub", "sup", "u"}
LINK_SCHEMES = {"http", "https", "mailto"}
LINK_REL = "noopener noreferrer"
_REL = f' rel="{LINK_REL}"'

# C0 and C1 controls but for tab and newline; the bidi embeddings, overrides and isolates (UAX 9) that can make a
# headline read as something else; surrogates, which cannot be written as UTF-8, and the two that XML cannot hold.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

_CLEANER = nh3.Cleaner(tags=TAGS, attributes={"a": {"href"}}, url_schemes=LINK_SCHEMES, link_rel=LINK_REL)


class Unsafe(ValueError):
    """A text that is refused, with what was expected and what came."""

    def __init__(self, expected: str, got: str) -> None:
        got = got.strip() or "an empty string"
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got


def plain(text: str) -> str:
    """Plain text in NFC, without spaces at its ends. Raises Unsafe where it has a control character."""
    match = _CONTROLS.search(text)
    if match:
        raise Unsafe("text without control or bidi override characters", f"U+{ord(match.group()):04X}")
    return unicodedata.normalize("NFC", text).strip()


def length(html: str) -> int:
    """The number of characters of inline HTML, without those that cleaning adds to each link."""
    return len(html) - len(_REL) * html.count(_REL)


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


class _Scan(HTMLParser):
    """The start tags, the text, and the comments and declarations of a fragment, by a parser that is not nh3's."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.others: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


def inline(html: str) -> str:
    """Inline HTML of the listed tags, cleaned. Raises Unsafe, which names what is not on the list."""
    html = plain(html)
    before = _Scan(html)
    for tag, attributes in before.tags:
        _check_tag(tag, attributes)
    if before.others or re.search(r"</(?![A-Za-z])", html):
        raise Unsafe("no comment or declaration in HTML", before.others[0] if before.others else "</")
    cleaned = _CLEANER.clean(html)
    after = _Scan(cleaned)
    if [tag for tag, _ in before.tags] != [tag for tag, _ in after.tags] or before.text != after.text:
        raise Unsafe("well-formed inline HTML, which every parser reads alike", html)
    if not after.text.strip():
        raise Unsafe("some text", html)
    # &#8238; is a control character by now, and an export of the stored text has to be valid.
    if plain(cleaned) != cleaned or _CLEANER.clean(cleaned) != cleaned:
        raise Unsafe("characters that need no reference, and no space at the ends", html)
    return cleaned


def _check_tag(tag: str, attributes: list[tuple[str, str | None]]) -> None:
    if tag not in TAGS:
        raise Unsafe(f"inline HTML of {', '.join(sorted(TAGS))}", f"<{tag}>")
    for name, value in attributes:
        if (tag, name) == ("a", "href"):
            link(value or "")
        elif (tag, name) != ("a", "rel"):
            raise Unsafe("no attribute but href on a link", f"<{tag} {name}>")
    if tag == "a" and "href" not in dict(attributes):
        raise Unsafe("a link with its href", "<a>")


def text(html: str) -> str:
    """The text of inline HTML, with a space for each line break."""
    return _Scan(html.replace("<br>", " ")).text


_MARKDOWN = MarkdownIt("commonmark", {"html": True})
# markdown-it would show a link with a bad scheme as brackets; here it becomes a link, and is refused by name.
_MARKDOWN.validateLink = lambda url: True  # type: ignore[method-assign]


def blocks(markdown: str) -> list[dict[str, Any]]:
    """Markdown (CommonMark) as blocks, whose HTML is still to be cleaned. Raises Unsafe for what no block has."""
    converted: list[dict[str, Any]] = []
    tokens = _MARKDOWN.parse(markdown)
    at = 0
    while at < len(tokens):
        end = _close_of(tokens, at)
        block = _block(tokens[at], tokens[at + 1 : end])
        if block:
            converted.append(block)
        at = end + 1
    return converted


def _close_of(tokens: list[Token], at: int) -> int:
    """The index of the token that closes the one at `at`, or `at` where that one has no end token."""
    depth = 0
    for index in range(at, len(tokens)):
        depth += tokens[index].nesting
        if depth == 0:
            return index
    raise AssertionError("markdown-it left a token open")


def _block(head: Token, inside: list[Token]) -> dict[str, Any] | None:
    match head.type:
        case "paragraph_open":
            return {"type": "paragraph", "html": _html(inside)}
        case "heading_open":
            return {"type": "heading", "text": _heading(_html(inside))}
        case "blockquote_open":
            return {"type": "quote", "html": _html(inside)}
        case "bullet_list_open" | "ordered_list_open":
            return {"type": "list", "ordered": head.type == "ordered_list_open", "items": _items(inside)}
        case "fence" | "code_block":
            lines = escapeHtml(head.content.rstrip("\n")).split("\n")
            return {"type": "paragraph", "html": f"<code>{'<br>'.join(lines)}</code>"}
        case "html_block":
            return {"type": "paragraph", "html": head.content}
        case _:  # a thematic break: blocks need no other separator
            return None


def _heading(html: str) -> str:
    """The plain text of a heading, without emphasis. Raises Unsafe for a link, which would be lost."""
    scan = _Scan(inline(html).replace("<br>", " "))
    if any(tag == "a" for tag, _ in scan.tags):
        raise Unsafe("headings without links", "a link in a heading")
    return scan.text


def _items(inside: list[Token]) -> list[str]:
    items = []
    at = 0
    while at < len(inside):
        end = _close_of(inside, at)
        items.append(_html(inside[at + 1 : end]))
        at = end + 1
    return items


def _html(inside: list[Token]) -> str:
    """The inline HTML of the paragraphs in a block, joined by line breaks."""
    lines = []
    for token in inside:
        if token.type == "inline":
            children = token.children or []
            if any(child.type == "image" for child in children):
                raise Unsafe("pictures as image blocks, with size, alt, caption and credit", "an image in Markdown")
            lines.append(_MARKDOWN.renderer.render([token], _MARKDOWN.options, {}).replace("<br />", "<br>"))
        elif token.type not in ("paragraph_open", "paragraph_close"):
            raise Unsafe(
                "paragraphs and flat lists", f"{token.type.removesuffix('_open').replace('_', ' ')} inside a block"
            )
    return "<br>".join(lines)
