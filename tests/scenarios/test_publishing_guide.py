"""docs/publishing.md: each piece is run as it stands in the page, one after the other, against a server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ..support.server import LIMIT, ROOT, Running, clean_environment, reader, receive

PAGE = (ROOT / "docs" / "publishing.md").read_text()
TOOLS = {"curl": "curl", "Python": "python3", "Node": "node", "Shell": "sh"}
OTHERS = [name for name in TOOLS if name != "Python"]


def pieces(language: str) -> list[tuple[str, str]]:
    """The fenced pieces of a language's section: (kind, text)."""
    (section,) = re.findall(rf"^## {language}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pieces are run: `pushserver` and `python3` are found, as an installation would have it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, arguments in {"pushserver": "-m pushserver", "python3": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (tools / name).chmod(0o700)
    return tmp_path


def environment(server: Running, folder: Path) -> dict[str, str]:
    """The environment that the first piece of the page makes; each folder has an article of its own."""
    return {
        **clean_environment(),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PUSHSERVER_URL": server.url,
        "PUSHSERVER_KEY": server.key,
        "ARTICLE": f"bridge-{zlib.crc32(bytes(folder))}",
    }


@contextmanager
def running(server: Running, folder: Path, kind: str, text: str) -> Iterator[subprocess.Popen[str]]:
    """A piece that runs, with all that it starts."""
    suffix, command = {"sh": (".sh", "sh"), "python": (".py", "python3"), "js": (".mjs", "node")}[kind]
    file = folder / f"piece{suffix}"
    file.write_text(text)
    tools = environment(server, folder)
    with subprocess.Popen(
        [shutil.which(command, path=tools["PATH"]) or command, file.name],
        cwd=folder,
        env=tools,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)


def run(server: Running, folder: Path, piece: tuple[str, str]) -> None:
    with running(server, folder, *piece) as process:
        said, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said


@pytest.mark.parametrize("language", ["Python", *(pytest.param(name, marks=pytest.mark.full) for name in OTHERS)])
def test_the_pieces_of_the_page_do_what_it_says(start: Callable[..., Running], folder: Path, language: str) -> None:
    if shutil.which(TOOLS[language]) is None:
        pytest.skip(f"{TOOLS[language]} is not installed")
    server = start()
    found = pieces(language)
    for kind, text in found:
        named = re.match(r"// (\S+)\n", text)
        if kind == "js" and named:
            (folder / named[1]).write_text(text)
    publish, correct, withdraw, page, follow = (piece for piece in found if not piece[1].startswith("// "))

    run(server, folder, publish)
    (entry,) = entries(server)
    assert (entry["headline"], entry["rev"]) == ("Bridge reopened", 1)
    assert entry["blocks"] == [{"type": "paragraph", "html": "Both lanes are <strong>open</strong>, the council says."}]

    run(server, folder, correct)
    (corrected,) = entries(server)
    assert (corrected["id"], corrected["headline"]) == (entry["id"], "Bridge reopened")
    assert corrected["blocks"] == [{"type": "paragraph", "html": "One lane is open."}]
    assert corrected["correction"]["note"] == "One lane, not both."

    run(server, folder, withdraw)
    assert entries(server) == []
    gone = server.http.get(f"/streams/storm/entries/{entry['id']}")
    assert (gone.status_code, gone.json()["detail"]) == (410, "It was another bridge.")

    run(server, folder, page)
    assert server.snapshot("storm")["page"]["headline"] == "Storm reaches the coast"

    asyncio.run(follows(server, folder, follow))


def test_the_pieces_of_further_tasks_run(start: Callable[..., Running], folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    server = start()
    picture, dry_run, batch, batch_in_python, seen = pieces("More tasks")
    run(server, folder, picture)
    (entry,) = entries(server)
    assert [block["type"] for block in entry["blocks"]] == ["image", "paragraph"]
    run(server, folder, dry_run)
    assert entries(server) == [entry]
    run(server, folder, batch)
    run(server, folder, batch)
    run(server, folder, batch_in_python)
    run(server, folder, seen)
    headlines = ["Power is back in the north", "Schools reopen", "Schools close", "Trains stop", "Ferries stop"]
    assert [entry["headline"] for entry in entries(server)] == [*headlines, "The harbour at noon"]


def entries(server: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.snapshot("storm")["entries"]
    return found


async def follows(server: Running, folder: Path, piece: tuple[str, str]) -> None:
    """Lines that are there and lines that come are published in order; started again, only what is new."""
    scores = folder / "scores.log"
    scores.write_text("Home 0, Away 0\n \n\n")  # blank lines are passed over
    async with reader(server, "storm", cursor=server.snapshot("storm")["cursor"]) as socket:

        async def published() -> str:
            async with asyncio.timeout(LIMIT):
                headline: str = (await receive(socket, "entry.put"))["entry"]["headline"]
                return headline

        with running(server, folder, *piece):
            assert await published() == "Home 0, Away 0"
            for line in ('"Own goal": C:\\ & <Zoë>', "Home 1, Away 0"):
                with scores.open("a") as file:
                    file.write(f"{line}\n")
                assert await published() == line
        with running(server, folder, *piece):
            with scores.open("a") as file:
                file.write("Home 1, Away 0\n")
            assert await published() == "Home 1, Away 0"
    assert len(entries(server)) == 4


@pytest.mark.full
def test_each_section_works_after_the_others_and_the_whole_page_twice(
    start: Callable[..., Running], folder: Path
) -> None:
    server = start()
    for time in ("first", "second"):
        place = folder / time
        shutil.copytree(folder / "bin", place / "bin")
        for language, tool in TOOLS.items():
            if shutil.which(tool) is None:
                continue
            helpers = [piece for piece in pieces(language) if piece[1].startswith("// ")]
            for _, text in helpers:
                (place / text.split()[1]).write_text(text)
            *four, _ = [piece for piece in pieces(language) if piece not in helpers]
            for piece in four:
                run(server, place, piece)
        run(server, place, next(piece for piece in pieces("The client alone") if piece[0] == "python"))
    assert entries(server) == []


def test_every_language_does_the_same_five_things() -> None:
    # tests/scenarios/test_client_alone.py runs the last section.
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert headings == [
        *TOOLS,
        "More tasks",
        "Before a key is used too often",
        "What a body may be",
        "The client alone",
    ]
    for language in TOOLS:
        assert len([text for _, text in pieces(language) if not text.startswith("// ")]) == 5


def test_who_has_no_key_is_told_how_to_get_one_and_it_works(start: Callable[..., Running], folder: Path) -> None:
    server = start()
    refused = server.publish("storm", {"headline": "One"}, Authorization="Bearer none")
    assert refused.status_code == 401
    (command,) = re.findall("`(.*)`", refused.json()["detail"])
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=server.data.parent,
        env=environment(server, folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accepted = server.publish("storm", {"headline": "One"}, Authorization=f"Bearer {done.stdout.strip()}")
    assert accepted.status_code == 201
