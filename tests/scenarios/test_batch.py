"""Batches: many entries in one request, each judged by itself."""

from __future__ import annotations

import asyncio
import json

import pytest

from ..support.rests import Rests
from ..support.server import Running, Served, reader, receive
from ..support.worker import Serve


def batch(server: Served, stream: str, lines: list[bytes], **headers: str) -> tuple[int, list[dict[str, object]]]:
    given = {"Content_Type": "application/x-ndjson", **headers}
    response = server.publish(stream, b"\n".join(lines) + b"\n", **given)
    results = [json.loads(line) for line in response.text.splitlines()]
    return response.status_code, results


def test_a_batch_answers_each_line_and_keeps_the_order(server: Running, stream: str) -> None:
    lines = [json.dumps({"headline": f"Entry {number}"}).encode() for number in range(300)]
    status, results = batch(server, stream, lines)
    assert status == 200
    assert [(result["line"], result["status"], result["n"]) for result in results] == [
        (number, 201, number) for number in range(1, 301)
    ]
    assert server.snapshot(stream)["entries"][0]["headline"] == "Entry 299"


def test_a_bad_line_is_refused_by_itself(server: Running, stream: str) -> None:
    lines = [
        b'{"headline": "a"}',
        b'{"headline": ',
        b"\xff",
        b'{"nope": 1}',
        b"",
        b'{"body": "' + b"x" * 70_000 + b'"}',
        b'{"headline": "b"}',
    ]
    _, results = batch(server, stream, lines)
    assert [result["status"] for result in results] == [201, 400, 400, 422, 413, 201]
    assert [result["line"] for result in results] == [1, 2, 3, 4, 6, 7]
    assert [entry["headline"] for entry in server.snapshot(stream)["entries"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("lines", "numbers"),
    [
        ([b"", b'{"headline": "a"}', b'{"headline": "b"}'], [2, 3]),
        ([b'{"headline": "a"}', b" \t", b'{"headline": "b"}', b"", b""], [1, 3]),
        ([b'{"headline": "a"}\r', b"\r", b'{"headline": "b"}\r'], [1, 3]),
    ],
    ids=["first", "of spaces and at the end", "with CRLF"],
)
def test_a_blank_line_is_passed_over(server: Running, stream: str, lines: list[bytes], numbers: list[int]) -> None:
    status, results = batch(server, stream, lines, Idempotency_Key="blank")
    assert (status, [(result["line"], result["status"]) for result in results]) == (
        200,
        [(number, 201) for number in numbers],
    )
    _, again = batch(server, stream, lines, Idempotency_Key="blank")
    assert again == [{**result, "status": 200} for result in results]


def test_a_batch_without_a_line_is_refused(server: Running, stream: str) -> None:
    response = server.publish(stream, b"\n \n", Content_Type="application/x-ndjson")
    assert (response.status_code, response.json()["errors"][0]["got"]) == (400, "none")


@pytest.mark.parametrize(
    "lines", [[b'{"nope": 1}'], [b'{"headline": ', b'{"nope": 1}'], [b'{"body": "' + b"x" * 70_000 + b'"}', b"", b"1"]]
)
def test_a_batch_of_which_every_line_is_refused_is_refused(server: Running, stream: str, lines: list[bytes]) -> None:
    status, results = batch(server, stream, lines)
    assert (status, len(results)) == (422, len([line for line in lines if line]))
    assert all(result["status"] not in (200, 201) and result["detail"] for result in results)


def test_a_batch_of_which_one_line_is_stored_is_not_refused(server: Running, stream: str) -> None:
    status, results = batch(server, stream, [b'{"nope": 1}', b'{"headline": "a"}'])
    assert (status, [result["status"] for result in results]) == (200, [422, 201])


def test_a_restore_whose_first_line_is_refused_is_refused(server: Running, stream: str) -> None:
    response = server.send("POST", f"/streams/{stream}/restore", b'{"nope": 1}\n', Content_Type="application/x-ndjson")
    assert (response.status_code, [json.loads(line)["line"] for line in response.text.splitlines()]) == (422, [1])


def test_a_batch_that_is_sent_again_adds_nothing(server: Running, stream: str) -> None:
    lines = [b'{"headline": "a"}', b'{"headline": "b"}']
    _, first = batch(server, stream, lines, Idempotency_Key="batch")
    _, again = batch(server, stream, [*lines, b'{"headline": "c"}'], Idempotency_Key="batch")
    assert [result["status"] for result in again] == [200, 200, 201]
    assert [result["id"] for result in again[:2]] == [result["id"] for result in first]
    _, other = batch(server, stream, [b'{"headline": "z"}'], Idempotency_Key="batch")
    assert other[0]["status"] == 422


def test_a_batch_without_a_key_gets_one(server: Running, stream: str) -> None:
    lines = [b'{"headline": "a"}', b'{"headline": "b"}']
    first = server.publish(stream, b"\n".join(lines), Content_Type="application/x-ndjson")
    _, again = batch(server, stream, lines, Idempotency_Key=first.headers["idempotency-key"])
    assert [result["status"] for result in again] == [200, 200]
    assert server.snapshot(stream)["n"] == 2


@pytest.mark.parametrize(("lines", "size"), [(1_001, 20), (100, 60_000)])
def test_a_batch_that_is_too_large_is_refused_whole(server: Running, stream: str, lines: int, size: int) -> None:
    line = json.dumps({"headline": "x", "tags": ["t" * 200] * (size // 210)}).encode()
    response = server.publish(stream, b"\n".join([line] * lines), Content_Type="application/x-ndjson")
    assert response.status_code == 413
    assert server.http.get(f"/streams/{stream}").status_code == 404


def test_others_come_in_between_the_lines_of_a_batch(
    serve: Serve, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = Rests()
    monkeypatch.setattr("pushserver.web.publishing_routes.Stretch", rests)
    server = serve()
    status, results = batch(server, stream, [b"[" * 40_000, b'{"headline": "a"}', *[b'{"nope": 1}'] * 8])
    assert (status, len(results), rests.count) == (200, 10, 10)


def test_others_come_in_between_the_lines_of_a_restore(
    serve: Serve, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = Rests()
    server = serve()
    batch(server, stream, [b'{"headline": "a"}'] * 8)
    lines = server.send("GET", f"/streams/{stream}/export", b"").content
    monkeypatch.setattr("pushserver.web.archive_routes.Stretch", rests)
    for _ in range(2):  # lines that are stored already take a look at the store alone
        answer = server.send("POST", f"/streams/{stream}/restore", lines, Content_Type="application/x-ndjson")
        assert answer.status_code == 200
    assert rests.count == 2 * len(lines.splitlines())


@pytest.mark.anyio
async def test_readers_get_a_batch_in_order(server: Running, stream: str) -> None:
    cursor = server.publish_ok(stream, "start")["cursor"]
    async with reader(server, stream, cursor=cursor) as connection:
        lines = [json.dumps({"headline": str(number)}).encode() for number in range(100)]
        await asyncio.to_thread(batch, server, stream, lines)
        seen = [(await receive(connection, "entry.put"))["entry"]["headline"] for _ in lines]
    assert seen == [str(number) for number in range(100)]
