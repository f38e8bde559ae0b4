"""Readers leave files to probes, publishers and the store, and nobody is reset for want of a file without an answer."""

from __future__ import annotations

import json
import re
import resource
import socket as sockets
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
from websockets.exceptions import InvalidStatus

from pushserver.server.files import RESERVE, files_for, last_file, most_readers, raise_file_limit

from ..support.processes import eventually
from ..support.server import LIMIT, ROOT, Running, reader, receive, running

pytestmark = pytest.mark.anyio

FEW = 256  # files, as `ulimit -n 256` sets
WITHIN = 192  # readers: a quarter of the files is reserved
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))"
MOST = [(20_000, None, 20_000), (20_000, 20_512, 20_000), (20_000, 20_511, 19_999), (20_000, 20_000, 20_000 - RESERVE)]
MOST += [(100, 20_000, 100), (20_000, 2_048, 1_536), (20_000, 2_044, 1_533), (20_000, FEW, WITHIN), (20_000, 1, 1)]


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("readers", "limit", "most"), MOST)
def test_readers_leave_a_reserve_of_files(readers: int, limit: int | None, most: int) -> None:
    assert most_readers(readers, limit) == most


@pytest.mark.parametrize("readers", [*range(2, 40), 1_535, 1_536, 1_537, 20_000])
def test_the_limit_that_is_asked_for_is_the_least_that_suffices(readers: int) -> None:
    limit = files_for(readers)
    assert (most_readers(readers, limit), most_readers(readers, limit - 1)) == (readers, readers - 1)


@pytest.mark.parametrize(("limit", "last"), [(None, None), (20_000, 19_872), (FEW, 240), (64, 60)])
def test_connections_leave_a_part_of_the_reserve(limit: int | None, last: int | None) -> None:
    assert last_file(limit) == last


@pytest.fixture(scope="module")
def few_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose processes may open few files."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "sitecustomize.py").write_text(LIMITED.format(files=FEW))
    with running(folder / "data", env={"PYTHONPATH": str(folder)}) as server:
        yield server


async def test_readers_are_refused_while_probes_and_publishers_go_on(few_files: Running, stream: str) -> None:
    server = few_files
    said = f"a worker accepts {WITHIN} readers, not 20000: it may open {FEW} files"
    (shown,) = re.findall(r"^    (open files: .*)$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert (said in shown, server.log.count(shown)) == (True, 1)
    server.publish_ok(stream, "one")
    async with AsyncExitStack() as readers:
        sockets = [await readers.enter_async_context(reader(server, stream)) for _ in range(WITHIN)]
        for _ in range(3):
            with pytest.raises(InvalidStatus) as refused:
                await readers.enter_async_context(reader(server, stream))
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["Retry-After"]) > 0
        assert server.http.head(f"/streams/{stream}/sse").status_code == 503
        server.http.close()  # what follows is on connections of its own
        server.http = type(server.http)(base_url=server.url, timeout=LIMIT)
        assert server.http.get("/livez").status_code == 200
        cursor = server.publish_ok(stream, "two")["cursor"]
        assert [entry["headline"] for entry in server.snapshot(stream)["entries"]] == ["two", "one"]
        assert (await receive(sockets[-1], "entry.put"))["cursor"] == cursor


async def test_a_connection_too_many_is_answered_and_logged_once(few_files: Running) -> None:
    server = few_files
    host, port = server.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        silent = [stack.enter_context(sockets.create_connection((host, int(port)), LIMIT)) for _ in range(FEW)]
        answers = [read_all(each) for each in silent[-2:]]
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nconnection: close" in head
        assert b"\r\nretry-after: 2" in head
        assert json.loads(body)["type"] == "urn:pushserver:problem:unavailable"
    await eventually(lambda: server.http.get("/livez").status_code == 200)
    assert server.log.count("files are open, near the limit") == 1


def read_all(wire: sockets.socket) -> bytes:
    """All bytes come until the other side closes the connection."""
    return b"".join(iter(lambda: wire.recv(65_536), b""))
