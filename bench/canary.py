"""The script measures how long the worst inputs that the limits allow hold up everyone else on a worker.

    .venv/bin/python -m bench.canary                 # every kind of input once, single, in a batch and as a dry run
    .venv/bin/python -m bench.canary --examples 50   # and so many random ones of each kind
    .venv/bin/python -m bench.canary --only large    # the kinds with this word in their name
    .venv/bin/python -m bench.canary --checkout DIR  # the server of another checkout

Two canaries stand beside them: one asks `/livez` all the time, one reads a stream over WebSocket to which an entry
goes every 20 ms. The script prints the longest wait of each beside each kind of input. The exit status is 1 where one
is longer than LIMIT_MS. Another process sends the inputs, so that the canaries wait for the server and not for it.
A server of its own is started, on loopback, and stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from tests.support.server import Running, running

LIMIT_MS = 50.0
PACE = 0.02  # seconds between two entries for the canary that reads
REQUEST_LIMIT = 120.0  # seconds for one request of the generator
BODY, HTML, LINE = 49_000, 19_900, 60_000  # characters of a body and a block's HTML, bytes of a request: just allowed
BATCH = 60  # lines
LARGE = 100  # entries on the page of large ones
JSON, NDJSON = "application/json", "application/x-ndjson"

# Fragments that parsers of HTML and Markdown take long for, each repeated as often as the limit allows.
HTML_PARTS = [
    *"<a ¦<b ¦<a/¦<br ¦<¦</¦<!--¦<!¦<![CDATA[¦<?¦&¦&#¦&amp¦<a href=¦<a href='¦<em\n¦</b>¦x</b>¦<b>¦<b><i>".split("¦"),
    *'<a href="https://a.example">¦\u0301¦a\u0301¦\U0001f469\u200d'.split("¦"),
]
MARKDOWN_PARTS = [
    *'[¦![¦[a](¦[a]: b\n¦[a][b] ¦]¦[](<¦[a](b "¦[^1]¦`¦`a¦``a`¦**¦*a ¦*a_ ¦_¦a**b¦***a¦*_¦~~¦~¦<¦<a ¦<!--¦<b>'.split(
        "¦"
    ),
    *">¦> ¦- ¦1. ¦    ¦\t¦#¦# a\n¦|¦|a¦|a|b|\n¦\\¦&#0;¦http://a.example ¦www.a.example/¦a\u0301¦\u2068¦((((".split("¦"),
    *["x" * 79 + "\n", "\n", "a  \n"],
]
NESTED = [9 * before + "a" + 9 * after for before, after in (("[", "]"), ("*a ", "*"), ("<b>", "</b>"), ("`", "``"))]
NESTED += [9 * prefix + "a\n" for prefix in ("> ", "- ", "1. ", "#")]


class Input(NamedTuple):
    """One request of the generator, and the kind of input that it is."""

    kind: str
    method: str
    path: str
    content: bytes = b""
    type: str = JSON


# --- inputs


def fragment(part: str, size: int) -> str:
    return part * (size // len(part))


def classics() -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of one fragment, repeated."""
    for part in HTML_PARTS:
        html = fragment(part, HTML)
        yield f"html {part!r}", {"blocks": [{"type": "paragraph", "html": html}] * max(1, LINE // len(encoded(html)))}
    for part in MARKDOWN_PARTS + NESTED:
        yield f"markdown {part!r}", {"body": fragment(part, BODY)}
    yield "many blocks", {"blocks": [{"type": "paragraph", "html": "<b>a</b>"}] * 200}
    yield "list of many items", {"blocks": [{"type": "list", "items": ["<i>a</i>"] * 200}] * 15}
    yield "tags and bylines", {"headline": "x" * 300, "tags": ["t" * 200] * 50, "bylines": [{"name": "n" * 100}] * 20}


def random_entries(examples: int) -> list[tuple[str, dict[str, Any]]]:
    """Entries of a few fragments, in any order, repeated."""
    drawn: list[tuple[str, dict[str, Any]]] = []
    parts = st.lists(
        st.sampled_from([*HTML_PARTS, *MARKDOWN_PARTS, "a", " ", "\n\n", ">", '"', ")"]), min_size=2, max_size=6
    )

    @settings(
        max_examples=max(1, examples),
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(parts, st.booleans())
    def draw(words: list[str], is_html: bool) -> None:
        part = "".join(words)
        entry = (
            {"blocks": [{"type": "paragraph", "html": fragment(part, HTML)}] * 2}
            if is_html
            else {"body": fragment(part, BODY)}
        )
        drawn.append((f"random {'html' if is_html else 'markdown'} {part!r}", entry))

    if examples:
        draw()
    return drawn


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def shown(kind: str) -> str:
    """A kind as it is printed: marks and the like by their numbers."""
    return kind.encode("ascii", "backslashreplace").decode()


def inputs(examples: int) -> Iterator[Input]:
    """Each entry by itself, as a dry run and in a batch; then what reads large entries."""
    for kind, entry in [*classics(), *random_entries(examples)]:
        content = encoded(entry)
        yield Input(kind, "POST", "/streams/worst/entries", content)
        yield Input(kind, "POST", "/streams/worst/entries?dry_run=1", content)
        lines = min(BATCH, 5 * 2**20 // (len(content) + 1))
        yield Input(kind, "POST", "/streams/worst/entries", b"\n".join([content] * lines), NDJSON)
    yield Input("batch of small lines", "POST", "/streams/small/entries", b'{"headline": "a"}\n' * 1_000, NDJSON)
    yield Input("batch of refused lines", "POST", "/streams/small/entries", b'{"nope": 1}\n' * 1_000, NDJSON)
    yield Input("batch that is no JSON", "POST", "/streams/small/entries", b"[" * 5_000 + b"\n" + b"{\n" * 900, NDJSON)
    html = ("word <b>word</b> &amp; " + "word " * 8) * 300
    large = encoded({"blocks": [{"type": "paragraph", "html": html}] * 3})
    for number in range(LARGE):
        yield Input("large entry", "PUT", f"/streams/large/entries/e{number}", large)
    for path in (
        "",
        "/entries",
        "/events",
        "/feed.atom",
        "/feed.json",
        "/entries/e1",
        "/export",
        "/sse",
        "/sse?format=html",
    ):
        yield Input(f"large stream {path or 'page'}", "GET", f"/streams/large{path}")
    yield Input("large stream restored", "RESTORE", "/streams/large")


# --- the generator


def generate(url: str, key: str, examples: int, only: str, started: Any) -> None:
    """Send every input of these kinds, one after the other; the kind of each goes into `started`, and a None."""
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=REQUEST_LIMIT) as http:
        for input in inputs(examples):
            if only not in input.kind and only not in shown(input.kind):
                continue
            started.put(input.kind)
            send(http, input)
            time.sleep(PACE)
    started.put(None)


def send(http: httpx2.Client, input: Input) -> None:
    if input.method == "RESTORE":
        lines = http.get(f"{input.path}/export").content.replace(b'"large"', b'"again"')
        http.post(
            "/streams/again/restore", content=lines[: 5 * 2**20].rpartition(b"\n")[0], headers={"Content-Type": NDJSON}
        ).raise_for_status()
    elif "/sse" in input.path:
        with http.stream("GET", input.path) as response:
            for line in response.iter_lines():
                if '"type":"snapshot"' in line[:40]:
                    return
    else:
        headers = {"Content-Type": input.type, "Accept": "text/html"} if input.content else {"Accept": "text/html"}
        answer = http.request(input.method, input.path, content=input.content or None, headers=headers)
        if input.method != "POST":  # a stream that is not there, or not large, would hold up nobody
            answer.raise_for_status()


# --- the canaries


class Waits:
    """Waits is the longest wait of a canary, by the kind of input that was being sent."""

    def __init__(self) -> None:
        self.kind = "nothing"
        self.longest: dict[str, float] = {}

    def note(self, kind: str, seconds: float) -> None:
        self.longest[kind] = max(self.longest.get(kind, 0.0), seconds * 1_000)

    def show(self, name: str, count: int = 10) -> float:
        """Print the kinds with the longest waits; the longest."""
        worst = sorted(self.longest.items(), key=lambda item: -item[1])
        print(f"\n{name}: longest wait by kind of input, ms")
        for kind, ms in worst[:count]:
            print(f"{ms:10.1f}  {kind}")
        beyond = sum(ms > LIMIT_MS for ms in self.longest.values())
        print(f"{beyond} of {len(worst)} kinds beyond {LIMIT_MS:.0f} ms")
        return worst[0][1] if worst else 0.0


async def alive(url: str, waits: Waits, kind: Callable[[], str]) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=REQUEST_LIMIT) as http:
        while True:
            before, began = kind(), time.monotonic()
            await http.get("/livez")
            waits.note(before, time.monotonic() - began)
            await asyncio.sleep(0.005)


async def reads(server: Running, cursor: str, waits: Waits, kind: Callable[[], str]) -> None:
    """Note how late each entry comes, from the instant at which it was due."""
    address = f"{server.url.replace('http', 'ws', 1)}/streams/canary/ws?cursor={cursor}"
    async with connect(address, proxy=None, open_timeout=REQUEST_LIMIT) as socket:
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "entry.put":
                sent, during = frame["entry"]["headline"].split(" ", 1)
                waits.note(during, time.monotonic() - float(sent))


async def sings(server: Running, kind: Callable[[], str]) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=REQUEST_LIMIT) as http:
        for _ in range(9_000):
            entry = {"headline": f"{time.monotonic()} {kind()[:200]}"}
            await http.post("/streams/canary/entries", json={"headline": entry["headline"].replace("\n", " ")})
            await asyncio.sleep(PACE)


async def watch(server: Running, examples: int, only: str) -> int:
    now, alive_waits, read_waits = ["nothing"], Waits(), Waits()
    cursor = (await asyncio.to_thread(server.publish_ok, "canary", "0 nothing"))["cursor"]
    context = multiprocessing.get_context("spawn")
    started: Any = context.Queue()
    generator = context.Process(target=generate, args=(server.url, server.key, examples, only, started), daemon=True)
    canaries = [
        asyncio.create_task(alive(server.url, alive_waits, lambda: now[0])),
        asyncio.create_task(reads(server, cursor, read_waits, lambda: now[0])),
        asyncio.create_task(sings(server, lambda: now[0])),
    ]
    await asyncio.sleep(2)
    generator.start()
    while (kind := await asyncio.to_thread(started.get)) is not None:
        now[0] = shown(kind)
    await asyncio.sleep(1)
    for task in canaries:
        task.cancel()
    generator.join()
    alone = [waits.longest.pop("nothing", 0.0) for waits in (alive_waits, read_waits)]
    print("with nothing else: /livez {:.1f} ms, a reader {:.1f} ms".format(*alone))
    longest = alive_waits.show("/livez"), read_waits.show("a reader's live delivery, its publish included")
    return int(max(longest) > LIMIT_MS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--checkout", type=Path)
    options = parser.parse_args()
    env = {"PYTHONPATH": str(options.checkout), "PYTHONSAFEPATH": "1"} if options.checkout else None
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", env=env) as server:
        return asyncio.run(watch(server, options.examples, options.only))


if __name__ == "__main__":
    sys.exit(main())
