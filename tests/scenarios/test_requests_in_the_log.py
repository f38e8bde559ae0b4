"""A request has an id, in its answer and in the lines of the log that are about it, and no line has a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.server import Running, reader, receive, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose log is JSON and has every request."""
    environment = {"PUSHSERVER_LOG_FORMAT": "auto"}
    folder: Path = tmp_path_factory.mktemp("logged") / "data"
    with running(folder, "--access-log", "true", env=environment) as server:
        yield server


def lines(server: Running, **fields: Any) -> list[dict[str, Any]]:
    """The lines that have these fields."""
    every = [json.loads(line) for line in server.log.splitlines()]
    return [line for line in every if fields.items() <= line.items()]


def until_logged(server: Running, **fields: Any) -> dict[str, Any]:
    until(lambda: bool(lines(server, **fields)))
    return lines(server, **fields)[0]


def test_every_line_is_json_and_names_its_process(logged: Running) -> None:
    assert {line["process"] for line in lines(logged)} >= {"supervisor"}
    assert lines(logged, process="supervisor", pid=logged.process.pid)


async def test_an_id_goes_through_and_one_is_made(logged: Running, stream: str) -> None:
    logged.publish_ok(stream, "One")
    path = f"/streams/{stream}"
    for part in ("", "/entries", "/events", "/nothing"):
        answer = logged.http.get(
            path + part, headers={"X-Request-Id": "from-the-proxy", "X-Forwarded-For": "192.0.2.7"}
        )
        assert answer.headers["x-request-id"] == "from-the-proxy"
        line = until_logged(logged, logger="pushserver.access", request="from-the-proxy")
        assert line["client"] == "192.0.2.7"
    made = {logged.http.get(path, headers={"X-Request-Id": "no id"}).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert "no id" not in made
    async with reader(logged, stream, additional_headers={"X-Request-Id": "a-reader"}) as socket:
        await receive(socket, "snapshot")
        assert socket.response is not None
        assert socket.response.headers["x-request-id"] == "a-reader"
    line = until_logged(logged, logger="pushserver.access", request="a-reader")
    assert line["message"].startswith(f"GET {path}/ws 101 ")


def test_wrong_keys_are_a_line_for_each_address_and_never_the_key(logged: Running, stream: str) -> None:
    for number in range(20):
        answer = logged.publish(
            stream,
            {"headline": "secret headline"},
            Authorization=f"Bearer pk_wrong_{number}_0123456789",
            X_Forwarded_For=f"192.0.2.{number % 2}",
        )
        assert answer.status_code == 401
    logged.http.get(f"/streams/{stream}?token=hidden-token")
    until(lambda: f"/streams/{stream} 404" in logged.log)
    wrong = [line for line in lines(logged) if line["message"].startswith("wrong publish key from")]
    assert sorted(line["client"] for line in wrong) == ["192.0.2.0", "192.0.2.1"]
    assert all(line["request"] for line in wrong)
    for secret in ("pk_wrong", "secret headline", "hidden-token", logged.key):
        assert secret not in logged.log
