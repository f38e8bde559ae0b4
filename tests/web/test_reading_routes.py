"""Catching up over plain HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ..support.server import Running


def events(server: Running, stream: str, query: str = "") -> dict[str, Any]:
    response = server.http.get(f"/streams/{stream}/events?{query}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_all_there_is_comes_in_parts_in_order_once(server: Running, stream: str) -> None:
    for number in range(25):
        server.publish_ok(stream, str(number))
    told: list[dict[str, Any]] = []
    query = "limit=7"
    while True:
        part = events(server, stream, query)
        assert (part["complete"], part["from"]) == (True, len(told))
        told += part["events"]
        query = f"limit=7&after={part['cursor']}"
        if not part["more"]:
            break
    assert [event["n"] for event in told] == list(range(1, 26))
    assert [event["prev"] for event in told[1:]] == [event["cursor"] for event in told[:-1]]
    assert told[3]["entry"]["headline"] == "3"
    end = events(server, stream, query)
    assert (end["events"], end["more"], end["from"], end["cursor"]) == ([], False, 25, told[-1]["cursor"])


def test_a_part_is_sent_once_until_something_in_it_is_withdrawn(server: Running, stream: str) -> None:
    for number in range(5):
        server.send("PUT", f"/streams/{stream}/entries/e{number}", {"headline": str(number)})
    path = f"/streams/{stream}/events?limit=3"
    etag = server.http.get(path).headers["etag"]
    server.publish_ok(stream, "more")
    assert server.http.get(path, headers={"If-None-Match": etag}).status_code == 304
    server.send("DELETE", f"/streams/{stream}/entries/e1", b"")
    changed = server.http.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert [event["type"] for event in changed.json()["events"]] == ["entry.put", "entry.withdraw", "entry.put"]


def test_a_part_is_no_larger_than_the_limit_and_never_empty(start: Callable[..., Running], stream: str) -> None:
    server = start("--replay-bytes", "3000")
    for _ in range(4):
        assert server.publish(stream, {"body": "x" * 2_000}).status_code == 201
    parts = [events(server, stream)]
    while parts[-1]["more"]:
        parts.append(events(server, stream, f"after={parts[-1]['cursor']}"))
    assert [len(part["events"]) for part in parts] == [1, 1, 1, 1]


def test_what_the_log_does_not_reach_back_to_is_said(start: Callable[..., Running], stream: str) -> None:
    server = start("--log-events", "100")
    cursor = server.publish_ok(stream, "first")["cursor"]
    for number in range(400):
        server.publish_ok(stream, str(number))
    for query in ("", f"after={cursor}"):
        told = events(server, stream, query)
        assert told == {"complete": False, "reason": "trimmed", "entries": f"/streams/{stream}/entries"}
    other = cursor.replace(cursor.split(".")[1], "0" * 16)
    assert events(server, stream, f"after={other}")["reason"] == "epoch"


@pytest.mark.parametrize(("query", "field"), [("after=x", "after"), ("limit=0", "limit"), ("limit=1001", "limit")])
def test_a_bad_question_is_refused(server: Running, stream: str, query: str, field: str) -> None:
    server.publish_ok(stream, "one")
    response = server.http.get(f"/streams/{stream}/events?{query}")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)
    assert server.http.get(f"/streams/{stream}-none/events").status_code == 404
