"""A disk that fills up, and a data folder that goes: publishing is refused by name, and reading goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..support.server import Running, running, until
from .disk import filled, small_disk

RESERVE, FULL = 30 * 2**20, 0  # bytes that are left free
READS = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """A server whose data folder is a disk of its own."""
    with small_disk(tmp_path / "data") as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk to fill")
        with running(tmp_path / "data", "--workers", "2") as server:
            yield server


def publishes(server: Running) -> bool:
    return bool(server.http.get("/readyz").json()["publishing"])


def problem(response: httpx2.Response) -> str:
    """The name of the problem, of a refusal that says when to come back."""
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) > 0
    body: dict[str, Any] = response.json()
    assert "nothing was stored" in body["detail"]
    return str(body["type"])


def refused(server: Running, stream: str) -> bool:
    """Whether a new entry is refused; it is published otherwise."""
    response = server.publish(stream, {"headline": "new"})
    return response.status_code == 503 and problem(response) == "urn:pushserver:problem:disk-reserve"


def withdraw(server: Running, stream: str, id: str) -> httpx2.Response:
    return server.send("DELETE", f"/streams/{stream}/entries/{id}", {"reason": "error"})


def test_below_the_reserve_publishing_is_refused_and_withdrawing_ending_and_reading_go_on(
    server: Running, stream: str
) -> None:
    first = server.publish_ok(stream, "one")["id"]
    with filled(server.data, but=RESERVE):
        until(lambda: refused(server, stream))
        for method, path, value in [
            ("PATCH", f"/entries/{first}", {"headline": "two"}),
            ("PUT", "/entries/mine", {"headline": "two"}),
            ("PUT", "", {"headline": "page"}),
        ]:
            answer = server.send(method, f"/streams/{stream}{path}", value)
            assert problem(answer) == "urn:pushserver:problem:disk-reserve"
        line = server.publish(stream, b'{"headline": "two"}\n', Content_Type="application/x-ndjson").json()
        assert (line["status"], line["type"]) == (503, "urn:pushserver:problem:disk-reserve")
        assert withdraw(server, stream, first).status_code == 200
        assert server.send("POST", f"/streams/{stream}/end", {}).status_code == 201
        ready = server.http.get("/readyz")
        assert (ready.status_code, ready.json()["publishing"]) == (200, False)
        assert server.snapshot(stream)["page"]["state"] == "ended"
    assert "disk almost full" in server.log
    until(lambda: publishes(server))
    assert server.publish_ok(f"{stream}-2", "after")["durability"] == "disk"
    assert "the embedded store ended" not in server.log


def test_a_disk_that_is_full_takes_no_reading_down(server: Running, stream: str) -> None:
    first = server.publish_ok(stream, "one")["id"]
    with filled(server.data, but=FULL):
        until(lambda: not publishes(server))
        until(lambda: "disk full" in server.log)
        store = server.store_pid()
        for _ in range(READS):
            assert refused(server, stream)
            assert server.http.get(f"/streams/{stream}").status_code == 200
            assert server.snapshot(stream)["n"] >= 1
        assert problem(withdraw(server, stream, first)) == "urn:pushserver:problem:disk-reserve"
        assert server.http.get("/readyz").status_code == 200
        assert server.store_pid() == store
    until(lambda: publishes(server))
    server.publish_ok(stream, "after")


@pytest.mark.full
def test_a_server_starts_on_a_full_disk_and_serves_readers(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    server.stop()
    with filled(server.data, but=FULL), running(server.data) as again:
        assert again.snapshot(stream)["entries"][0]["headline"] == "one"
        assert refused(again, stream)


@pytest.mark.full
def test_a_data_folder_that_is_deleted_is_noticed_and_reading_goes_on(tmp_path: Path, stream: str) -> None:
    with running(tmp_path / "data", "--workers", "2") as server:
        server.publish_ok(stream, "one")
        key = server.key
        shutil.rmtree(server.data)
        # Another check may be red before the folder is looked at again.
        until(lambda: server.http.get("/readyz").json()["folder"] is False)
        assert server.http.get("/readyz").status_code == 503
        headers = {"Authorization": f"Bearer {key}"}
        answer = server.http.post(f"/streams/{stream}/entries", json={"headline": "two"}, headers=headers)
        assert problem(answer) == "urn:pushserver:problem:data-folder"
        assert server.snapshot(stream)["entries"][0]["headline"] == "one"
        exported = server.http.get(f"/streams/{stream}/export", headers=headers)
        assert '"one"' in exported.text
        assert "publishing is refused: the data folder" in server.log
