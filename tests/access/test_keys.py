from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pushserver.access.keys import Bucket
from pushserver.errors import TooMany

from ..support.server import ROOT, Running, clean_environment


def command(server: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pushserver keys …`, against the server's own store."""
    return subprocess.run(
        [sys.executable, "-m", "pushserver", "keys", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "PUSHSERVER_DATA": str(server.data)},
        capture_output=True,
        text=True,
        check=False,
    )


def new_key(server: Running, *arguments: str) -> str:
    done = command(server, "create", "desk", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_can_do_what_it_is_for_and_nothing_else(server: Running, stream: str) -> None:
    key = new_key(server, "--streams", f"{stream},other-*", "--can", "publish,correct")
    path = f"/streams/{stream}/entries"
    assert server.send("PUT", f"{path}/x", {"headline": "One"}, **as_key(key)).status_code == 201
    assert server.send("PATCH", f"{path}/x", {"headline": "Two"}, **as_key(key)).status_code == 200
    assert server.publish("other-desk", {"headline": "x"}, **as_key(key)).status_code == 201
    refused = [
        server.send("DELETE", f"{path}/x", b"", **as_key(key)),
        server.send("PUT", f"/streams/{stream}", {"headline": "Page"}, **as_key(key)),
        server.send("POST", f"/streams/{stream}/end", {}, **as_key(key)),
        server.publish(f"{stream}-more", {"headline": "x"}, **as_key(key)),
    ]
    assert [response.status_code for response in refused] == [403] * 4
    (fault,) = refused[0].json()["errors"]
    assert (fault["field"], "withdraw" in fault["expected"], "publish, correct" in fault["got"]) == (
        "Authorization",
        True,
        True,
    )


def test_a_revoked_key_is_refused_at_once_by_every_worker(start: Callable[..., Running], stream: str) -> None:
    server = start("--workers", "2")
    first, second = new_key(server), new_key(server)
    assert server.publish(stream, {"headline": "x"}, **as_key(first)).status_code == 201
    listed = {line.split()[0]: line for line in command(server, "list").stdout.splitlines()}
    id = first.split("_")[1]
    assert "never used" not in listed[id]
    assert "never used" in listed[second.split("_")[1]]
    assert command(server, "revoke", id).returncode == 0
    for _ in range(10):  # each on a connection of its own, so that both workers are asked
        response = server.publish(stream, {"headline": "x"}, Connection="close", **as_key(first))
        assert response.status_code == 401
    assert server.publish(stream, {"headline": "y"}, **as_key(second)).status_code == 201
    assert id not in command(server, "list").stdout


def test_a_key_ends_when_it_was_told_to(server: Running, stream: str) -> None:
    past = new_key(server, "--expires", "2020-01-01T00:00:00Z")
    future = new_key(server, "--expires", "2999-01-01T00:00:00+02:00")
    refused = server.publish(stream, {"headline": "x"}, **as_key(past))
    assert (refused.status_code, "2020-01-01" in refused.text) == (401, True)
    assert server.publish(stream, {"headline": "x"}, **as_key(future)).status_code == 201


@pytest.mark.parametrize(
    "change", [lambda key: key[:-1], lambda key: key[:-1] + "!", lambda key: key.replace("pk_", "pk_0"), str.upper]
)
def test_a_key_that_is_nearly_right_is_wrong(server: Running, stream: str, change: Callable[[str], str]) -> None:
    key = change(new_key(server))
    assert server.publish(stream, {"headline": "x"}, **as_key(key)).status_code == 401


def test_a_key_that_is_used_too_often_is_told_when_to_come_back(server: Running, stream: str) -> None:
    key = new_key(server, "--rate", "2")
    answers = [server.publish(stream, {"headline": "x"}, **as_key(key)) for _ in range(10)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert len(limited) in range(1, 7)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in limited)
    assert len(server.snapshot(stream)["entries"]) == 10 - len(limited)


def test_a_bucket_may_be_overdrawn_once() -> None:
    bucket = Bucket(10)
    bucket.take(10)
    bucket.charge(1_000)
    with pytest.raises(TooMany):
        bucket.take(10)


def test_a_scope_is_judged_before_the_body_is_read(server: Running, stream: str) -> None:
    key = new_key(server, "--streams", "elsewhere")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /streams/{stream}/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n".encode()
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "--can", "everything"),
        ("create", "x", "--expires", "soon"),
        ("revoke", "none"),
        ("create", "x", "--rate", "0"),
        ("list", "--redis", "localhost:6379"),
        ("list", "--redis", "redis://localhost:port"),
    ],
)
def test_a_bad_command_says_what_was_expected(server: Running, arguments: tuple[str, ...]) -> None:
    done = command(server, *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "expected" in done.stderr or "not in the range" in done.stderr


def test_without_a_store_the_command_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pushserver", "keys", "list", "--data", f"{tmp_path}/none"],
        cwd=ROOT,
        env={**clean_environment(), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "expected a running server" in done.stderr) == (1, True)
