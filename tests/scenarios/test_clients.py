"""Clients that others have written follow a stream with the lines of their README, over a restart and a refusal."""

from __future__ import annotations

import importlib.util
import json
import queue
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from ..support.server import LIMIT, ROOT, STOP_LIMIT, Running, clean_environment

pytestmark = pytest.mark.full

NODE, NPM = shutil.which("node"), shutil.which("npm")

# Each script prints the data of every message, a line each. `URL` is the stream's address.

FETCH_EVENT_SOURCE = """
globalThis.window = globalThis;  // it is made for browsers
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { EventStreamContentType, fetchEventSource } = require("@microsoft/fetch-event-source");
class RetriableError extends Error { }
class FatalError extends Error { }
fetchEventSource(URL + "/sse", {
    async onopen(response) {
        if (response.ok && response.headers.get('content-type') === EventStreamContentType) {
            return; // everything's good
        } else if (response.status >= 400 && response.status < 500 && response.status !== 429) {
            // client-side errors are usually non-retriable:
            throw new FatalError();
        } else {
            throw new RetriableError();
        }
    },
    onmessage(msg) {
        // if the server emits an error message, throw an exception
        // so it gets handled by the onerror callback below:
        if (msg.event === 'FatalError') {
            throw new FatalError(msg.data);
        }
        console.log(msg.data);
    },
    onclose() {
        // if the server closes the connection unexpectedly, retry:
        throw new RetriableError();
    },
    onerror(err) {
        if (err instanceof FatalError) {
            throw err; // rethrow to stop the operation
        } else {
            // do nothing to automatically retry. You can also
            // return a specific retry interval here.
        }
    }
});
"""

EVENT_SOURCE = """
const { EventSource } = require("eventsource");
const es = new EventSource(URL + "/sse");
es.addEventListener("message", (event) => console.log(event.data));
"""

RECONNECTING_WEBSOCKET = """
const ReconnectingWebSocket = require("reconnecting-websocket");
const WS = require("ws");
const rws = new ReconnectingWebSocket(URL.replace("http", "ws") + "/ws", [], { WebSocket: WS });
rws.addEventListener("message", ({ data }) => console.log(data));
rws.addEventListener("error", ({ message }) => console.log(JSON.stringify({ type: "error", message })));
"""

# Its README leaves it to a library to repeat, and to the caller when.
HTTPX_SSE = """
import sys, time
import httpx
from httpx_sse import connect_sse
last_event_id, reconnection_delay = "", 0.0
while True:
    time.sleep(reconnection_delay)
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    try:
        with httpx.Client(trust_env=False) as client:
            with connect_sse(client, "GET", sys.argv[1] + "/sse", headers=headers) as event_source:
                for sse in event_source.iter_sse():
                    last_event_id = sse.id
                    if sse.retry is not None:
                        reconnection_delay = sse.retry / 1000
                    print(sse.data, flush=True)
    except httpx.TransportError:
        pass
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of tests/support/npm, by their lock file's hashes."""
    if not NODE or not NPM:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "support" / "npm" / name, folder)
    subprocess.run([NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


class Client(NamedTuple):
    """A client's process, and the frames that it has printed."""

    frames: queue.Queue[dict[str, Any]]
    seen: set[str]  # headlines

    def until(self, is_last: Callable[[dict[str, Any]], bool]) -> None:
        """Take frames up to one of a kind."""
        while True:
            frame = self.frames.get(timeout=LIMIT)
            entries = frame.get("entries", [frame["entry"]] if "entry" in frame else [])
            self.seen.update(entry["headline"] for entry in entries)
            if is_last(frame):
                return

    def until_seen(self, headline: str) -> None:
        while headline not in self.seen:
            self.until(lambda frame: True)


@contextmanager
def running_client(command: list[str], folder: Path) -> Iterator[Client]:
    client = Client(queue.Queue(), set())
    process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            client.frames.put(json.loads(line))  # an empty message fails here

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield client
    finally:
        process.kill()
        process.wait(STOP_LIMIT)
        thread.join()
        lines.close()


class Door(socketserver.ThreadingTCPServer):
    """Door is the address that a client knows: it passes connections to a server, or closes them while shut."""

    daemon_threads = True
    block_on_close = False
    server: Running | None = None

    @property
    def stream(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/streams/s"


class Passage(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = cast(Door, self.server).server
        if server is None:
            return
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as other:
            threading.Thread(target=copy, args=(self.request, other), daemon=True).start()
            copy(other, self.request)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(("127.0.0.1", 0), Passage) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield door
        door.shutdown()


@contextmanager
def only_reader(server: Running) -> Iterator[None]:
    """Take the only place of a server."""
    with server.http.stream("GET", "/streams/s/sse") as response:
        lines = response.iter_lines()  # without a name it would be collected, and close the response
        assert '"hello"' in next(line for line in lines if line.startswith("data: "))
        yield


def is_refusal(frame: dict[str, Any]) -> bool:
    """Whether the client was told to come later: by a `bye`, or by the status of a handshake."""
    return frame.get("reason") == "unavailable" or "503" in frame.get("message", "")


def follows(command: list[str], folder: Path, start: Callable[..., Running], door: Door) -> None:
    server = door.server = start()
    server.publish_ok("s", "first")
    with running_client(command, folder) as client:
        client.until_seen("first")
        door.server = None
        server.stop()
        server = start("--readers", "1")
        with only_reader(server):
            server.publish_ok("s", "while it was away")
            door.server = server
            client.until(is_refusal)
        client.until_seen("while it was away")
        server.publish_ok("s", "last")
        client.until_seen("last")
    assert client.seen == {"first", "while it was away", "last"}


@pytest.mark.parametrize(
    "script",
    [FETCH_EVENT_SOURCE, EVENT_SOURCE, RECONNECTING_WEBSOCKET],
    ids=["fetch-event-source", "eventsource", "rws"],
)
def test_a_client_from_npm_follows(packages: Path, start: Callable[..., Running], door: Door, script: str) -> None:
    (packages / "follow.cjs").write_text(f"const URL = {json.dumps(door.stream)};\n{script}")
    follows([str(NODE), "follow.cjs"], packages, start, door)


@pytest.mark.skipif(importlib.util.find_spec("httpx_sse") is None, reason="httpx-sse is not installed")
def test_httpx_sse_follows(tmp_path: Path, start: Callable[..., Running], door: Door) -> None:
    follows([sys.executable, "-c", HTTPX_SSE, door.stream], tmp_path, start, door)
