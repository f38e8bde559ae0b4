"""What an attacker with a publish key sends: each attack in every field, in a real Chromium.

An attack is refused with 4xx, or stored. What is stored is shown live, on a fresh load and on an entry's own page, once
with the page's CSP, which must have nothing to block, and once without it: then nothing but the sanitiser is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as xml

import pytest
from playwright.sync_api import Browser, expect

from ..support import judge
from ..support.judge import ATTACKS, Judge
from ..support.server import Running, running, until

pytestmark = pytest.mark.skipif(judge.CHROMIUM is None, reason="chromium is not installed")

BUNDLE = 16  # attacks on one page
SAMPLE = 3  # bundles that `make test` sends; `make test-all` sends all of them

URL = "https://a.example/"
IMAGE = {"type": "image", "src": "/static/icon.svg", "width": 8, "height": 8, "alt": "a", "caption": "b", "credit": "c"}
POST = {"type": "social_post", "platform": "a", "author_name": "b", "text": "c"}

# Where § stands is where an attack goes.
BLOCKS: dict[str, dict[str, Any]] = {
    "paragraph html": {"type": "paragraph", "html": "§"},
    "paragraph in text": {"type": "paragraph", "html": "a <b>§</b> c"},
    "paragraph link": {"type": "paragraph", "html": '<a href="§">x</a>'},
    "paragraph bare link": {"type": "paragraph", "html": "<a href=§>x</a>"},
    "heading text": {"type": "heading", "text": "§"},
    "list item": {"type": "list", "items": ["a", "§"]},
    "inner item": {
        "type": "list",
        "items": [{"html": "a", "list": {"items": [{"html": "b", "list": {"items": ["§"]}}]}}],
    },
    "item before a list": {
        "type": "list",
        "items": [{"html": "§", "list": {"ordered": True, "start": 7, "items": ["a"]}}],
    },
    "table head": {"type": "table", "head": ["a", "§"], "rows": [["b", "c"]]},
    "table cell": {"type": "table", "head": ["a"], "align": ["right"], "rows": [["b"], ["§"]]},
    "quote html": {"type": "quote", "html": "§"},
    "quote cite": {"type": "quote", "html": "a", "cite": "§"},
    "image src": {**IMAGE, "src": "§"},
    "image alt": {**IMAGE, "alt": "§"},
    "image caption": {**IMAGE, "caption": "§"},
    "image credit": {**IMAGE, "credit": "§"},
    "post platform": {**POST, "platform": "§"},
    "post author": {**POST, "author_name": "§"},
    "post handle": {**POST, "handle": "§"},
    "post text": {**POST, "text": "§"},
    "post url": {**POST, "url": "§"},
    "embed url": {"type": "embed", "url": "§", "title": "a"},
    "embed title": {"type": "embed", "url": URL, "title": "§"},
    "embed html": {"type": "embed", "url": URL, "title": "a", "html": "§"},
}
FIELDS: dict[str, dict[str, Any]] = {
    "headline": {"headline": "§"},
    "tag": {"headline": "a", "tags": ["§"]},
    "byline name": {"headline": "a", "bylines": [{"name": "§"}, {"name": "a"}]},
    "byline org": {"headline": "a", "bylines": [{"name": "a", "org": "§"}]},
    "byline role": {"headline": "a", "bylines": [{"name": "a", "role": "§"}]},
    "body": {"body": "§"},
    "body in text": {"body": "a *b* §"},
    "body heading": {"body": "# §"},
    "body quote": {"body": "> §"},
    "body list": {"body": "- a\n- §"},
    "body inner list": {"body": "- a\n  3. §"},
    "body table head": {"body": "| a | § |\n|---|---|\n| b | c |"},
    "body table cell": {"body": "| a |\n|:-:|\n| § |"},
    "body bare link": {"body": "https://a.example/§"},
    "body paragraph": {"body": "<p>§</p>"},
    "body code": {"body": "`` § ``"},
    "body fence": {"body": "~~~ §\n§\n~~~"},
    "body link": {"body": "[x](<§>)"},
    "body link text": {"body": "[§](https://a.example/)"},
    "body link title": {"body": '[x](https://a.example/ "§")'},
    "body reference": {"body": "[x][1]\n\n[1]: <§>"},
    "body autolink": {"body": "<§>"},
    "body image": {"body": "![a](<§>)"},
    "body block": {"body": "<div>§</div>"},
    **{name: {"blocks": [block]} for name, block in BLOCKS.items()},
}
Entries = dict[tuple[str, ...], dict[str, Any]]  # by the fields that an attack stands in

# What is plain text to the server stands in one entry: it is refused for any of its fields, or stored with all.
PLAIN = (
    *("headline", "tag", "byline name", "byline org", "byline role", "heading text", "quote cite", "image alt"),
    *("image caption", "image credit", "post platform", "post author", "post handle", "post text", "embed title"),
)
BY_THEMSELVES: Entries = {(name,): entry for name, entry in FIELDS.items()}
TOGETHER: Entries = {
    PLAIN: {
        "headline": "§",
        "tags": ["§"],
        "bylines": [{"name": "§", "org": "§", "role": "§"}, {"name": "§"}],
        "blocks": [BLOCKS[name] for name in PLAIN if name in BLOCKS],
    },
    **{names: entry for names, entry in BY_THEMSELVES.items() if names[0] not in PLAIN},
}
ALWAYS_REFUSED = {"body image", "body link title", "body block"}
PAGES: list[dict[str, Any]] = [
    {
        **dict.fromkeys(("headline", "kicker", "dek", "intro", "timezone", "lang", "dir", "state"), "§"),
        "previous": [{"label": "§", "url": URL}, {"label": "a", "url": "§"}],
        "topics": [{"label": "§"}, {"label": "a", "url": "§"}],
        "next": {"label": "§", "url": URL},
        "background": [BLOCKS["paragraph html"], BLOCKS["image alt"], BLOCKS["image src"], BLOCKS["embed url"]],
    },
    {"headline": "a", "next": {"label": "a", "url": "§"}},
]


def fill(value: Any, text: str) -> Any:
    """A field's value with an attack in its place."""
    if isinstance(value, str):
        return value.replace("§", text)
    if isinstance(value, list):
        return [fill(item, text) for item in value]
    return {name: fill(item, text) for name, item in value.items()} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with judge.browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose pages are long."""
    with running(tmp_path_factory.mktemp("attacks") / "data", "--page-entries", "500") as server:
        yield server


@pytest.fixture(scope="module")
def courts(browser: Browser, shown: Running) -> Iterator[list[Judge]]:
    """Readers with the page's CSP, and without."""
    courts = [Judge(browser, shown.url, bypass_csp=bypass) for bypass in (False, True)]
    yield courts
    for court in courts:
        court.context.close()


