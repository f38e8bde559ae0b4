from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

from pushserver.content import markdown, markup, schema, validation
from pushserver.content.plaintext import Unsafe
from pushserver.errors import Invalid

from .test_markup import REL, Seen


def cleaned(source: str) -> list[dict[str, Any]]:
    """The blocks that Markdown becomes, with their HTML cleaned as it is at publish."""
    entry = validation.read(schema.EntryIn, {"headline": "x", "body": source})
    return [block.model_dump(exclude_none=True) for block in entry.blocks]


def paragraph(html: str) -> dict[str, Any]:
    return {"type": "paragraph", "html": html}


@pytest.mark.parametrize(
    ("source", "blocks"),
    [
        ("x", [paragraph("x")]),
        ("x\ny", [paragraph("x\ny")]),
        ("x\n\ny", [paragraph("x"), paragraph("y")]),
        ("x\r\n\r\ny", [paragraph("x"), paragraph("y")]),
        ("x\r\ry", [paragraph("x"), paragraph("y")]),
        ("- x\r\n- y\r\n", [{"type": "list", "ordered": False, "items": ["x", "y"]}]),
        ("|x|\r\n|-|\r\n|y|\r\n", [{"type": "table", "head": ["x"], "align": [None], "rows": [["y"]]}]),
        ("\u2068x\u2069 y", [paragraph("\u2068x\u2069 y")]),
        ("x  \ny", [paragraph("x<br>\ny")]),
        ("x\\\ny", [paragraph("x<br>\ny")]),
        ("*x* **y** `z`", [paragraph("<em>x</em> <strong>y</strong> <code>z</code>")]),
        ("Smith & Sons", [paragraph("Smith &amp; Sons")]),
        ("Smith &amp; Sons", [paragraph("Smith &amp; Sons")]),
        ("`a < b && c`", [paragraph("<code>a &lt; b &amp;&amp; c</code>")]),
        ("\\<b>", [paragraph("&lt;b&gt;")]),
        ("[x](https://a.example/?a=1&b=2)", [paragraph(f'<a href="https://a.example/?a=1&amp;b=2" {REL}>x</a>')]),
        ("[x][1]\n\n[1]: https://a.example/", [paragraph(f'<a href="https://a.example/" {REL}>x</a>')]),
        ("<https://a.example/>", [paragraph(f'<a href="https://a.example/" {REL}>https://a.example/</a>')]),
        ("<a@b.example>", [paragraph(f'<a href="mailto:a@b.example" {REL}>a@b.example</a>')]),
        (
            "https://a.example/?a=1&amp;b=2.",
            [paragraph(f'<a href="https://a.example/?a=1&amp;b=2" {REL}>https://a.example/?a=1&amp;b=2</a>.')],
        ),
        ("*www.a.example*", [paragraph(f'<em><a href="http://www.a.example" {REL}>www.a.example</a></em>')]),
        (
            "[https://a.example/](https://b.example/)",
            [paragraph(f'<a href="https://b.example/" {REL}>https://a.example/</a>')],
        ),
        (
            '<a href="https://b.example/">www.a.example</a>',
            [paragraph(f'<a href="https://b.example/" {REL}>www.a.example</a>')],
        ),
        ("`https://a.example/`", [paragraph("<code>https://a.example/</code>")]),
        ("~~x~~", [paragraph("<s>x</s>")]),
        ("<p>x</p>\n<p>y</p>", [paragraph("x"), paragraph("y")]),
        ("<p>x</p>\n\n<p>*y*</p>", [paragraph("x"), paragraph("*y*")]),
        ("x <b>y</b><br/>z", [paragraph("x <b>y</b><br>z")]),
        ("<b>x</b>", [paragraph("<b>x</b>")]),
        ("# x", [{"type": "heading", "text": "x"}]),
        ("###### x *y* & `<z>`", [{"type": "heading", "text": "x y & <z>"}]),
        ("x\n===", [{"type": "heading", "text": "x"}]),
        ("> x", [{"type": "quote", "html": "x"}]),
        ("> x\n>\n> y", [{"type": "quote", "html": "x<br>y"}]),
        ("- x\n- *y*", [{"type": "list", "ordered": False, "items": ["x", "<em>y</em>"]}]),
        ("- x\n\n- y", [{"type": "list", "ordered": False, "items": ["x", "y"]}]),
        ("- x\n\n  y", [{"type": "list", "ordered": False, "items": ["x<br>y"]}]),
        ("1. x\n2. y", [{"type": "list", "ordered": True, "items": ["x", "y"]}]),
        ("1) x", [{"type": "list", "ordered": True, "items": ["x"]}]),
        ("5. x\n6. y", [{"type": "list", "ordered": True, "start": 5, "items": ["x", "y"]}]),
        ("0. x", [{"type": "list", "ordered": True, "start": 0, "items": ["x"]}]),
        ('```\na < b\n"c" & d\n```', [paragraph('<code>a &lt; b<br>"c" &amp; d</code>')]),
        ("```python\nx\n```", [paragraph("<code>x</code>")]),
        ("    x\n    <script>", [paragraph("<code>x<br>&lt;script&gt;</code>")]),
        ("x\n\n---\n\ny", [paragraph("x"), {"type": "break"}, paragraph("y")]),
        ("***", [{"type": "break"}]),
        ("", []),
        (" \n\n ", []),
        ("[1]: https://a.example/", []),
        (
            "# a\n\nb\n\n> c\n\n1. d\n",
            [
                {"type": "heading", "text": "a"},
                paragraph("b"),
                {"type": "quote", "html": "c"},
                {"type": "list", "ordered": True, "items": ["d"]},
            ],
        ),
    ],
)
def test_markdown_becomes_blocks(source: str, blocks: list[dict[str, Any]]) -> None:
    assert cleaned(source) == blocks


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("![x](https://a.example/x.jpg)", "image"),
        ("x ![y](/x.jpg) z", "image"),
        ("[![x](/x.jpg)](https://a.example/)", "image"),
        ("# ![x](/x.jpg)", "image"),
        ("- ![x](/x.jpg)", "image"),
        ("> ![x](/x.jpg)", "image"),
        ("- - x", "list"),
        ("- x\n  - y\n\n  z", "list"),
        ("- x\n  - y\n  1. z", "list"),
        ("- x\n  - y\n    - z\n      - u", "list"),
        ("- | a |\n  |---|\n  | b |", "table"),
        ("> - x", "list"),
        ("> > x", "blockquote"),
        ("- > x", "blockquote"),
        ("- # x", "heading"),
        ("> # x", "heading"),
        ("- ```\n  x\n  ```", "fence"),
        ("- x\n\n  ***", "hr"),
        ("- <div>\n  x\n  </div>", "html block"),
    ],
)
def test_what_blocks_cannot_hold_is_refused_by_name(source: str, named: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markdown.blocks(source)
    assert named in refused.value.got
    assert refused.value.expected


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("x <script>alert(1)</script>", "<script>"),
        ("# x <script>alert(1)</script>", "<script>"),
        ("# x <img src=x onerror=alert(1)>", "<img>"),
        ("> x <iframe src=x>", "<iframe>"),
        ("1. x <svg onload=alert(1)>", "<svg>"),
        ("<div>\nx\n</div>", "<div>"),
        ("<b onclick=alert(1)>x</b>", "onclick"),
        ("*x <b style='color:red'>y</b>*", "style"),
        ('[x](https://a.example/ "title")', "title"),
    ],
)
def test_raw_html_in_markdown_is_held_to_the_same_list(source: str, named: str) -> None:
    with pytest.raises(Invalid) as refused:
        cleaned(source)
    assert named in refused.value.faults[0].got


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "&#106;avascript:alert(1)",
        "javascript&colon;alert(1)",
        "java&Tab;script:alert(1)",
        "<java script:alert(1)>",
        "data:text/html,x",
        "vbscript:x",
        "/a",
        "//evil.example/",
        "a.html",
        "",
    ],
)
@pytest.mark.parametrize("form", ["[x]({})", "> [x]({})", "- [x]({})", "[x][1]\n\n[1]: {}"])
def test_a_markdown_link_to_a_bad_address_is_refused_and_not_shown_as_brackets(form: str, address: str) -> None:
    source = form.format(address)
    if address == "" and "[1]:" in form:
        assert cleaned(source) == [paragraph("[x][1]"), paragraph("[1]:")]
        return
    with pytest.raises(Invalid):
        cleaned(source)


