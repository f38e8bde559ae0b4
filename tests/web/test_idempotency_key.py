"""A publish that is sent again with its key is stored once, and answered as the first time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import httpx2
import pytest

from ..support.refusals import problem
from ..support.server import LIMIT, Running

ENTRY = {"headline": "Sea wall holds", "body": "Engineers *say* so."}


def test_the_same_key_and_body_get_the_first_answer_again(server: Running, stream: str) -> None:
    first = server.publish(stream, ENTRY, Idempotency_Key="abc")
    server.publish_ok(stream, "between")
    again = server.publish(stream, ENTRY, Idempotency_Key="abc")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert [entry["headline"] for entry in server.snapshot(stream)["entries"]] == ["between", "Sea wall holds"]


def test_a_page_is_put_once_for_a_key(server: Running, stream: str) -> None:
    first = server.put_page(stream, {"headline": "One"}, Idempotency_Key="abc")
    server.put_page(stream, {"headline": "Two"})
    again = server.put_page(stream, {"headline": "One"}, Idempotency_Key="abc")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert server.snapshot(stream)["page"]["headline"] == "Two"


def test_the_same_key_with_another_body_is_refused(server: Running, stream: str) -> None:
    server.publish(stream, ENTRY, Idempotency_Key="abc")
    (fault,) = problem(server.publish(stream, {"headline": "Other"}, Idempotency_Key="abc"), 422)
    assert fault["field"] == "Idempotency-Key"
    assert server.snapshot(stream)["n"] == 1


REQUESTS: dict[str, tuple[str, str, dict[str, Any] | bytes]] = {  # with equal bodies, or equal queries
    "entry a": ("PATCH", "/entries/a", {"headline": "x"}),
    "entry b": ("PATCH", "/entries/b", {"headline": "x"}),
    "page": ("PATCH", "", {"headline": "x"}),
    "new entry": ("POST", "/entries", {"headline": "x"}),
    "end of a": ("DELETE", "/entries/a?reason=error", b""),
    "end of b": ("DELETE", "/entries/b?reason=error", b""),
}


@pytest.mark.parametrize(
    ("first", "other"),
    [
        *permutations(("entry a", "entry b", "page"), 2),
        ("new entry", "entry a"),
        ("new entry", "page"),
        ("entry a", "new entry"),
        ("page", "new entry"),
        ("end of a", "end of b"),
    ],
)
def test_a_key_of_another_change_is_refused_although_the_bodies_are_equal(
    server: Running, stream: str, first: str, other: str
) -> None:
    def send(name: str) -> httpx2.Response:
        method, path, body = REQUESTS[name]
        return server.send(method, f"/streams/{stream}{path}", body, Idempotency_Key="abc")

    for id in ("a", "b"):
        server.send("PUT", f"/streams/{stream}/entries/{id}", ENTRY)
    done = send(first)
    assert done.status_code in (200, 201)
    before = server.snapshot(stream)
    refused = send(other)
    (fault,) = problem(refused, 422)
    assert fault["field"] == "Idempotency-Key"
    assert refused.json()["type"] == "urn:pushserver:problem:idempotency-key-reused"
    assert server.snapshot(stream) == before
    again = send(first)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json()["n"] == done.json()["n"]


def test_a_key_in_quotes_is_the_same_key(server: Running, stream: str) -> None:
    first = server.publish(stream, ENTRY, Idempotency_Key='"abc"')
    again = server.publish(stream, ENTRY, Idempotency_Key="abc")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


def test_a_key_is_of_its_stream(server: Running, stream: str) -> None:
    first = server.publish(stream, ENTRY, Idempotency_Key="abc")
    other = server.publish(f"{stream}-b", ENTRY, Idempotency_Key="abc")
    assert (first.status_code, other.status_code) == (201, 201)


def test_without_a_key_the_same_entry_is_stored_twice(server: Running, stream: str) -> None:
    answers = [server.publish(stream, ENTRY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert len(server.snapshot(stream)["entries"]) == 2


def test_the_answer_names_the_key_that_was_made_for_the_request(server: Running, stream: str) -> None:
    first = server.publish(stream, ENTRY)
    again = server.publish(stream, ENTRY, Idempotency_Key=first.headers["idempotency-key"])
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    assert server.publish(stream, ENTRY, Idempotency_Key='"abc"').headers["idempotency-key"] == "abc"
    page = server.send("PATCH", f"/streams/{stream}", {"headline": "Page"})
    headers = {"Idempotency_Key": page.headers["idempotency-key"]}
    assert server.send("PATCH", f"/streams/{stream}", {"headline": "Page"}, **headers).json() == page.json()


def test_a_publish_of_unknown_outcome_can_be_repeated_without_a_key_of_ones_own(
    start: Callable[..., Running], stream: str
) -> None:
    server = start()
    server.publish_ok(stream, "before")
    os.kill(server.store_pid(), signal.SIGSTOP)
    try:
        unknown = server.publish(stream, ENTRY)
    finally:
        os.kill(server.store_pid(), signal.SIGCONT)
    problem(unknown, 503)
    again = server.publish(stream, ENTRY, Idempotency_Key=unknown.headers["idempotency-key"])
    assert again.status_code in (200, 201), again.text
    assert [entry["headline"] for entry in server.snapshot(stream)["entries"]] == [ENTRY["headline"], "before"]


@pytest.mark.parametrize("key", ["", '""', '"abc', 'a"b', "a b", "a\\b", "a\tb", "x" * 201, '"' + "x" * 201 + '"'])
def test_a_bad_idempotency_key_is_refused(server: Running, stream: str, key: str) -> None:
    (fault,) = problem(server.publish(stream, ENTRY, Idempotency_Key=key), 400)
    assert fault["field"] == "Idempotency-Key"
    assert server.http.get(f"/streams/{stream}").status_code == 404


def test_a_key_may_have_200_characters(server: Running, stream: str) -> None:
    assert server.publish(stream, ENTRY, Idempotency_Key="!~" * 100).status_code == 201
    assert server.publish(stream, ENTRY, Idempotency_Key="!~" * 100).status_code == 200


def test_a_refused_entry_does_not_use_up_its_key(server: Running, stream: str) -> None:
    assert server.publish(stream, {"headline": 1}, Idempotency_Key="abc").status_code == 422
    assert server.publish(stream, ENTRY, Idempotency_Key="abc").status_code == 201


def test_of_20_at_once_with_one_key_exactly_one_is_stored(server: Running, stream: str) -> None:
    clients = [httpx2.Client(base_url=server.url, timeout=LIMIT) for _ in range(20)]
    start = threading.Barrier(20)
    headers = {
        "Authorization": f"Bearer {server.key}",
        "Content-Type": "application/json",
        "Idempotency-Key": "the-one",
    }

    def publish(client: httpx2.Client) -> httpx2.Response:
        start.wait()
        return client.post(f"/streams/{stream}/entries", json=ENTRY, headers=headers)

    with ThreadPoolExecutor(20) as threads:
        responses = list(threads.map(publish, clients))
    for client in clients:
        client.close()
    assert sorted(response.status_code for response in responses) == [200] * 19 + [201]
    assert sum(response.headers.get("idempotent-replayed") == "true" for response in responses) == 19
    first = responses[0].json()
    assert all(response.json() == first for response in responses)
    snapshot = server.snapshot(stream)
    assert (snapshot["n"], [entry["id"] for entry in snapshot["entries"]]) == (1, [first["id"]])
