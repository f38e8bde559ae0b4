from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushserver.content import markup
from pushserver.content.plaintext import Unsafe

REL = 'rel="noopener noreferrer"'

# Every way to write an address that a browser takes for a script, or for a document that has one.
BAD_ADDRESSES = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    "java\x00script:alert(1)",
    "javascript://a.example/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "DATA:text/html;base64,PHNjcmlwdD4=",
    "vbscript:msgbox(1)",
    "VBScript:msgbox(1)",
    "file:///etc/passwd",
    "ftp://a.example/",
    "blob:https://a.example/1",
    "view-source:https://a.example/",
    "//evil.example/",
    "\\\\evil.example/",
    "a.example",
    "./a",
    "../a",
    "?a",
    "#a",
    "",
    "https:",
    "https://",
    "https:///a",
    "https:a.example",
    "https:\\\\a.example",
    "https://a b.example/",
    "https://a.example/a b",
    "https://a.example/a\tb",
    "https://a.example/\u00a0b",
    "https://a.example/\u202eb",
    "https://a.example/\ud800",
    "https://[::1",
    "https://a\u2100b.example/",
    "https://:80/",
    "https://user@/",
]


class Seen(HTMLParser):
    """What a parser that is not the sanitiser sees in a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.others: list[str] = []  # comments and declarations, and end tags that end nothing
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] == [tag]:
            self.open.pop()
        else:
            self.others.append(f"</{tag}>")

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


# --- addresses


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://a.example", "https://a.example"),
        ("http://a.example/b?c=d&e=f#g", "http://a.example/b?c=d&e=f#g"),
        ("HTTPS://A.example/", "HTTPS://A.example/"),
        (" https://a.example ", "https://a.example"),
        ("https://[::1]:8000/", "https://[::1]:8000/"),
        ("https://bücher.example/ä", "https://bücher.example/ä"),
        ('https://a.example/"><script>', 'https://a.example/"><script>'),
        ("mailto:desk@a.example", "mailto:desk@a.example"),
    ],
)
def test_absolute_addresses_of_the_web_and_of_mail_are_links(url: str, stored: str) -> None:
    assert markup.link(url) == stored


@pytest.mark.parametrize("url", [*BAD_ADDRESSES, "/a", "mailto:"])
def test_an_address_that_is_no_absolute_http_https_or_mailto_url_is_no_link(url: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markup.link(url)
    assert refused.value.expected
    assert refused.value.got


@pytest.mark.parametrize(
    "url",
    ["/a.jpg", "/", "/a/b.jpg?c=d&e=f", '/a"onerror=alert(1)', "/%2f", "https://a.example/a.jpg", "http://a.example/"],
)
def test_a_picture_is_on_the_web_or_at_a_path_of_this_site(url: str) -> None:
    assert markup.source(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *BAD_ADDRESSES,
        "mailto:desk@a.example",
        "data:image/png;base64,AA==",
        "data:image/svg+xml,<svg onload=alert(1)>",
        "/\\evil.example/",
        "///evil.example/",
        "/\t/evil.example/",
        "/\n/evil.example/",
        "/a b.jpg",
        "/a\\b.jpg",
        "/\u202e.jpg",
        "/\x00.jpg",
        "/\ud800.jpg",
    ],
)
def test_a_picture_anywhere_else_is_refused(url: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markup.source(url)
    assert refused.value.expected


# --- inline HTML


@pytest.mark.parametrize("tag", sorted(markup.TAGS - {"a", "br"}))
def test_tags_of_the_list_are_kept(tag: str) -> None:
    assert markup.inline(f"x <{tag}>y</{tag}> z") == f"x <{tag}>y</{tag}> z"
    assert markup.inline(f"<{tag.upper()}>y</{tag.upper()}>") == f"<{tag}>y</{tag}>"


def test_the_list_has_nothing_that_runs_loads_or_breaks_out_of_a_paragraph() -> None:
    assert {"a", "b", "br", "code", "em", "i", "s", "strong", "sub", "sup", "u"} == markup.TAGS
    assert {"http", "https", "mailto"} == markup.LINK_SCHEMES


@pytest.mark.parametrize(
    ("html", "stored"),
    [
        ("x", "x"),
        ("x<br>y", "x<br>y"),
        ("x<br/>y<br />z", "x<br>y<br>z"),
        ("Smith & Sons", "Smith &amp; Sons"),
        ("Smith &amp; Sons", "Smith &amp; Sons"),
        ("&amp;amp;", "&amp;amp;"),
        ("1 < 2 > 1", "1 &lt; 2 &gt; 1"),
        ("&lt;script&gt;", "&lt;script&gt;"),
        ('"it\'s"', '"it\'s"'),
        ("&eacute;&#233;&#xe9;", "ééé"),
        ("e\u0301", "é"),
        ("&#128512;", "😀"),
        ("<b><i>x</i></b>", "<b><i>x</i></b>"),
        ('<a href="https://a.example/?a=1&b=2">x</a>', f'<a href="https://a.example/?a=1&amp;b=2" {REL}>x</a>'),
        ('<a href="https://a.example/?a=1&amp;b=2">x</a>', f'<a href="https://a.example/?a=1&amp;b=2" {REL}>x</a>'),
        ("<a href='https://a.example/'>x</a>", f'<a href="https://a.example/" {REL}>x</a>'),
        ("<A HREF=https://a.example/>x</A>", f'<a href="https://a.example/" {REL}>x</a>'),
        ('<a href="mailto:a@b.example">x</a>', f'<a href="mailto:a@b.example" {REL}>x</a>'),
        ('<a href="https://a.example/" rel="opener">x</a>', f'<a href="https://a.example/" {REL}>x</a>'),
        (
            '<a href="https://a.example/&quot;onclick=&quot;alert(1)">x</a>',
            f'<a href="https://a.example/&quot;onclick=&quot;alert(1)" {REL}>x</a>',
        ),
        (
            '<a href="https://a.example/<script>">x</a>',
            f'<a href="https://a.example/&lt;script&gt;" {REL}>x</a>',
        ),
    ],
)
def test_inline_html_is_stored_in_one_spelling(html: str, stored: str) -> None:
    assert markup.inline(html) == stored
    assert markup.inline(stored) == stored


@pytest.mark.parametrize(
    ("html", "named"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("x<script>", "<script>"),
        ("x<ScRiPt >alert(1)</sCrIpT>", "<script>"),
        ("x<script/src=//evil.example>", "<script>"),
        ("<b><script>alert(1)</script></b>", "<script>"),
        ("x<style>*{display:none}</style>", "<style>"),
        ("x<svg onload=alert(1)>", "<svg>"),
        ("<svg><b>x</b></svg>", "<svg>"),
        ("<svg><a xlink:href='javascript:alert(1)'>x</a></svg>", "<svg>"),
        ("<math><mtext>x</mtext></math>", "<math>"),
        ("<math><mi><style><b title='</style><img src=x onerror=alert(1)>'>x", "<math>"),
        ("x<iframe src=https://evil.example>", "<iframe>"),
        ("x<img src=x onerror=alert(1)>", "<img>"),
        ("x<image src=x onerror=alert(1)>", "<image>"),
        ("x<object data=x>", "<object>"),
        ("x<embed src=x>", "<embed>"),
        ("x<form action=x><input>", "<form>"),
        ("x<base href=//evil.example>", "<base>"),
        ("x<meta http-equiv=refresh content=0>", "<meta>"),
        ("x<link rel=stylesheet href=x>", "<link>"),
        ("x<template><b>y</b></template>", "<template>"),
        ("x<noscript><b>y</b></noscript>", "<noscript>"),
        ("x<textarea><b>y</b>", "<textarea>"),
        ("x<title><b>y</b>", "<title>"),
        ("x<xmp><b>y</b>", "<xmp>"),
        ("x<plaintext><b>y</b>", "<plaintext>"),
        ('<p class="lead">x</p>', "<p>"),
        ("x <p>y</p>", "<p>"),
        ("<p>x", "<p>"),
        ("<div>x</div>", "<div>"),
        ("<span>x</span>", "<span>"),
        ("<table><b>x", "<table>"),
        ("<custom-element>x", "<custom-element>"),
        ('<b onclick="alert(1)">x</b>', "onclick"),
        ("<b ONCLICK=alert(1)>x</b>", "onclick"),
        ("<b/onclick=alert(1)>x</b>", "onclick"),
        ("<b\nonclick=alert(1)>x</b>", "onclick"),
        ('<b style="position:fixed">x</b>', "style"),
        ('<b class="x">x</b>', "class"),
        ('<b id="e-1">x</b>', "id"),
        ('<a href="https://a.example/" target="_blank">x</a>', "target"),
        ('<a href="https://a.example/" onclick="alert(1)">x</a>', "onclick"),
        ('<a href="https://a.example/"onclick="alert(1)">x</a>', "onclick"),
        ('<a xlink:href="javascript:alert(1)">x</a>', "xlink:href"),
        ('<b href="https://a.example/">x</b>', "href"),
        ("<b <script>x", "<script"),
    ],
)
def test_what_is_not_on_the_list_is_refused_by_name(html: str, named: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markup.inline(html)
    assert named in refused.value.got
    assert refused.value.expected


@pytest.mark.parametrize("url", [*BAD_ADDRESSES, "/a"])
def test_a_link_to_a_bad_address_is_refused(url: str) -> None:
    quoted = url.replace("&", "&amp;").replace('"', "&quot;")
    with pytest.raises(Unsafe):
        markup.inline(f'<a href="{quoted}">x</a>')


@pytest.mark.parametrize(
    "address",
    [
        "&#106;avascript:alert(1)",
        "&#x6A;avascript:alert(1)",
        "&#0000106avascript:alert(1)",
        "java&#9;script:alert(1)",
        "java&#x0A;script:alert(1)",
        "java&Tab;script:alert(1)",
        "java&NewLine;script:alert(1)",
        "javascript&colon;alert(1)",
        "&#1;javascript:alert(1)",
        "&#32;javascript:alert(1)",
        "&#x2f;/evil.example/",
        "https://a.example/&#x202e;b",
        "https://a.example/&#32;b",
        'https://a.example/" href="javascript:alert(1)',
        'javascript:alert(1)" href="https://a.example/',
    ],
)
def test_a_bad_address_in_disguise_is_refused(address: str) -> None:
    with pytest.raises(Unsafe):
        markup.inline(f'<a href="{address}">x</a>')


def test_a_link_without_an_address_is_refused() -> None:
    with pytest.raises(Unsafe):
        markup.inline("<a href>x</a>")


@pytest.mark.parametrize("number", ["&#x202e;", "&#8238;", "&#x2066;", "&#13;", "&#x1b;", "&#1;", "&#127;", "&#x8d;"])
def test_characters_that_are_refused_as_such_are_refused_by_their_number_too(number: str) -> None:
    with pytest.raises(Unsafe):
        markup.inline(f"x{number}y")


@pytest.mark.parametrize(
    "character", ["\x00", "\x0c", "\x1b", "\x85", "\u202e", "\u2067", "\ud800", "\uffff"], ids=ascii
)
@pytest.mark.parametrize("place", ["x{}y", "<b{}>x</b>", '<a href="https://a.example/{}">x</a>', "<{}b>x</b>"])
def test_controls_bidi_overrides_and_no_characters_are_refused_in_html(character: str, place: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markup.inline(place.format(character))
    assert refused.value.got == f"U+{ord(character):04X}"


@pytest.mark.parametrize(
    "html",
    ["", " ", "&nbsp;", "&#32;", "<b></b>", "<b> </b>", "<br>", '<a href="https://a.example/"></a>', "<!-- x -->"],
)
def test_html_without_any_text_is_refused(html: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markup.inline(html)
    assert refused.value.expected
    assert refused.value.got


@pytest.mark.parametrize(
    "html",
    [
        "x <!-- y --> z",
        "x <!--> y",
        "x <!-- y",
        "x <!--[if IE]><script>alert(1)</script><![endif]--> z",
        "x <![CDATA[ y ]]> z",
        "<!doctype html> x",
        "x <? y ?> z",
        "x <! y > z",
        "x </ y > z",
        "x <y",
        "x </br> y",
        "<b/>x",
        "<b>x",
        "x</script>",
    ],
)
def test_what_parsers_read_differently_or_drop_is_refused(html: str) -> None:
    with pytest.raises(Unsafe):
        markup.inline(html)


@pytest.mark.parametrize(
    "html",
    [
        "<b>x",
        "x</b>",
        "x</p>",
        "x</script>",
        "<b><i>x</b></i>",
        "<i>a<b>b</i>c</b>",
        "<b><b>x</b>",
        "<b/>x",
        "<b",
        "x<",
        "<>x",
        "< b>x</b>",
        "<b>x</b >",
        '<a href="https://a.example/">x <a href="https://b.example/">y</a></a>',
        '<a href="https://a.example/>x</a>',
        "<b>" * 300 + "x",
    ],
)
def test_malformed_nesting_never_leaves_a_tag_open(html: str) -> None:
    try:
        stored = markup.inline(html)
    except Unsafe:
        return
    seen = Seen(stored)
    assert (seen.open, seen.others) == ([], [])
    assert seen.text == Seen(html).text


GOOD_TAGS = sorted(markup.TAGS)
EVIL_TAGS = [
    *("script", "style", "svg", "math", "mi", "foreignObject", "iframe", "img", "p", "div", "table", "select"),
    *("template", "textarea", "title", "noscript", "xmp", "plaintext", "object", "form", "base"),
]
GOOD_ADDRESSES = ["https://a.example/", "HTTP://a.example/?a=1&b=2", "mailto:a@b.example", "https://a.example/&quot;"]
FRAGMENTS = [
    *(
        "x",
        " ",
        "é",
        "e\u0301",
        "&",
        "<",
        ">",
        '"',
        "'",
        "=",
        "/",
        "&amp;",
        "&lt;",
        "&gt;",
        "&nbsp;",
        "&copy",
        "&eacute;",
    ),
    *(
        "&#x202e;",
        "&#13;",
        "&#32;",
        "&#0;",
        "&#1;",
        "&#x301;",
        "&#x338;",
        "&#xd800;",
        "&#x80;",
        "\u202e",
        "\x00",
        "\ud800",
    ),
    *("<!--", "-->", "<![CDATA[", "]]>", "<?", "</", "<b", "javascript:"),
]


def start_tag(name: str, attributes: list[str], end: str) -> str:
    return f"<{' '.join([name, *attributes])}{end}"


texts = st.one_of(st.sampled_from(FRAGMENTS), st.text("abc é&<>\"'", max_size=6))
ends = st.sampled_from([">", ">", ">", " >", "/>", ""])
attributes = st.builds(
    "{0}={1}{2}{1}".format,
    st.sampled_from(["href", "HREF", "rel", "onclick", "style", "src", "target", "xlink:href"]),
    st.sampled_from(['"', "'", ""]),
    st.one_of(st.sampled_from([*GOOD_ADDRESSES, *BAD_ADDRESSES]), texts),
)
links = st.builds('<a href="{}">{}</a>'.format, st.sampled_from(GOOD_ADDRESSES), texts)
tags = st.one_of(
    st.builds(start_tag, st.sampled_from(GOOD_TAGS), st.just([]), ends),
    st.builds("</{}>".format, st.sampled_from(GOOD_TAGS)),
)
evil = st.one_of(
    st.builds(start_tag, st.sampled_from(EVIL_TAGS), st.lists(attributes, max_size=2), ends),
    st.builds(start_tag, st.sampled_from(GOOD_TAGS), st.lists(attributes, min_size=1, max_size=2), ends),
    st.builds("</{}>".format, st.sampled_from(EVIL_TAGS)),
)
good_html = st.lists(st.one_of(texts, texts, tags, links), max_size=8).map("".join)
any_html = st.lists(st.one_of(texts, tags, links, evil), max_size=8).map("".join)


@given(st.one_of(good_html, any_html))
@example("&#32;x")
@example("x </script>")
@example("e&#x301;")
@example("<b>&#x338;x</b>")
@example("x&#x202e;y")
@example("<b>x<i>y</b>z</i>")
def test_whatever_is_not_refused_is_harmless_and_stays_as_it_is(html: str) -> None:
    try:
        stored = markup.inline(html)
    except Unsafe as refused:
        assert refused.expected
        assert refused.got
        return
    seen = Seen(stored)
    assert {tag for tag, _ in seen.tags} <= markup.TAGS
    assert (seen.open, seen.others) == ([], [])
    for tag, values in seen.tags:
        assert set(values) <= ({"href", "rel"} if tag == "a" else set())
        if "href" in values:
            assert urlsplit(values["href"] or "").scheme in markup.LINK_SCHEMES
    assert markup.inline(stored) == stored


# --- work


@pytest.mark.parametrize(
    ("html", "expected", "got"),
    [
        ("<a " * 6_600, "attribute", "<a <a>"),
        ("<b " * 6_600, "attribute", "<b <b>"),
        ("<a/" * 6_600, "attribute", "<a <a>"),
        ("<br " * 5_000, "attribute", "<br <br>"),
        ('<a href="' * 2_000, "absolute http", "<a href="),
        ("<a href='" + "x" * 19_000, "absolute http", "an empty string"),
        ("<b>" * 6_600, "at most 16 tags inside one another", "<b>"),
        ("<b>x", "</b> after <b>", "the end of the text"),
        ("<b><i>x</b></i>", "</i>", "</b>"),
        ("x</b>", "an end tag after its start tag", "</b>"),
        ("<b/>x", "<b> that ends with >", "<b/"),
        ("x</b y>", "an end tag", "</b y>"),
        ('<a href="https://a.example/" href="https://b.example/">x</a>', "each attribute once", "href"),
        ('<a href="https://a.example/">x<a href="https://b.example/">y</a></a>', "no link inside a link", "<a>"),
        (f'<a href="https://a.example/{"x" * 2_000}">x</a>', "at most 2000 characters", "https://a.example/"),
        ("&#" + "1" * 5_000 + ";", "at most 8 digits", "&#111111111"),
        ("&#x" + "f" * 5_000 + ";", "at most 8 digits", "&#xfffffffff"),
    ],
)
def test_what_would_be_slow_to_read_is_refused_by_its_first_fault(html: str, expected: str, got: str) -> None:
    with pytest.raises(Unsafe) as refused:
        markup.inline(html)
    assert expected in refused.value.expected
    assert got in refused.value.got


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_without_markup_is_stored_as_the_cleaner_would_store_it(text: str) -> None:
    try:
        stored = markup.inline(text)
    except Unsafe:
        return
    assert markup.inline(f"<b>{stored}</b>") == f"<b>{stored}</b>"


@pytest.mark.parametrize(
    ("html", "stored"),
    [
        ("<p>x</p>", "x"),
        (" <P>x <b>y</b></P >\n", "x <b>y</b>"),
        ("<p>x</p>\n<p>y</p><p> z </p>", "x<br>y<br>z"),
    ],
)
def test_paragraphs_around_html_are_its_lines(html: str, stored: str) -> None:
    assert markup.inline(html) == stored


@pytest.mark.parametrize(
    "html", ["<p></p>", "<p>&nbsp;</p>", "<p>x</p>y<p>z</p>", "<p><p>x</p></p>", "<p>x</p><p></p>"]
)
def test_paragraphs_that_are_empty_or_not_around_all_of_it_are_refused(html: str) -> None:
    with pytest.raises(Unsafe):
        markup.inline(html)


@pytest.mark.parametrize("text", ["\u200b", "<b>\u2800</b>", "&#8203;", "<br>\u3164", "&shy;"], ids=ascii)
def test_html_that_shows_nothing_is_refused(text: str) -> None:
    with pytest.raises(Unsafe, match="text that shows something"):
        markup.inline(text)


# --- bare links


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see https://a.example/b?c=d.", ["https://a.example/b?c=d"]),
        ("HTTP://A.example, http://b.example", ["HTTP://A.example", "http://b.example"]),
        ("(www.a.example)", ["http://www.a.example"]),
        ("https://a.example/b_(c) (https://a.example/d)", ["https://a.example/b_(c)", "https://a.example/d"]),
        ("https://a.example/?!.,:*_~'\";", ["https://a.example/"]),
        ("xhttps://a.example/ awww.b.example", []),
        ("https://bank.example@evil.example https:// ftp://a.example javascript:x mailto:a@b.example", []),
        ("https://a.example/" + ")" * 5_000, ["https://a.example/"]),
    ],
)
def test_bare_addresses_of_the_web_are_links_without_the_punctuation_around_them(text: str, links: list[str]) -> None:
    found_links = [address for _, _, address in markup.bare_links(text)]
    assert found_links == links