@pytest.mark.parametrize("source", ["# [x](javascript:alert(1))", "[x](/a)\n==="])
def test_a_heading_does_not_drop_a_link_that_is_refused_elsewhere(source: str) -> None:
    with pytest.raises(Invalid):
        cleaned(source)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "vbscript:x"])
def test_an_autolink_with_a_bad_scheme_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        cleaned(f"<{address}>")


@pytest.mark.parametrize(("source", "text"), [("# a<br>b", "a b"), ("a\\\nb\n===", "a b"), ("a\nb\n===", "a b")])
def test_a_line_break_in_a_heading_still_parts_its_words(source: str, text: str) -> None:
    (heading,) = markdown.blocks(source).blocks
    assert heading["text"].split() == text.split()


def htmls(value: Any) -> Iterator[str]:
    """Every piece of inline HTML in a block."""
    if isinstance(value, dict):
        for name in ("html", "list", "items", "head", "rows"):
            yield from htmls(value.get(name, []))
    elif isinstance(value, list):
        for inner in value:
            yield from htmls(inner)
    elif value:
        yield value


MARKDOWN = [
    *(
        "x",
        " ",
        "\n",
        "\n\n",
        "  \n",
        "\t",
        "    ",
        "\\",
        "*",
        "**",
        "_",
        "`",
        "```\n",
        "~~~\n",
        "# ",
        "> ",
        "- ",
        "  - ",
        "7. ",
        "1. ",
        "| a | b |\n|---|--:|\n",
        "|",
        "~~",
        "www.",
        "<p>",
        "</p>",
    ),
    *("---\n", "===\n", "[", "]", "(", ")", "![", "](", "<", ">", "&", "&lt;", "&#x202e;", "<b>", "</b>", "<br>"),
    *("<script>", "</script>", "<!--", "-->", "https://a.example/", "javascript:x", "[1]: ", '"', "'", "é"),
]


