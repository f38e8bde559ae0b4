"""What the tests share: a real server as a process, and what a publisher and a reader do to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from pushserver import model
from pushserver.content import changes, schema, validation
from pushserver.content.changes import NO_KEY
from pushserver.model import Append, Idempotency

KEY = "pk_test_0123456789abcdef"  # a publish key where any will do
# No balancer has to notice that a server stops, and its log is for people.
USUAL = {"PUSHSERVER_DRAIN_DELAY": "0", "PUSHSERVER_LOG_FORMAT": "human"}
ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
# Seconds. No bound of a test: a machine may be busy, and what waits for an event waits until there is no hope any more.
LIMIT = 90.0  # for what happens in another process
STOP_LIMIT = 60.0  # for a process to end
LIFETIMES = (1.0, 4.0, 16.0, 64.0)  # of a token that is to end in the middle of a test: the first one that suffices


class Served:
    """Served is a server at an address, with what a publisher and a reader do to it."""

    url: str
    http: httpx2.Client
    data: Path  # the folder with its key

    @property
    def log(self) -> str:
        """What it has logged."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        return (self.data / "publish.key").read_text().strip()

    def publish(self, stream: str, entry: dict[str, Any] | bytes, **headers: str) -> httpx2.Response:
        """POST an entry, with the key unless a header says otherwise."""
        return self.send("POST", f"/streams/{stream}/entries", entry, **headers)

    def put_page(self, stream: str, page: dict[str, Any] | bytes, **headers: str) -> httpx2.Response:
        return self.send("PUT", f"/streams/{stream}", page, **headers)

    def send(self, method: str, path: str, value: dict[str, Any] | bytes, **headers: str) -> httpx2.Response:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        usual = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        others = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.http.request(method, path, content=content, headers={**usual, **others})

    def publish_ok(self, stream: str, headline: str) -> dict[str, Any]:
        """Publish an entry that has a headline; the answer."""
        response = self.publish(stream, {"headline": headline})
        assert response.status_code == 201, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def snapshot(self, stream: str) -> dict[str, Any]:
        response = self.http.get(f"/streams/{stream}/entries")
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


