"""What is for keys: the list of streams, and a deletion, as publishers and readers meet it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ..support.keys import as_key, create_key
from ..support.server import LIMIT, Running, reader, receive
from ..support.worker import Serve

pytestmark = pytest.mark.anyio


def delete(server: Running, stream: str, query: str = "", **headers: str) -> httpx2.Response:
    return server.send("DELETE", f"/streams/{stream}{query}", b"", **headers)


@pytest.fixture(scope="module")
def desk_key(server: Running) -> str:
    """A key that can do all but delete and audit, as every key of an earlier version."""
    return create_key(server, "--streams", "desk-*", "--can", "publish,correct,withdraw,page")


def listed(server: Running, query: str = "", **headers: str) -> dict[str, Any]:
    response = server.http.get(f"/streams{query}", headers={"Authorization": f"Bearer {server.key}", **headers})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "private, no-store"
    body: dict[str, Any] = response.json()
    return body


def test_the_list_has_what_a_stream_has_and_weighs(server: Running, stream: str) -> None:
    first = server.publish_ok(stream, "first")
    server.publish_ok(stream, "x" * 300)
    server.send("DELETE", f"/streams/{stream}/entries/{first['id']}", b"")
    row = next(row for row in listed(server)["streams"] if row["stream"] == stream)
    assert row["bytes"] > 300
    updated_at = server.snapshot(stream)["page"]["updated_at"]
    assert {name: value for name, value in row.items() if name != "bytes"} == {
        "stream": stream,
        "url": f"/streams/{stream}",
        "headline": stream.replace("-", " ").capitalize(),
        "state": "live",
        "entries": 1,
        "withdrawals": 1,
        "updated_at": updated_at,
    }


def test_the_list_comes_in_parts_each_stream_once(server: Running, stream: str) -> None:
    names = [f"{stream}-{number}" for number in range(5)]
    for name in names:
        server.publish_ok(name, "x")
    rows, after = [], ""
    while True:
        part = listed(server, f"?limit=2{after}")
        rows += [row["stream"] for row in part["streams"]]
        if part["after"] is None:
            break
        after = f"&after={part['after']}"
    assert rows[:5] == names[::-1]
    assert len(rows) == len(set(rows))
    for query in ("?after=x", "?limit=0", "?limit=101", "?limit=1&limit=2", "?more=1"):
        assert server.send("GET", f"/streams{query}", b"").status_code == 422


def test_a_key_sees_the_streams_that_it_is_for(server: Running, stream: str, desk_key: str) -> None:
    server.publish_ok(f"desk-{stream}", "x")
    server.publish_ok(stream, "x")
    rows = [row["stream"] for row in listed(server, **as_key(desk_key))["streams"]]
    assert f"desk-{stream}" in rows
    assert stream not in rows
    assert server.http.get("/streams").status_code == 401


def test_a_key_without_the_right_deletes_nothing(server: Running, stream: str, desk_key: str) -> None:
    name = f"desk-{stream}"
    server.publish_ok(name, "x")
    refused = delete(server, name, **as_key(desk_key))
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        f"This publish key lacks the right `delete` for stream {name}.",
    )
    assert server.snapshot(name)["n"] == 1
    exported = server.http.get(f"/streams/{name}/export", headers=as_key(desk_key))
    assert exported.status_code == 200, "an export needs the four rights that it needed before there were others"


PATHS = ["", "/entries", "/events", "/feed.atom", "/feed.json", "/sse", "/entries/x", "?before=1.x", "/entries?limit=1"]


async def test_a_deleted_stream_is_gone_from_every_address(server: Running, stream: str) -> None:
    server.publish_ok(stream, "first")
    for path in PATHS[:-4]:
        assert server.http.get(f"/streams/{stream}{path}").status_code == 200  # so that memory has it
    answer = delete(server, stream)
    body = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    assert (body["stream"], body["forgotten"], body["durability"]) == (stream, False, "disk")
    assert (body["receipt"]["reached"], body["receipt"]["workers"][0]["state"]) == (True, "deleted")
    for path in PATHS:
        refused = server.http.get(f"/streams/{stream}{path}")
        assert refused.status_code == 410, path
        assert refused.json()["type"] == "urn:pushserver:problem:deleted"
    page = server.http.get(f"/streams/{stream}", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (410, "text/html; charset=utf-8")
    with pytest.raises(InvalidStatus) as handshake:
        async with reader(server, stream):
            pass
    assert handshake.value.response.status_code == 410
    assert stream not in server.http.get("/").text
    assert stream not in [row["stream"] for row in listed(server)["streams"]]


def test_nothing_is_published_or_restored_while_the_mark_stands(server: Running, stream: str) -> None:
    id = server.publish_ok(stream, "first")["id"]
    lines = server.send("GET", f"/streams/{stream}/export", b"").content
    delete(server, stream)
    entry = {"headline": "again"}
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/entries", entry),
        ("PUT", "/entries/mine", entry),
        ("PATCH", f"/entries/{id}", entry),
        ("DELETE", f"/entries/{id}", b""),
        ("PUT", "", entry),
        ("PATCH", "", entry),
        ("POST", "/end", {}),
        ("GET", "/export", b""),
        ("GET", f"/entries/{id}/delivery", b""),
    ]
    for method, path, value in changes:
        assert server.send(method, f"/streams/{stream}{path}", value).status_code == 410, (method, path)
    ndjson = {"Content-Type": "application/x-ndjson"}
    for line in lines.splitlines():
        restored = server.send("POST", f"/streams/{stream}/restore", line, **ndjson)
        assert json.loads(restored.text)["status"] == 410, line
    assert delete(server, stream).status_code == 200  # again


def test_a_name_that_is_forgotten_is_as_one_that_never_was(server: Running, stream: str) -> None:
    headers = {"Idempotency-Key": f"key-{stream}"}
    server.publish(stream, {"headline": "first"}, **headers)
    assert delete(server, stream, "?forget=true").json()["forgotten"] is True
    assert server.http.get(f"/streams/{stream}").status_code == 404
    again = server.publish(stream, {"headline": "first"}, **headers)
    assert (again.status_code, again.json()["n"]) == (201, 1)
    assert delete(server, f"{stream}-none").status_code == 404
    assert delete(server, stream, "?forget=yes").status_code == 422


async def test_open_readers_learn_of_it_and_are_closed(server: Running, stream: str) -> None:
    server.publish_ok(stream, "first")
    async with reader(server, stream) as socket:
        await receive(socket, "snapshot")
        answer = await asyncio.to_thread(delete, server, stream)
        bye = await receive(socket, "bye")
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
    assert (bye["reason"], closed.value.rcvd and closed.value.rcvd.code) == ("deleted", 4410)
    assert answer.json()["receipt"]["workers"][0]["state"] == "deleted"


async def test_an_event_source_gets_the_bye_and_the_end(server: Running, stream: str) -> None:
    server.publish_ok(stream, "first")
    async with httpx2.AsyncClient(base_url=server.url, timeout=LIMIT) as http:
        async with http.stream("GET", f"/streams/{stream}/sse") as response:
            lines = response.aiter_lines()
            async for line in lines:
                if '"type":"snapshot"' in line:
                    break
            await asyncio.to_thread(delete, server, stream)
            rest = [line async for line in lines]
    assert any('"type":"bye","reason":"deleted"' in line for line in rest)


# --- erasure


def test_a_legal_withdrawal_erases_by_itself_and_says_when(server: Running, stream: str) -> None:
    secret = "secret-a1b2c3d4"
    id = server.publish_ok(stream, secret)["id"]
    cursor = server.publish_ok(stream, "after")["cursor"]
    answer = server.send("DELETE", f"/streams/{stream}/entries/{id}?reason=legal", b"").json()
    assert answer["erased"]["files"] is True
    receipt = server.send("GET", f"/streams/{stream}/entries/{id}/delivery", b"").json()
    assert receipt["erased_at"] == answer["erased"]["at"]
    for path in (server.data / "valkey.sock", *server.data.rglob("appendonlydir/*")):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    events = server.http.get(f"/streams/{stream}/events?after={cursor}").json()
    assert (events["complete"], [event["type"] for event in events["events"]]) == (True, ["entry.withdraw"])
    assert "erased_at" not in json.dumps(events), "readers are not told"


def test_a_text_that_a_failover_could_bring_back_is_not_called_erased(serve: Serve, stream: str) -> None:
    """The store has no replica, which is to have it erased, too."""
    worker = serve("--replicas", "1")
    id = worker.publish(stream, {"headline": "a text"}).json()["id"]
    answer = worker.send("DELETE", f"/streams/{stream}/entries/{id}?reason=legal", b"")
    assert (answer.status_code, answer.json()["erased"]) == (202, None)
    again = worker.send("POST", f"/streams/{stream}/desk/entries/{id}/erase", b"")
    assert (again.status_code, again.json()["replicas"]) == (202, 0)


def test_an_entry_that_was_withdrawn_before_is_erased_on_request(server: Running, stream: str) -> None:
    id = server.publish_ok(stream, "secret-b2c3d4e5")["id"]
    path = f"/streams/{stream}/desk/entries/{id}/erase"
    assert server.send("POST", path, b"").status_code == 409
    withdrawn = server.send("DELETE", f"/streams/{stream}/entries/{id}?reason=error", b"").json()
    assert "erased" not in withdrawn
    assert "secret" in server.http.get(f"/streams/{stream}/entries/{id}", headers={"Accept": "text/html"}).text
    answer = server.send("POST", path, b"")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    assert (answer.json()["id"], answer.json()["erased"]["files"]) == (id, True)
    assert "secret" not in server.http.get(f"/streams/{stream}/entries/{id}", headers={"Accept": "text/html"}).text
    assert "erased_at" not in server.send("GET", f"/streams/{stream}/export", b"").text
    assert server.send("POST", f"/streams/{stream}/desk/entries/none/erase", b"").status_code == 404


# --- audit


def revisions(server: Running, stream: str, id: str) -> list[dict[str, Any]]:
    response = server.send("GET", f"/streams/{stream}/desk/entries/{id}/history", b"")
    assert (response.status_code, response.headers["cache-control"]) == (200, "private, no-store")
    rows: list[dict[str, Any]] = response.json()["revisions"]
    return rows


def test_a_history_names_keys_and_fields_and_no_text(server: Running, stream: str, desk_key: str) -> None:
    name = f"desk-{stream}"
    path = f"/streams/{name}/entries/x"
    server.send("PUT", path, {"headline": "one", "body": "Some text."}, **as_key(desk_key))
    server.send("PATCH", path, {"headline": "two", "tags": ["a"]})
    server.send("DELETE", f"{path}?reason=legal", b"")
    rows = revisions(server, name, "x")
    id = desk_key.split("_")[1]
    assert [(row["rev"], row["key"], row["action"], row["changed"]) for row in rows] == [
        (1, {"id": id, "name": "desk"}, "publish", []),
        (2, {"id": "server", "name": "server"}, "correct", ["headline", "tags"]),
        (3, {"id": "server", "name": "server"}, "withdraw", []),
        (3, {"id": "server", "name": "server"}, "erase", []),
    ]
    refused = server.http.get(f"/streams/{name}/desk/entries/x/history", headers=as_key(desk_key))
    assert (refused.status_code, refused.json()["errors"][0]["expected"]) == (403, f"a key that can audit in {name}")
    assert server.send("GET", f"/streams/{name}/desk/entries/none/history", b"").status_code == 404


async def test_no_reader_is_sent_who_made_an_entry(server: Running, stream: str, desk_key: str) -> None:
    name, id = f"desk-{stream}", desk_key.split("_")[1]
    first = server.publish(name, {"headline": "one"}, **as_key(desk_key)).json()
    server.publish(name, {"headline": "two"}, **as_key(desk_key))
    for path in ("", "/entries", "/events", "/feed.atom", "/feed.json", f"/entries/{first['id']}"):
        assert id not in server.http.get(f"/streams/{name}{path}").text
    async with reader(server, name, cursor=first["cursor"]) as socket:
        assert id not in json.dumps(await receive(socket, "entry.put"))


def test_an_import_records_both_who_made_and_who_imported(server: Running, stream: str, desk_key: str) -> None:
    name, copy = f"desk-{stream}", f"{stream}-copy"
    server.send("PUT", f"/streams/{name}/entries/x", {"headline": "one"}, **as_key(desk_key))
    assert '"history"' not in server.send("GET", f"/streams/{name}/export", b"").text
    lines = server.send("GET", f"/streams/{name}/export?history=true", b"").content
    refused = server.http.get(f"/streams/{name}/export?history=true", headers=as_key(desk_key))
    assert refused.status_code == 403
    ndjson = {"Content-Type": "application/x-ndjson"}
    for unchanged in (False, True):
        results = server.send("POST", f"/streams/{copy}/restore", lines, **ndjson).text.splitlines()
        assert [json.loads(line).get("unchanged", False) for line in results] == [unchanged] * len(results)
    rows = revisions(server, copy, "x")
    assert [(row["rev"], row["key"]["name"], row["action"]) for row in rows] == [
        (1, "desk", "publish"),
        (1, "server", "restore"),
    ]


# --- limits


def test_a_publisher_learns_its_limit_from_every_answer(server: Running, stream: str) -> None:
    key = create_key(server, "--rate", "1", "--streams", stream)
    ndjson = {"Content-Type": "application/x-ndjson"}
    answers = [
        server.publish(stream, {"headline": "x"}, **as_key(key)),
        server.publish(stream, {"nonsense": "x"}, **as_key(key)),
        server.publish(stream, b"{}\n" * 1_000, **as_key(key), **ndjson),  # overdraws, unless it is too much already
        server.publish(stream, {"headline": "x"}, **as_key(key)),
    ]
    assert [answers[number].status_code for number in (0, 1, 3)] == [201, 422, 429]
    for answer in answers:
        assert answer.headers["ratelimit-policy"] == '"key";q=2;w=2'
    assert answers[0].headers["ratelimit"] == '"key";r=1;t=1'
    assert answers[3].headers["ratelimit"].startswith('"key";r=0;t=')
    assert "ratelimit" not in server.publish(stream, {"headline": "x"}).headers, "the server's own key has no rate"