DEFAULT = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
DEFAULT.validateLink = lambda url: True  # type: ignore[method-assign]


@given(st.lists(st.sampled_from([*MARKDOWN, *"#$%+-:=@^{}!~"]), max_size=24).map("".join))
def test_text_ends_only_where_markup_may_begin_and_means_the_same(source: str) -> None:
    assert markdown._MARKDOWN.render(source) == DEFAULT.render(source)


@given(st.lists(st.sampled_from(MARKDOWN), max_size=16).map("".join))
def test_whatever_markdown_becomes_is_harmless(source: str) -> None:
    try:
        made = cleaned(source)
    except Invalid:
        return
    for block in made:
        assert block["type"] in ("paragraph", "heading", "quote", "list", "table", "break")
        for html in htmls(block):
            seen = Seen(html)
            assert {tag for tag, _ in seen.tags} <= markup.TAGS
            assert markup.inline(html) == html


# --- lists and tables


def a_list(*items: Any, ordered: bool = False) -> dict[str, Any]:
    return {"ordered": ordered, "items": list(items)}


def test_an_item_may_have_a_list_after_its_text_three_deep() -> None:
    (block,) = cleaned("- x\n\n  *y*\n\n  3. z\n     - u\n- v")
    inner = {"html": "z", "list": a_list("u")}
    item = {"html": "x<br><em>y</em>", "list": {**a_list(inner, ordered=True), "start": 3}}
    assert block == {"type": "list", **a_list(item, "v")}