class Running(Served):
    """A server that was started from the command line, in a process group of its own."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        module: str = "pushserver",
        unix: Path | None = None,
        passed: Sequence[int] = (),  # file descriptors
    ) -> None:
        self.data = data
        data.parent.mkdir(parents=True, exist_ok=True)
        if "--redis" in arguments and not {"PUSHSERVER_KEY", "--key"} & {*(env or {}), *arguments}:
            data.mkdir(exist_ok=True)
            (data / "publish.key").write_text(f"{KEY}\n")  # where commands look for it
            env = {**(env or {}), "PUSHSERVER_KEY": KEY}
        self.errors = data.parent / f"{data.name}.log"
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", "--port", "0", "--data", str(data), *arguments],
                cwd=ROOT,
                # No balancer has to notice that it stops.
                env={
                    **clean_environment(),
                    "PUSHSERVER_DRAIN_DELAY": "0",
                    "PUSHSERVER_LOG_FORMAT": "human",
                    **(env or {}),
                },
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="surrogateescape",  # the name of a folder may be no UTF-8
                start_new_session=True,
                pass_fds=passed,
            )
        self.greeting = self._greeting()
        if unix is not None:
            self.url = "http://localhost"
            self.http = httpx2.Client(base_url=self.url, timeout=LIMIT, transport=httpx2.HTTPTransport(uds=str(unix)))
            return
        match = re.search(r"pages +(http://\S+)/\n", self.greeting)
        assert match, self.greeting + self.errors.read_text()
        self.url = match[1]
        self.http = httpx2.Client(base_url=self.url, timeout=LIMIT)

    def _greeting(self) -> str:
        """What it prints until its last line, the one that says how to publish; or all, where it ends before."""
        text = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text += line
            if "  publish  " in text and not line.strip():
                break
            if "  unix socket  " in line:
                break
        return text

    @property
    def log(self) -> str:
        return self.errors.read_text()

    def children(self) -> list[int]:
        """The pids of its workers and its store."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def store_pid(self) -> int:
        return int((self.data / "valkey.pid").read_text())

    def kill_all(self) -> None:
        """kill -9 of the server: supervisor and workers at once. The store is not among them."""
        store = self.store_pid() if (self.data / "valkey.pid").exists() else 0
        pids = [self.process.pid, *(pid for pid in self.children() if pid != store)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.close()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        self.close()
        return self.process.returncode

    def close(self) -> None:
        self.http.close()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


def entry_append(
    stream: str,
    headline: str,
    *,
    id: str = "",
    rev: int = 1,
    at: int = 0,
    key: str = "",
    body_hash: str = "b0d7",
    **fields: Any,
) -> Append:
    """An entry as the publish path hands it to the log."""
    at = at or model.now()
    entry_in = validation.read(schema.EntryIn, {"headline": headline, **fields})
    entry = changes.revise_entry(entry_in, stream=stream, id=id or model.new_id(), at=at)
    entry["rev"] = rev
    return changes.put_entry(stream, entry, at=at, idempotency=Idempotency(key, body_hash))


def withdrawal_append(stream: str, id: str, *, rev: int = 1, at: int = 0, idempotency: Idempotency = NO_KEY) -> Append:
    """The withdrawal of an entry's revision, as the publish path hands it to the log; no headline is stored."""
    entry = changes.revise_entry(validation.read(schema.EntryIn, {"headline": "x"}), stream=stream, id=id, at=0)
    entry["rev"] = rev
    append = changes.withdraw_entry(stream, entry, schema.WithdrawalIn(), at=at or model.now(), idempotency=idempotency)
    return append._replace(state=append.data)


def clean_environment() -> dict[str, str]:
    """The environment without what would change a server's settings, or have it compile itself at each start."""
    others = ("PORT", "REDIS_URL", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "PYTHONDONTWRITEBYTECODE")
    return {
        name: value for name, value in os.environ.items() if not name.startswith("PUSHSERVER_") and name not in others
    }


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(is_true: Callable[[], bool]) -> None:
    """Wait until a condition holds that another process brings about; there is no event to wait for."""
    deadline = time.monotonic() + LIMIT
    while not is_true():
        assert time.monotonic() < deadline, f"the condition did not hold within {LIMIT:.0f} s"
        time.sleep(0.02)


def clients_of(pid: int) -> dict[int, str]:
    """A process's TCP connections: the port at the other end, and its file as /proc shows it."""
    files = open_files(pid)
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = [fields for fields in lines if f"socket:[{fields[9]}]" in files]
    return {int(fields[2].rpartition(":")[2], 16): f"socket:[{fields[9]}]" for fields in own}


def open_files(pid: int) -> set[str]:
    """What a process has open, as /proc shows it."""
    targets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.add(os.readlink(entry))
        except FileNotFoundError:  # closed meanwhile
            continue
    return targets


@contextmanager
def running(data: Path, *arguments: str, **options: Any) -> Iterator[Running]:
    server = Running(data, *arguments, **options)
    try:
        yield server
    finally:
        server.stop()


def reader(server: Served, stream: str, *, cursor: str = "", format: str = "json", **options: Any) -> connect:
    """A WebSocket to a stream: `async with reader(…) as socket`."""
    address = server.url.replace("http", "ws") + f"/streams/{stream}/ws?cursor={cursor}&format={format}"
    return connect(address, compression=None, proxy=None, max_size=None, open_timeout=LIMIT, **options)


async def receive(socket: ClientConnection, kind: str | None = None) -> dict[str, Any]:
    """The next frame, or the next of a kind."""
    while True:
        frame: dict[str, Any] = json.loads(await socket.recv())
        if kind is None or frame["type"] == kind:
            return frame
