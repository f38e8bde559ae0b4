"""Markdown as blocks: CommonMark with tables, strikethrough and bare links of GitHub Flavored Markdown. Pure.

What no block can show is refused by name; what is lost of a block's look is a warning. markdown-it takes about 25
microseconds for each mark and each line, so they are counted before it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_block.table import escapedSplit
from markdown_it.token import Token

from . import markup
from .plaintext import Unsafe

LINE_LIMIT = 1_000
MARK_LIMIT = 2_000  # characters and beginnings of links that may be markup
CELL_LIMIT = 4_000  # pipes
QUOTE_LIMIT = 8  # quotes in one another
LIST_LIMIT = 3  # lists in one another

_MARKS = ("\\", "`", "*", "_", "[", "]", "<", ">", "&", "!", "~", "://", "www.")
_QUOTES = re.compile(rf"^[ ]{{0,3}}(?:>[ ]?){{{QUOTE_LIMIT + 1}}}", re.MULTILINE)

_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# markdown-it would show a link with a bad scheme as brackets; here it becomes a link, and is refused by name.
_MARKDOWN.validateLink = lambda url: True  # type: ignore[method-assign]
# Text ends where markup may begin. By default it ends at each # $ % + - : = @ ^ { } as well, for rules that are not in
# use: 49,000 of them would take a tenth of a second.
_MARKDOWN.inline.terminator_re = re.compile(r"[\n!&*<\[\\\]_`~]")

Block = dict[str, Any]


class Loss(NamedTuple):
    """Loss is a part of Markdown that no block keeps: `expected` is what a block can show, `got` what was there."""

    expected: str
    got: str


class Converted(NamedTuple):
    """Converted is Markdown as blocks, whose HTML is still to be cleaned, and what the blocks do not keep of it."""

    blocks: list[Block]
    losses: list[Loss]


def blocks(markdown: str) -> Converted:
    """Markdown as blocks. Raises Unsafe for what no block has, and for more marks, lines or nesting than the limits."""
    check_work(markdown)
    env: dict[str, Any] = {}
    reading = _Reading(markdown.split("\n"), _MARKDOWN.parse(markdown, env))
    made = reading.blocks()
    return Converted(made, [*reading.losses, *_unused(env.get("references", {}), made)])


def check_work(markdown: str) -> None:
    """Raises Unsafe where a text has more lines, marks or nested quotes than one entry may have."""
    counts = (
        ("lines", LINE_LIMIT, markdown.count("\n") + 1),
        ("marks of Markdown", MARK_LIMIT, sum(map(markdown.count, _MARKS))),
        ("pipes of tables", CELL_LIMIT, markdown.count("|")),
    )
    for name, limit, count in counts:
        if count > limit:
            raise Unsafe(f"at most {limit} {name}", str(count))
    if _QUOTES.search(markdown):
        raise Unsafe(f"at most {QUOTE_LIMIT} quotes inside one another", "more")


def _unused(references: dict[str, dict[str, str]], made: list[Block]) -> Iterator[Loss]:
    """The definitions of links that no link uses: nothing is shown of them."""
    shown = str(made) if references else ""
    for label, reference in references.items():
        if escapeHtml(reference["href"]) not in shown:
            yield Loss("a definition that a link uses", f"[{label.lower()}]: {reference['href']}")


class _Reading:
    """The tokens of markdown-it as blocks, and what is lost on the way."""

    def __init__(self, lines: list[str], tokens: list[Token]) -> None:
        self._lines = lines
        self._tokens = tokens
        self.losses: list[Loss] = []

    def blocks(self) -> list[Block]:
        return [block for head, inside in _parts(self._tokens) for block in self._block(head, inside)]

    def _block(self, head: Token, inside: list[Token]) -> list[Block]:
        match head.type:
            case "paragraph_open":
                return [{"type": "paragraph", "html": _html(inside)}]
            case "heading_open":
                return [{"type": "heading", "text": self._heading(_html(inside))}]
            case "blockquote_open":
                return [{"type": "quote", "html": _html(inside)}]
            case "bullet_list_open" | "ordered_list_open":
                return [{"type": "list", **_list(head, inside)}]
            case "table_open":
                return [{"type": "table", **self._table(inside)}]
            case "fence" | "code_block":
                return [{"type": "paragraph", "html": self._code(head)}]
            case "html_block":
                return [{"type": "paragraph", "html": part} for part in markup.paragraphs(head.content)]
            case _:  # hr
                return [{"type": "break"}]

    def _heading(self, html: str) -> str:
        """The plain text of a heading. Raises Unsafe for a link with a text of its own: it would be lost."""
        cleaned = re.sub(r'<a href="([^"]*)"[^>]*>\1</a>', r"\1", markup.inline(html))
        if "<a " in cleaned:
            raise Unsafe("headings without links", "a link in a heading")
        if "<" in cleaned.replace("<br>", ""):
            self.losses.append(Loss("a heading without emphasis, which it does not keep", html))
        return markup.text(cleaned)

    def _code(self, token: Token) -> str:
        if token.info.strip():
            self.losses.append(Loss("code without the name of its language, which it does not keep", token.info))
        return f"<code>{'<br>'.join(escapeHtml(token.content.rstrip(chr(10))).split(chr(10)))}</code>"

    def _table(self, inside: list[Token]) -> Block:
        rows = [token for token in inside if token.type == "tr_open"]
        cells = [token for token in inside if token.type in ("th_open", "td_open")]
        texts = [_rendered(token) for token in inside if token.type == "inline"]
        columns = sum(token.type == "th_open" for token in cells)
        for row in rows:
            self._check_row(row, columns)
        lines = [texts[at : at + columns] for at in range(0, len(texts), columns)]
        return {"head": lines[0], "align": [_align(cell) for cell in cells[:columns]], "rows": lines[1:]}

    def _check_row(self, row: Token, columns: int) -> None:
        """Raises Unsafe where a row has more cells than the head: GFM ignores the excess, which would be lost."""
        line = self._lines[row.map[0]].strip() if row.map else ""
        cells = escapedSplit(line.removeprefix("|"))
        if len(cells) - (not cells[-1].strip()) > columns:
            raise Unsafe(f"rows of at most {columns} cells, as the head has", line)


def _parts(tokens: list[Token]) -> Iterator[tuple[Token, list[Token]]]:
    """Each part of these tokens: its first token, and the tokens up to the one that closes it."""
    at = 0
    while at < len(tokens):
        end = _close_of(tokens, at)
        yield tokens[at], tokens[at + 1 : end]
        at = end + 1


def _close_of(tokens: list[Token], at: int) -> int:
    """The index of the token that closes the one at `at`, or `at` where that one has no end token."""
    depth = 0
    for index in range(at, len(tokens)):
        depth += tokens[index].nesting
        if depth == 0:
            return index
    raise AssertionError("markdown-it left a token open")


def _align(cell: Token) -> str | None:
    style = str(cell.attrGet("style") or "")
    return style.removeprefix("text-align:") or None


def _list(head: Token, inside: list[Token], depth: int = 1) -> Block:
    """A list with its items. Raises Unsafe where lists are nested deeper than LIST_LIMIT."""
    if depth > LIST_LIMIT:
        raise Unsafe(f"lists of at most {LIST_LIMIT} levels", "a list inside of them")
    start = head.attrGet("start")
    number = {"start": int(start)} if start is not None else {}
    items = [_item(tokens, depth) for _, tokens in _parts(inside)]
    return {"ordered": head.type == "ordered_list_open", **number, "items": items}


def _item(tokens: list[Token], depth: int) -> str | Block:
    """An item: its HTML, and behind it a list that it may have."""
    parts = list(_parts(tokens))
    if parts and parts[-1][0].type in ("bullet_list_open", "ordered_list_open"):
        last = parts.pop()
        if not parts:
            raise Unsafe("text before the list in an item", "a list alone in an item")
        html = _html([token for head, inside in parts for token in (head, *inside)])
        return {"html": html, "list": _list(*last, depth + 1)}
    return _html(tokens)


def _html(inside: list[Token]) -> str:
    """The inline HTML of the paragraphs in a block, joined by line breaks."""
    lines = []
    for token in inside:
        if token.type == "inline":
            lines.append(_rendered(token))
        elif token.type not in ("paragraph_open", "paragraph_close"):
            name = token.type.removesuffix("_open").replace("_", " ")
            raise Unsafe("paragraphs, and in items one list after them", f"{name} inside a block")
    return "<br>".join(lines)


def _rendered(token: Token) -> str:
    """The HTML of inline Markdown. Raises Unsafe for a picture, of which too little is known."""
    children = token.children or []
    if any(child.type == "image" for child in children):
        raise Unsafe("pictures as image blocks, with size, alt, caption and credit", "an image in Markdown")
    token.children = list(_linked(children))
    html: str = _MARKDOWN.renderer.render([token], _MARKDOWN.options, {})
    return html.replace("<br />", "<br>")


_OPEN = re.compile("<a[ >\n]", re.IGNORECASE)


def _linked(children: list[Token]) -> Iterator[Token]:
    """The tokens, with a link around each bare address that is not in a link already."""
    depth = 0
    for child in children:
        if child.type in ("link_open", "link_close"):
            depth += child.nesting
        elif child.type == "html_inline":
            depth += bool(_OPEN.match(child.content)) - child.content.lower().startswith("</a")
        if child.type == "text" and depth == 0:
            yield from _with_links(child)
        else:
            yield child


def _with_links(token: Token) -> Iterator[Token]:
    at = 0
    for begin, end, address in markup.bare_links(token.content):
        yield Token("text", "", 0, content=token.content[at:begin])
        yield Token("link_open", "a", 1, attrs={"href": address})
        yield Token("text", "", 0, content=token.content[begin:end])
        yield Token("link_close", "a", -1)
        at = end
    yield Token("text", "", 0, content=token.content[at:])
