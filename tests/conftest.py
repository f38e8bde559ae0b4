from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pushserver.log_throttle import Tally
from pushserver.store.embedded import embedded
from pushserver.store.log import Log
from pushserver.store.store import Store

from .support.scrapes import METRICS
from .support.server import LIMIT, ROOT, Run, Running, clean_environment, running
from .support.worker import Serve, working

_numbers = itertools.count(1)

# Examples: few and the same each time for `make test`, so that a failure is of the change; many and others for
# `make test-all`. None of them is timed: how long one takes says how busy the machine is.
settings.register_profile(
    "test", max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "test-all", max_examples=1_000, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("test")

# A shell has what it runs in the background ignore Ctrl-C, and `nohup` the end of the terminal. The servers and
# commands that tests start would ignore them too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Long tests first: one that begins last would keep a processor busy while the others have nothing left to do.
LONG = ("simulation", "faults", "server", "scenarios", "cli", "transport")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not collect what takes long to collect, where none of it is asked for."""
    return True if collection_path.name == "test_description.py" and config.option.markexpr == "not full" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=place)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Capture what the test itself logs.

    A worker in another thread (`support/worker.py`) logs when it likes, and a tally counts after a minute what an
    earlier test did.
    """
    thread = threading.get_ident()

    def own(record: logging.LogRecord) -> bool:
        is_late = record.funcName == Tally._look.__name__ and record.name.startswith("pushserver.")
        return record.thread == thread and not is_late

    caplog.handler.addFilter(own)
    yield caplog
    caplog.handler.removeFilter(own)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server on an embedded store, for every test that does not stop it. Each test takes a stream of its own."""
    with running(tmp_path_factory.mktemp("server") / "data", "--heartbeat", "0.5", *METRICS) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server of the test's own; what still runs at the end is stopped."""
    with ExitStack() as stack:

        def _start(*arguments: str, name: str = "data", env: dict[str, str] | None = None) -> Running:
            return stack.enter_context(running(tmp_path / name, *arguments, env=env))

        yield _start


@pytest.fixture
def serve(server: Running) -> Iterator[Serve]:
    """Start a worker with settings of its own on the store of the shared server; it is stopped at the end."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(working(server, *arguments))


@pytest.fixture
def stream() -> str:
    """The name of a stream that no other test has."""
    return f"test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="session")
async def store_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """An embedded store."""
    async with embedded(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
async def log_store(store_url: str) -> AsyncIterator[Store]:
    """The store that the log is on, checked as a server does at its start."""
    store = Store(store_url, partitions=16)
    await store.check()
    yield store
    await store.close()


@pytest.fixture
def log(log_store: Store) -> Log:
    """A log on the embedded store."""
    return Log(log_store, log_events=1_000, entry_limit=500, idempotency=60)


@pytest.fixture
def unused_url() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@pytest.fixture
def run(server: Running) -> Run:
    """Run a command against the server, with this on its standard input; by default it finds the key itself."""

    def _run(*arguments: str, input: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
        variables = {"PUSHSERVER_URL": server.url, "PUSHSERVER_DATA": str(server.data), **env}
        done = subprocess.run(
            [sys.executable, "-m", "pushserver", *arguments],
            cwd=ROOT,
            env={**clean_environment(), **variables},
            input=input,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return _run