@pytest.mark.parametrize(
    ("source", "table"),
    [
        (
            "| a | *b* |\n|---|:-:|\n| `x|y` | https://a.example |\n| z |\n",
            None,
        ),
        (
            "a | *b*\n:--|--:\nc \\| d | <b>e</b>\nf |",
            {
                "head": ["a", "<em>b</em>"],
                "align": ["left", "right"],
                "rows": [["c | d", "<b>e</b>"], ["f", ""]],
            },
        ),
        ("| a |\n|:-:|", {"head": ["a"], "align": ["center"], "rows": []}),
        ("| a | b |\n|---|---|\n| | c |", {"head": ["a", "b"], "align": [None, None], "rows": [["", "c"]]}),
    ],
)
def test_a_table_is_a_block(source: str, table: dict[str, Any] | None) -> None:
    """A pipe parts cells even in code (GFM 4.10): the first table has a row of three cells, which no head has."""
    if table is None:
        with pytest.raises(Invalid, match="rows of at most 2 cells"):
            cleaned(source)
    else:
        assert cleaned(source) == [{"type": "table", **table}]


@pytest.mark.parametrize(
    ("columns", "rows", "expected"), [(12, 200, None), (13, 1, "at most 12 items"), (1, 201, "at most 200 items")]
)
def test_a_table_has_at_most_12_columns_and_200_rows(columns: int, rows: int, expected: str | None) -> None:
    source = f"{'|a' * columns}|\n{'|-' * columns}|\n" + f"{'|b' * columns}|\n" * rows
    if expected is None:
        assert len(cleaned(source)[0]["rows"]) == rows
    else:
        with pytest.raises(Invalid, match=expected):
            cleaned(source)


# --- what is lost


@pytest.mark.parametrize(
    ("source", "expected", "got"),
    [
        ("# a *b*", "a heading without emphasis", "a <em>b</em>"),
        ("`a`\n===", "a heading without emphasis", "<code>a</code>"),
        ("```python\nx\n```", "code without the name of its language", "python"),
        ("x\n\n[1]: https://a.example/", "a definition that a link uses", "[1]: https://a.example/"),
    ],
)
def test_what_no_block_keeps_is_named(source: str, expected: str, got: str) -> None:
    (loss,) = markdown.blocks(source).losses
    assert expected in loss.expected
    assert got == loss.got


@pytest.mark.parametrize(
    "source", ["# a", "# a<br>b", "```\nx\n```", "[x][1]\n\n[1]: https://a.example/?a&b", "---", "5. a"]
)
def test_nothing_is_named_where_everything_is_kept(source: str) -> None:
    assert markdown.blocks(source).losses == []


# --- work


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("[" * 40_000, "at most 2000 marks of Markdown"),
        ("![" * 20_000, "at most 2000 marks of Markdown"),
        ("`" * 40_000, "at most 2000 marks of Markdown"),
        ("*a_ " * 10_000, "at most 2000 marks of Markdown"),
        ("&amp;" * 8_000, "at most 2000 marks of Markdown"),
        ("http://a.b " * 4_000, "at most 2000 marks of Markdown"),
        ("\\" * 40_000, "at most 2000 marks of Markdown"),
        ("- a\n" * 10_000, "at most 1000 lines"),
        ("a\n\n" * 10_000, "at most 1000 lines"),
        ("[a]: /u\n" * 5_000, "at most 1000 lines"),
        ("|a" * 20_000, "at most 4000 pipes"),
        ("> " * 9 + "a", "at most 8 quotes inside one another"),
        (">" * 9 + "a", "at most 8 quotes inside one another"),
        ("1. " * 10_000, "text before the list in an item"),
        ("\n".join("  " * depth + "- a" for depth in range(200)), "lists of at most 3 levels"),
    ],
)
def test_markdown_that_would_be_slow_to_read_is_refused_by_its_limit(source: str, expected: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markdown.blocks(source)
    assert expected in refused.value.expected
    assert refused.value.got


@pytest.mark.parametrize("character", "#$%+-:=@^{}'\"?.,;/()")
def test_a_character_that_is_no_markup_costs_no_step(monkeypatch: pytest.MonkeyPatch, character: str) -> None:
    steps: list[str] = []
    monkeypatch.setattr(StateInline, "append_pending", lambda state, text: steps.append(text))
    markdown.blocks(f"a{character * 40_000}")
    assert len(steps) == 1


@pytest.mark.parametrize("source", ["[" * 2_000, "a\n" * 999, "|a" * 2_000, "> " * 8 + "a", "a" * 50_000])
def test_markdown_up_to_a_limit_is_not_refused_for_it(source: str) -> None:
    markdown.check_work(source)