# --- sending


def send_entries(server: Running, stream: str, texts: list[str], entries: Entries) -> dict[str, list[str]]:
    """Every attack in every one of the entries; those that were stored, by field."""
    sent = [(names, text, fill(entry, text)) for text in texts for names, entry in entries.items()]
    stored: dict[str, list[str]] = {name: [] for name in FIELDS}
    for start in range(0, len(sent), 1_000):
        batch = sent[start : start + 1_000]
        lines = "\n".join(json.dumps(entry) for _, _, entry in batch).encode()
        answer = server.send("POST", f"/streams/{stream}/entries", lines, Content_Type="application/x-ndjson")
        for (names, text, _), line in zip(batch, answer.content.split(b"\n"), strict=False):
            outcome = json.loads(line)
            assert outcome["status"] in (201, 400, 422), outcome
            if outcome["status"] == 201:
                for name in names:
                    stored[name].append(text)
            else:
                assert outcome["errors"], outcome
    return stored


def send_page(server: Running, stream: str, page: dict[str, Any]) -> dict[str, Any]:
    """A page without those of its fields that the server refuses; what is left is stored."""
    answer = server.put_page(stream, page)
    if answer.status_code == 422:
        faults = {fault["field"] for fault in answer.json()["errors"]}
        page = {"headline": "a", **without(page, faults)}
        answer = server.put_page(stream, page)
    assert answer.status_code in (200, 201), answer.text
    return page


def without(page: dict[str, Any], faults: set[str]) -> dict[str, Any]:
    accepted: dict[str, Any] = {}
    for name, value in page.items():
        bad = [fault.split(".")[1:] for fault in faults if fault.split(".")[0] == name]
        if isinstance(value, list):
            accepted[name] = [item for at, item in enumerate(value) if not any(path[0] == str(at) for path in bad)]
        elif not bad:
            accepted[name] = value
    return accepted


def chunks(texts: list[str]) -> list[list[str]]:
    """Attacks that stand together in one line, as many as it may hold."""
    together: list[list[str]] = []
    for text in texts:
        if not together or len(together[-1]) == 8 or len(" ".join([*together[-1], text])) > 300:
            together.append([])
        together[-1].append(text)
    return together


