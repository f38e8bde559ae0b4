"""The sanitiser's word against the browser's: what it lets pass is, in Chromium, of the list and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

from pushserver.content import markup
from pushserver.content.plaintext import Unsafe

from ..content.test_markup import any_html, good_html
from ..support import judge

pytestmark = [pytest.mark.full, pytest.mark.skipif(judge.CHROMIUM is None, reason="chromium is not installed")]

DANGEROUS = [
    *(
        "<",
        ">",
        "</",
        "/>",
        "<!--",
        "-->",
        "--!>",
        "<!",
        "<?",
        "]]>",
        "<![CDATA[",
        "&",
        "&lt;",
        "&#60;",
        "&#x3c",
        "&colon;",
    ),
    *(
        '"',
        "'",
        "`",
        "=",
        "/",
        "\\",
        " ",
        "\t",
        "\n",
        "\x0c",
        "\xa0",
        "x",
        "&quot;",
        "&NewLine;",
        "&Tab;",
        "&#0;",
        "&#128;",
    ),
    *(
        "<a",
        "<b",
        "<br",
        "<i>",
        "</i>",
        "<a href=",
        "href",
        "</a>",
        "</b>",
        "</p>",
        "</br>",
        "<p>",
        "<s/",
        "</article>",
    ),
    *(
        "https://a.example/",
        "mailto:a@b.example",
        "javascript:pwned()",
        "//evil.example/",
        "data:text/html,",
        "onerror=",
    ),
    *("<svg", "<math", "<mtext>", "<style>", "</style>", "<title>", "<noscript>", "<template>", "<select>", "<table>"),
    *(
        "<img src=x onerror=pwned()>",
        "<script>pwned()</script>",
        "<iframe src=x>",
        "\u2028",
        "\u226e",
        "\u0338",
        "e\u0301",
    ),
]
HARMLESS = [
    "x",
    " ",
    "&amp;",
    "é",
    "<br>",
    "<b>",
    "</b>",
    "<i>",
    "</i>",
    "<em>y</em>",
    "<b><i>z</i></b>",
    "<code>1 &lt; 2</code>",
    "<a href='https://a.example/'>x</a>",
    "<a href='https://a.example/?a=1&b'>",
    "</a>",
]
WHOLE = [
    text
    for text in HARMLESS
    if text not in ("<b>", "</b>", "<i>", "</i>", "</a>") and not text.startswith("<a href='https://a.example/?")
]
fragments = st.one_of(
    good_html,
    any_html,
    st.lists(st.sampled_from(DANGEROUS), max_size=7).map("".join),
    st.lists(st.sampled_from([*HARMLESS, *HARMLESS, *DANGEROUS]), max_size=7).map("".join),
    # A tag that is not closed is refused by name: these have every tag whole, so that enough of them pass.
    st.lists(st.sampled_from([*WHOLE, *WHOLE, *DANGEROUS]), max_size=4).map("".join),
)

# What each fragment is as a paragraph of an entry: its text, and whatever else it made.
READ = """
fragments => fragments.map((html) => {
  const main = document.createElement("main");
  document.body.replaceChildren(main);
  main.innerHTML = `<article><p>${html}</p></article>`;
  const [article, p] = main.querySelectorAll("main > article:only-child, main > article > p:only-child");
  const wrong = [];
  for (const element of main.querySelectorAll("p *")) {
    const names = element.getAttributeNames().join();
    const isLink = element.localName === "a" && names === "href,rel" && /^(https?|mailto):$/.test(element.protocol);
    const isKnown = element instanceof HTMLElement && TAGS.includes(element.localName);
    if (!isKnown || !(names === "" || isLink)) wrong.push(element.outerHTML);
  }
  if (main.querySelectorAll("*").length !== 2 + (p?.querySelectorAll("*").length ?? 0)) wrong.push(main.innerHTML);
  const again = p?.innerHTML;
  if (p) p.innerHTML = again;
  if (p?.innerHTML !== again) wrong.push(again);
  for (const line of main.querySelectorAll("br")) line.replaceWith(" ");
  return [main.textContent, wrong];
})
""".replace("TAGS", repr(sorted(markup.TAGS)))


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """An empty page without any CSP, which may load nothing and run nothing of what is put into it."""
    noted: list[str] = []
    with judge.browser() as browser:
        page = browser.new_page()
        page.expose_binding("pwned", lambda source: noted.append("ran"))
        page.on("request", lambda request: noted.append(request.url))
        page.set_content("<!doctype html><body>")
        yield page
    assert noted == []


@pytest.fixture(scope="module")
def passed() -> Iterator[list[str]]:
    """The fragments that were not refused: enough of them, and not only text."""
    passed: list[str] = []
    yield passed
    assert len(passed) > 500
    assert sum("<" in html for html in passed) > 100


@settings(derandomize=True, database=None, deadline=None, max_examples=160, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(fragments, min_size=50, max_size=50))
def test_what_passes_is_in_a_browser_what_it_was_taken_for(page: Page, passed: list[str], batch: list[str]) -> None:
    cleaned = []
    for html in batch:
        try:
            cleaned.append(markup.inline(html))
        except Unsafe:
            continue
    passed += cleaned
    for html, (text, wrong) in zip(cleaned, page.evaluate(READ, cleaned), strict=True):
        assert wrong == [], html
        assert text == markup.text(html), html


@pytest.mark.parametrize(
    "html",
    [
        "x</p>y",
        "<svg></svg>",
        "<b title=x>y</b>",
        '<a href="javascript:x" rel="noopener noreferrer">y</a>',
        "<a rel=x>y</a>",
        "</p></article><b>x</b>",
        "<!-- x --><p>y",
    ],
)
def test_the_browser_sees_what_would_be_wrong(page: Page, html: str) -> None:
    ((_, wrong),) = page.evaluate(READ, [html])
    assert wrong
