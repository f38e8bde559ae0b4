"""A browser as the judge of what publishers send: what runs, what loads, and what stands in the document."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Dialog, Page, Request, Route, expect, sync_playwright

from .server import LIMIT

expect.set_options(timeout=LIMIT * 1000)  # else 5 s, in which a busy machine may not have drawn a page
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
# {kind, text}: of the classes that are known, in our own spelling
ATTACKS = [json.loads(line) for line in Path(__file__).with_name("attacks.jsonl").read_text().split("\n") if line]
SCRIPT = Path(__file__).with_suffix(".js").read_text().partition("\n")[2].strip()  # an object, in brackets


class Judge:
    """A page of a browser that notes all that publishers must not be able to do. `origin` is the server's."""

    def __init__(self, browser: Browser, origin: str, *, bypass_csp: bool) -> None:
        self.origin = origin
        self._noted: list[str] = []
        self._loads: list[Request] = []
        self._pictures: set[str] = set()
        self.context = browser.new_context(bypass_csp=bypass_csp, extra_http_headers={"Accept": "text/html"})
        self.context.expose_binding("tell", lambda source, kind, what: self._noted.append(f"{kind}: {what}"))
        self.context.add_init_script(f"{SCRIPT}.listen()")
        self.context.route(lambda url: not url.startswith(f"{origin}/"), self._load)
        self.context.on("dialog", self._dialog)
        self.context.set_default_timeout(LIMIT * 1000)
        self.page = self.context.new_page()
        self.context.on("weberror", lambda error: self._noted.append(f"error: {error.error}"))

    def _load(self, route: Route) -> None:
        self._loads.append(route.request)
        route.abort()

    def _dialog(self, dialog: Dialog) -> None:
        self._noted.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> Page:
        self._path = path
        self.page.goto(self.origin + path)
        return self.page

    def ask(self, question: str) -> Any:
        """What a function of `judge.js` finds on the page."""
        return self.page.evaluate(f"() => {SCRIPT}.{question}()")

    def judge(self, *, audit: bool = True) -> None:
        """Nothing ran, was blocked, or loaded from elsewhere, but for the pictures of image blocks."""
        faults = self.ask("audit") if audit else []
        self._pictures.update(self.ask("pictures"))
        for request in self._loads:
            if request.resource_type != "image" or request.url not in self._pictures:
                faults.append(f"load: {request.resource_type} {request.url}")
        if self.page.url != self.origin + self._path or len(self.page.frames) != 1 or len(self.context.pages) != 1:
            faults.append(f"{self.page.url} with {len(self.page.frames)} frames, {len(self.context.pages)} pages")
        wrong = [*self._noted, *faults]
        assert not wrong, "\n".join(wrong)

    def names(self, fault: str) -> bool:
        """Whether `judge` refuses the page, and names this."""
        try:
            self.judge()
        except AssertionError as refused:
            return fault in str(refused)
        return False


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
