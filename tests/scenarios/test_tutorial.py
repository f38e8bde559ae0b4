"""docs/tutorial.md is run as it stands: each fenced piece in its order, against a server and in a browser."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from ..support.judge import CHROMIUM, FLAGS
from ..support.server import ROOT, Running, clean_environment

TEXT = (ROOT / "docs" / "tutorial.md").read_text()
SERVER, SITE = "http://127.0.0.1:8000", "http://127.0.0.1:8080"


def section(number: int) -> list[tuple[str, str]]:
    """The fenced pieces of a section: (language, text)."""
    (text,) = re.findall(rf"^## {number}\. (.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


class Terminal:
    """A Terminal runs the pieces of the tutorial in the folder that has the data of the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._site = ""
        self.server: Running | None = None
        tools = folder / "bin"
        tools.mkdir()
        for name, arguments in {"pushserver": "-m pushserver", "python3": ""}.items():
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            (tools / name).chmod(0o700)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "activate").touch()

    def serve(self, text: str, start: Callable[..., Running]) -> None:
        """Start the server with the arguments of the last line of a piece."""
        command = shlex.split(self._here(text).splitlines()[-1])
        assert command[:2] == ["pushserver", "serve"]
        self.server = start(*command[2:])

    def type(self, text: str) -> str:
        """Run a piece in the second terminal, where the address and the key are set; its output."""
        (_, preparation) = section(2)[1]
        done = subprocess.run(
            ["sh", "-e", "-c", self._here(preparation + text)],
            cwd=self._folder,
            env={
                **clean_environment(),
                "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def save(self, text: str) -> None:
        """Save a piece as the file that its first line names."""
        name = re.match(r"(?:# |<!-- )(\S+)", text)
        assert name
        (self._folder / name[1]).write_text(self._here(text))

    @contextmanager
    def site(self) -> Iterator[str]:
        """Serve the folder as a web site; yields its address."""
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(self._folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
            threading.Thread(target=site.serve_forever, daemon=True).start()
            self._site = f"http://127.0.0.1:{site.server_port}"
            yield self._site
            site.shutdown()

    def _here(self, text: str) -> str:
        """A piece with the addresses of this test in place of those of the page."""
        if self.server is not None:
            text = text.replace(SERVER.removeprefix("http://"), self.server.url.removeprefix("http://"))
        return text.replace(SITE, self._site or SITE)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_pieces_of_the_tutorial_do_what_it_says(start: Callable[..., Running], tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    with terminal.site() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            publishes(terminal, start, browser.new_page())
            reads_elsewhere(terminal, start, browser.new_page(), site)
        finally:
            browser.close()


def publishes(terminal: Terminal, start: Callable[..., Running], page: Page) -> None:
    """Sections 2 to 8, with the live page open beside the terminal."""
    terminal.serve(section(2)[0][1], start)
    assert terminal.server

    assert "on disk" in terminal.type(section(3)[0][1])
    page.goto(f"{terminal.server.url}/streams/match")
    expect(page.locator("article h3")).to_have_text(["The teams are on the pitch"])
    expect(page.locator("#status")).to_have_text("Live")

    terminal.type(section(4)[0][1])
    expect(page.locator("h1")).to_have_text("Cup final: Northfield v Southport")
    fields = terminal.server.snapshot("match")["page"]
    assert (fields["kicker"], fields["timezone"], fields["lang"]) == ("Football", "Europe/London", "en-GB")

    for _ in range(2):  # sent twice, it is there once
        terminal.type(section(5)[0][1])
    expect(page.locator("article h3")).to_have_text(["Goal for Northfield", "The teams are on the pitch"])

    (_, script), (_, command) = section(6)
    terminal.save(script)
    assert terminal.type(command) == "/streams/match/entries/goal-2\n"
    expect(page.locator("#e-goal-2")).to_contain_text("1-1 by Ada Brook.")

    terminal.type(section(7)[0][1])
    expect(page.locator("#e-goal-2")).to_contain_text("1-1 by Mary Reed.")
    expect(page.locator("#e-goal-2")).to_contain_text("An earlier version named the wrong scorer.")

    terminal.type(section(8)[0][1])
    expect(page.locator("article h3")).to_have_text(["Goal for Southport", "The teams are on the pitch"])
    page.goto(f"{terminal.server.url}/streams/match/entries/goal-1")
    expect(page.locator("body")).to_contain_text("The goal was disallowed.")


def reads_elsewhere(terminal: Terminal, start: Callable[..., Running], page: Page, site: str) -> None:
    """Sections 9 and 10, with a page of another site open."""
    (_, serve), (_, board), (_, web_server), (_, publish) = section(9)
    assert terminal.server
    terminal.server.stop()
    terminal.serve(serve, start)
    terminal.save(board)
    assert web_server == f"python3 -m http.server {SITE.rpartition(':')[2]} --bind 127.0.0.1\n"

    page.goto(f"{site}/board.html")
    expect(page.locator("li")).to_have_text(["Goal for Southport", "The teams are on the pitch"])
    terminal.type(publish)
    expect(page.locator("li")).to_have_text(["Full time", "Goal for Southport", "The teams are on the pitch"])

    (_, end), (_, open_again) = section(10)
    terminal.type(end)
    ended = terminal.server.snapshot("match")["page"]
    assert (ended["state"], ended["next"]["label"]) == ("ended", "Match report")
    assert terminal.server.publish("match", {"headline": "Too late"}).status_code == 409

    terminal.type(open_again)
    live = terminal.server.snapshot("match")["page"]
    assert (live["state"], "next" in live, "coverage_end" in live) == ("live", False, False)
    terminal.server.publish_ok("match", "Extra time")


def test_the_tutorial_installs_with_a_target_of_the_makefile() -> None:
    (_, command) = section(1)[0]
    done = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_piece_of_the_tutorial_is_run() -> None:
    counts = [len(section(number)) for number in range(1, 11)]
    assert counts == [1, 2, 1, 1, 1, 2, 1, 1, 4, 2]
    assert sum(counts) == len(re.findall(r"^```\w", TEXT, re.MULTILINE))
