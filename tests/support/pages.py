"""A live page in a real Chromium: to open it, to read what it shows, and to compare that with a fresh load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from .judge import CHROMIUM
from .proxy import Proxy
from .server import Running, Served

NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PAGE = {
    "kicker": "River levels",
    "headline": "Villages wait for the crest",
    "dek": "Sandbags are out & pumps are running.",
    "timezone": "America/New_York",
    "lang": "en-US",
    "topics": [{"label": "Weather"}],
}
TEXT = "The river has risen again since the morning, and the lower road is closed. " * 6
TOP = "id => document.getElementById(id).getBoundingClientRect().top"

# The DOM of a page without what is the reader's own: the element #local, and attributes data-local….
SHARED = """() => {
    const copy = document.querySelector("#live").cloneNode(true);
    for (const element of [copy, ...copy.querySelectorAll("*")]) {
        for (const name of element.getAttributeNames()) {
            if (name.startsWith("data-local")) element.removeAttribute(name);
        }
    }
    copy.querySelector("#local").remove();
    for (const name of ["data-cursor", "data-n"]) copy.removeAttribute(name); // of the load
    return copy.outerHTML.split(/(?=<article)/);
}"""
WAITS = """first => !document.querySelector("#notice").hidden
    || document.querySelector("article h3")?.textContent === first"""


@contextmanager
def faultless_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error, no blocked content. `options` are those of a context."""
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # A server that stops refuses a page that comes back; then the page asks why.
        is_asking = "status of 503" in message.text and "/sse?" in message.location["url"]
        is_refused = is_asking or "Unexpected response code: 503" in message.text
        # And it may give up a connection before it is made.
        is_given_up = "closed before the connection is established" in message.text
        is_expected = is_refused or is_given_up or "ERR_CONNECTION" in message.text
        if message.type in ("error", "warning") and not is_expected:
            complaints.append(message.text)

    with browser.new_context(**options) as context:
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert not complaints, complaints


def open_live(page: Page, server: Running | Proxy, stream: str) -> None:
    """Load the page of a stream and wait until it is live."""
    page.goto(f"{server.url}/streams/{stream}")
    expect(page.locator("#status")).to_have_attribute("data-state", "live")


def live_parts(page: Page) -> list[str]:
    """All that a reader sees, as the DOM has it, less what is the reader's own."""
    return [*page.evaluate(SHARED), page.title()]


def show_all(page: Page, first: str) -> None:
    """Let in what waits, until this headline is at the top."""
    while page.locator("article h3").first.text_content() != first:
        page.wait_for_function(WAITS, arg=first)
        if page.locator("#notice").is_visible():
            page.locator("#notice").dispatch_event("click")
    while page.locator("#notice").is_visible():
        page.locator("#notice").dispatch_event("click")


def assert_same_as_fresh(page: Page, server: Running | Proxy, stream: str) -> None:
    """The page as it became is, byte for byte, the page as it is served now, less what is the reader's own."""
    live = live_parts(page)
    fresh = page.context.new_page()
    open_live(fresh, server, stream)
    assert live_parts(fresh) == live
    fresh.close()


def put(server: Served, stream: str, id: str, **fields: Any) -> None:
    """Publish an entry of some lines under an id."""
    entry = {"headline": f"Entry {id}", **({} if "blocks" in fields else {"body": TEXT}), **fields}
    assert server.send("PUT", f"/streams/{stream}/entries/{id}", entry).status_code in (200, 201)


def withdraw(server: Running, stream: str, id: str) -> None:
    assert server.send("DELETE", f"/streams/{stream}/entries/{id}", b"").status_code == 200


def filled(page: Page, server: Running, stream: str, entries: int = 12) -> None:
    """A live page with so many entries, e01 the oldest."""
    server.put_page(stream, PAGE)
    for number in range(1, entries + 1):
        put(server, stream, f"e{number:02}", published_at=f"2026-03-01T{number:02}:00:00Z")
    open_live(page, server, stream)


def read(page: Page, id: str) -> None:
    """Scroll to an entry, as one who reads it."""
    page.evaluate("id => scrollBy(0, document.getElementById(id).getBoundingClientRect().top - 90)", id)
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