def send_together(server: Running, stream: str, stored: dict[str, list[str]]) -> list[str]:
    """What was stored one by one, together: entries with a correction, withdrawals, a page. The entries' addresses."""
    paths = []
    for number, chunk in enumerate(chunks(stored["headline"])):
        line = " ".join(chunk)
        entry = {
            "headline": line,
            "blocks": [fill(block, text) for text in chunk for name, block in BLOCKS.items() if text in stored[name]],
            "bylines": [{"name": text, "org": text, "role": text} for text in chunk],
            "tags": chunk,
        }
        path, gone = (f"/streams/{stream}/entries/{name}{number}" for name in ("all", "gone"))
        assert server.send("PUT", path, entry).status_code == 201
        correction = {"class": "correction", "note": line}
        assert server.send("PATCH", path, {"correction": correction}).status_code == 200
        assert server.send("PUT", gone, {"headline": line}).status_code == 201
        assert server.send("DELETE", f"{gone}?note={quote(line)}", b"").status_code == 200
        assert server.send("PATCH", f"/streams/{stream}", {"headline": line, "kicker": line}).status_code == 200
        paths += [path, gone]
    labels, urls, all_texts = stored["headline"], stored["embed url"], " ".join(stored["post text"])
    links = [*({"label": text, "url": URL} for text in labels), *({"label": "a", "url": url} for url in urls)]
    rest = {"dek": all_texts, "intro": all_texts, "previous": links[:20], "topics": links}
    if labels:
        assert server.send("PATCH", f"/streams/{stream}", rest).status_code == 200
    return paths


# --- judging


def words(entry: dict[str, Any]) -> list[str]:
    """What a page has to show of an entry as text, in the order of the page."""
    fields = [entry["headline"]] if "headline" in entry else []
    for block in entry["blocks"]:
        match block["type"]:
            case "heading":
                fields.append(block["text"])
            case "quote" if "cite" in block:
                fields.append(block["cite"])
            case "image":
                fields += [block["src"], block["alt"], block["credit"]]
            case "social_post":
                fields += [block["text"], *([block["url"]] if "url" in block else [])]
            case "embed":
                fields += [block["title"], block["url"]]
    return fields + [byline["name"] for byline in entry["bylines"]]


def judge_live_and_fresh(court: Judge, server: Running, stream: str) -> None:
    """The page as it became, and as it is served: harmless, and every text on it the text that was sent."""
    snapshot = server.http.get(f"/streams/{stream}/entries?limit=500").json()
    assert snapshot["older"] is None
    expected = {f"e-{entry['id']}": words(entry) for entry in snapshot["entries"]}
    while not court.page.locator("#e-last").count():  # what comes while a page is read from its middle waits
        # On a page of hundreds of entries each event costs tens of ms: a busy machine takes minutes for all of them.
        court.page.wait_for_function("() => document.querySelector('#e-last, #notice:not([hidden])')", timeout=0)
        if court.page.locator("#notice").is_visible():
            court.page.locator("#notice").dispatch_event("click")
    for _ in range(2):
        expect(court.page.locator("#status")).to_have_attribute("data-state", "live")
        court.judge()
        assert court.ask("shown") == expected
        assert court.page.locator("h1").text_content() == snapshot["page"]["headline"]
        court.page.reload()


def open_live(courts: list[Judge], stream: str) -> None:
    for court in courts:
        page = court.open(f"/streams/{stream}")
        expect(page.locator("#status")).to_have_attribute("data-state", "live")


BUNDLES = [
    (kind, [attack["text"] for attack in attacks[start : start + BUNDLE]])
    for kind in dict.fromkeys(attack["kind"] for attack in ATTACKS)
    for attacks in [[attack for attack in ATTACKS if attack["kind"] == kind]]
    for start in range(0, len(attacks), BUNDLE)
]


@pytest.mark.parametrize(
    "number",
    [pytest.param(number, marks=() if number < SAMPLE else pytest.mark.full) for number in range(len(BUNDLES))],
    ids=lambda number: f"{BUNDLES[number][0]} {number}",
)
def test_nothing_that_is_published_runs_or_loads(shown: Running, courts: list[Judge], number: int) -> None:
    stream, texts = f"attacks-{number}", BUNDLES[number][1]
    assert shown.put_page(stream, {"headline": "a"}).status_code == 201
    open_live(courts, stream)
    stored = send_entries(shown, stream, texts, TOGETHER)
    for text in texts:
        for fields in PAGES:
            send_page(shown, stream, fill(fields, text))
    paths = send_together(shown, stream, stored)
    assert shown.send("PUT", f"/streams/{stream}/entries/last", {"headline": "Last"}).status_code == 201
    for court in courts:
        judge_live_and_fresh(court, shown, stream)
    for court, path in [(courts[0], path) for path in paths[:2]] + [(courts[1], path) for path in [*paths, "/"]]:
        court.open(path)
        court.judge()
    judge_feeds(courts[1], shown, stream)


def judge_feeds(court: Judge, server: Running, stream: str) -> None:
    """The feeds can be read, and their HTML is harmless to whoever trusts it."""
    xml.fromstring(server.http.get(f"/streams/{stream}/feed.atom").content)
    items = server.http.get(f"/streams/{stream}/feed.json").json()["items"]
    html = "".join(item["content_html"] for item in items)
    page = court.open(f"/streams/{stream}/entries/last")
    page.evaluate("html => { document.querySelector('main').innerHTML = html; }", html)
    court.judge()
    for path in ("feed.atom", "feed.json", "entries", "entries?before=%3Cimg%20src=x%20onerror=pwned()%3E"):
        court.open(f"/streams/{stream}/{path}")
        court.judge(audit=False)


def test_every_field_of_the_table_takes_what_is_good_and_refuses_what_is_not(shown: Running) -> None:
    stored = send_entries(shown, "attacks-table", ["\0", URL], BY_THEMSELVES)
    assert stored == {name: [] if name in ALWAYS_REFUSED else [URL] for name in FIELDS}
    for page in PAGES:
        page_sent = send_page(shown, "attacks-table", fill(page, URL))
        assert page_sent == without(fill(page, URL), {"timezone", "lang", "dir", "state"})
        page_sent = send_page(shown, "attacks-table", fill(page, "\0"))
        assert "\0" not in json.dumps(page_sent)


@pytest.mark.full
def test_entries_by_the_names_of_what_a_page_is_made_of_do_it_no_harm(shown: Running, courts: list[Judge]) -> None:
    stream = "attacks-ids"
    shown.put_page(stream, {"headline": "a"})
    open_live(courts, stream)
    names = [attack["text"] for attack in ATTACKS if attack["kind"] == "name"]
    sent = [
        shown.send("PUT", f"/streams/{stream}/entries/{quote(name, safe='')}", {"headline": name}) for name in names
    ]
    assert sum(answer.status_code == 201 for answer in sent) > 20
    shown.send("DELETE", f"/streams/{stream}/entries/constructor", b"")
    shown.send("PATCH", f"/streams/{stream}/entries/status", {"headline": "changed"})
    assert shown.send("PUT", f"/streams/{stream}/entries/last", {"headline": "Last"}).status_code == 201
    for court in courts:
        judge_live_and_fresh(court, shown, stream)


# --- the judge


@pytest.mark.full
@pytest.mark.parametrize(
    ("script", "noted", "blocks"),
    [
        ("document.body.innerHTML = '<img src=x onerror=pwned()>'", "ran: pwned", "blocked: require-trusted-types-for"),
        ("document.body.setAttribute('onclick', 'x')", "onclick=x", "blocked: require-trusted-types-for"),
        ("setTimeout('alert(1)')", "ran: alert", "blocked: require-trusted-types-for"),
        ("document.body.append(Object.assign(new Image(), { src: '//evil.example/' }))", "load: image", "load: image"),
        ("fetch('https://evil.example/').catch(() => 0)", "load: fetch", "blocked: connect-src"),
        ("document.body.append(document.createElement('iframe'))", "<iframe>", "<iframe>"),
        ("document.body.style.color = 'red'", "style=", "style="),
        ("location.hash = '#elsewhere'", "#elsewhere", "#elsewhere"),
        ("trustedTypes.createPolicy('theirs', {})", None, "blocked: trusted-types"),
    ],
)
@pytest.mark.parametrize("bypass", [False, True], ids=["with its CSP", "without its CSP"])
def test_the_judge_sees_it(
    browser: Browser, shown: Running, script: str, noted: str | None, blocks: str, bypass: bool
) -> None:
    shown.publish_ok("attacks-judge", "a")
    court = Judge(browser, shown.url, bypass_csp=bypass)
    page = court.open("/streams/attacks-judge")
    court.judge()
    page.evaluate(f"() => {{ try {{ {script} }} catch {{}} }}")
    expected = noted if bypass else blocks
    if expected is None:
        court.judge()
    else:
        until(lambda: court.names(expected))
    court.context.close()
