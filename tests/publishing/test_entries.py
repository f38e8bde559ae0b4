"""Corrections, withdrawals, the page itself and its end: what a publisher sees, and every reader."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from ..support.server import Served, reader, receive
from ..support.worker import Serve


def put(server: Served, stream: str, id: str, entry: dict[str, Any], **headers: str) -> dict[str, Any]:
    response = server.send("PUT", f"/streams/{stream}/entries/{id}", entry, **headers)
    assert response.status_code in (200, 201), response.text
    answer: dict[str, Any] = response.json()
    return answer


def patch(server: Served, stream: str, id: str, change: dict[str, Any], **headers: str) -> dict[str, Any]:
    response = server.send("PATCH", f"/streams/{stream}/entries/{id}", change, **headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def withdraw(server: Served, stream: str, id: str, query: str = "", **headers: str) -> dict[str, Any]:
    response = server.send("DELETE", f"/streams/{stream}/entries/{id}?{query}", b"", **headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def entry_of(server: Served, stream: str, id: str) -> dict[str, Any]:
    response = server.http.get(f"/streams/{stream}/entries/{id}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_an_id_of_ones_own_is_created_once_and_then_corrected(server: Served, stream: str) -> None:
    path = f"/streams/{stream}/entries/wire-77"
    created = server.send("PUT", path, {"headline": "One"})
    assert (created.status_code, created.json()["rev"], created.headers["location"]) == (201, 1, path)
    corrected = server.send("PUT", path, {"headline": "Two"})
    assert (corrected.status_code, corrected.json()["rev"]) == (200, 2)
    assert [entry["headline"] for entry in server.snapshot(stream)["entries"]] == ["Two"]


def test_a_patch_changes_what_it_names_and_nothing_else(server: Served, stream: str) -> None:
    entry = {"headline": "One", "body": "Text", "bylines": [{"name": "Ada"}], "tags": ["a"]}
    put(server, stream, "x", entry)
    before = entry_of(server, stream, "x")
    patch(server, stream, "x", {"headline": None, "body": "Other *text*", "flags": {"key": True}})
    after = entry_of(server, stream, "x")
    assert "headline" not in after
    assert after["blocks"] == [{"type": "paragraph", "html": "Other <em>text</em>"}]
    assert after["flags"] == {"key": True}
    unchanged = ("id", "bylines", "tags", "published_at", "sort_at", "url")
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


@pytest.mark.parametrize(
    ("change", "stamped", "noted"),
    [
        ({"headline": "Two", "correction": {"class": "minor"}}, False, False),
        ({"headline": "Two", "correction": {"class": "update"}}, True, False),
        ({"headline": "Two"}, True, False),
        ({"headline": "Two", "correction": {"class": "correction", "note": "It was one."}}, True, True),
        ({"tags": ["new"]}, False, False),
        ({"sort_at": "2026-01-01T00:00:00Z"}, False, False),
    ],
)
def test_a_change_is_stamped_and_noted_by_its_class(
    server: Served, stream: str, change: dict[str, Any], stamped: bool, noted: bool
) -> None:
    put(server, stream, "x", {"headline": "One"})
    patch(server, stream, "x", change)
    entry = entry_of(server, stream, "x")
    assert (entry["rev"], "updated_at" in entry, "correction" in entry) == (2, stamped, noted)
    page = server.http.get(f"/streams/{stream}").text
    assert ("Updated <time" in page, "It was one." in page) == (stamped, noted)


def test_a_change_that_changes_nothing_is_no_event(server: Served, stream: str) -> None:
    put(server, stream, "x", {"headline": "One", "body": "Text"})
    n = server.snapshot(stream)["n"]
    assert put(server, stream, "x", {"headline": "One", "body": "Text"})["unchanged"] is True
    assert patch(server, stream, "x", {})["unchanged"] is True
    assert server.snapshot(stream)["n"] == n


def test_the_second_of_two_editors_is_told_and_shown_the_current_one(server: Served, stream: str) -> None:
    put(server, stream, "x", {"headline": "One"})
    patch(server, stream, "x", {"headline": "Mine"}, If_Match='"1"')
    for method, value in (("PATCH", {"headline": "Yours"}), ("PUT", {"headline": "Yours"}), ("DELETE", b"")):
        response = server.send(method, f"/streams/{stream}/entries/x", value, If_Match='"1"')
        assert (response.status_code, response.headers["etag"]) == (412, '"2"')
        assert response.json()["current"]["headline"] == "Mine"
    assert entry_of(server, stream, "x")["headline"] == "Mine"


def test_editors_at_the_same_time_lose_nothing(server: Served, stream: str) -> None:
    put(server, stream, "x", {"headline": "One"})
    names = ["headline", "body", "tags", "bylines"]
    values: dict[str, Any] = {"headline": "Two", "body": "B", "tags": ["t"], "bylines": [{"name": "N"}]}
    editors = [threading.Thread(target=patch, args=(server, stream, "x", {name: values[name]})) for name in names]
    for editor in editors:
        editor.start()
    for editor in editors:
        editor.join()
    entry = entry_of(server, stream, "x")
    assert entry["rev"] == 5
    assert (entry["headline"], entry["tags"], entry["bylines"]) == ("Two", ["t"], [{"name": "N"}])
    assert entry["blocks"] == [{"type": "paragraph", "html": "B"}]


def test_a_repeated_change_is_answered_as_the_first_was(server: Served, stream: str) -> None:
    put(server, stream, "x", {"headline": "One"})
    headers = {"If_Match": '"1"', "Idempotency_Key": "change"}
    first = server.send("PATCH", f"/streams/{stream}/entries/x", {"headline": "Two"}, **headers)
    again = server.send("PATCH", f"/streams/{stream}/entries/x", {"headline": "Two"}, **headers)
    other = server.send("PATCH", f"/streams/{stream}/entries/x", {"headline": "Three"}, **headers)
    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert other.status_code == 422
    gone = withdraw(server, stream, "x", "reason=error", Idempotency_Key="gone")
    assert withdraw(server, stream, "x", "reason=error", Idempotency_Key="gone") == gone


@pytest.mark.parametrize(
    ("method", "value", "headers", "status", "field"),
    [
        ("PATCH", {"nope": 1}, {}, 422, "nope"),
        ("PATCH", {"headlin": None}, {}, 422, "headlin"),
        ("PATCH", {"headline": 3}, {}, 422, "headline"),
        ("PATCH", [1], {}, 422, "body"),
        ("PATCH", {"headline": None, "blocks": None}, {}, 422, "body"),
        ("PATCH", {"published_at": "2020-01-01T00:00:00Z"}, {}, 422, "published_at"),
        ("PATCH", {"correction": {"class": "correction"}}, {}, 422, "correction"),
        ("PATCH", {"correction": {"class": "huge"}}, {}, 422, "correction.class"),
        ("PATCH", {"headline": "x"}, {"If_Match": "1"}, 400, "If-Match"),
        ("PATCH", {"headline": "x"}, {"If_Match": ""}, 400, "If-Match"),
        ("PATCH", {"headline": "x"}, {"If_Match": '"9"'}, 412, "If-Match"),
        ("PATCH", {"headline": "x"}, {"If_None_Match": '"9"'}, 400, "If-None-Match"),
        ("DELETE", b"", {"If_None_Match": 'W/"1"'}, 400, "If-None-Match"),
        ("DELETE", b"", {"If_None_Match": "*"}, 412, "If-None-Match"),
        ("PUT", {"headline": "x"}, {"If_None_Match": '"1"'}, 400, "If-None-Match"),
        ("PUT", {"headline": "x"}, {"If_None_Match": "*"}, 412, "If-None-Match"),
        ("PUT", {"headline": "x"}, {"Content_Type": "application/merge-patch+json"}, 415, "Content-Type"),
        ("PUT", {}, {}, 422, "body"),
    ],
)
def test_a_bad_change_is_refused_by_name_and_changes_nothing(
    server: Served, stream: str, method: str, value: Any, headers: dict[str, str], status: int, field: str
) -> None:
    put(server, stream, "x", {"headline": "One", "body": "Text"})
    before = server.snapshot(stream)
    response = server.send(method, f"/streams/{stream}/entries/x", value, **headers)
    assert response.status_code == status, response.text
    assert field in [fault["field"] for fault in response.json()["errors"]]
    assert server.snapshot(stream) == before


@pytest.mark.parametrize("query", ["reason=boredom", "why=error", "reason=error&note=" + "x" * 301])
def test_a_bad_withdrawal_is_refused(server: Served, stream: str, query: str) -> None:
    put(server, stream, "x", {"headline": "One"})
    assert server.send("DELETE", f"/streams/{stream}/entries/x?{query}", b"").status_code == 422
    assert entry_of(server, stream, "x")["headline"] == "One"


def test_what_is_not_there_cannot_be_changed(server: Served, stream: str) -> None:
    server.publish_ok(stream, "another")
    for method in ("PATCH", "DELETE"):
        assert server.send(method, f"/streams/{stream}/entries/x", {} if method == "PATCH" else b"").status_code == 404
    assert server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "x"}, If_Match='"1"').status_code == 412
    assert (
        server.send("PUT", f"/streams/{stream}/entries/bad.id", {"headline": "x"}).json()["errors"][0]["field"] == "id"
    )


@pytest.mark.parametrize("path", ["", "/entries/x"])
def test_a_star_asks_whether_anything_is_there(server: Served, stream: str, path: str) -> None:
    path, value = f"/streams/{stream}{path}", {"headline": "One"}
    for method, body in (("PUT", value), ("PATCH", value), ("DELETE", b""))[: 3 if "entries" in path else 2]:
        absent = server.send(method, path, body, If_Match="*")
        assert (absent.status_code, absent.json()["current"]) == (412, None)
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404
    assert server.send("PUT", path, value, If_None_Match="*").status_code == 201
    present = server.send("PUT", path, {"headline": "Two"}, If_None_Match="*")
    assert (present.status_code, present.headers["etag"], present.json()["current"]["headline"]) == (412, '"1"', "One")
    assert server.send("PATCH", path, {"headline": "Two"}, If_Match="*").json()["rev"] == 2


@pytest.mark.parametrize(("reason", "headline_stays"), [("error", True), ("legal", False)])
def test_a_withdrawn_entry_is_gone_from_every_answer(
    server: Served, stream: str, reason: str, headline_stays: bool
) -> None:
    put(server, stream, "x", {"headline": "Headline that was", "body": "Words that were"})
    put(server, stream, "y", {"headline": "Stays"})
    withdraw(server, stream, "x", f"reason={reason}&note=Not+so")
    address = f"/streams/{stream}/entries/x"
    answers = [
        server.http.get(f"/streams/{stream}"),
        server.http.get(f"/streams/{stream}/entries"),
        server.http.get(address),
        server.http.get(address, headers={"Accept": "text/html"}),
        server.send("PUT", address, {"headline": "again"}),
        server.send("PATCH", address, {"headline": "again"}),
        server.send("DELETE", address, b""),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 410, 410, 410, 410, 410]
    assert not any("Words that were" in answer.text for answer in answers)
    assert [("Headline that was" in answer.text) for answer in answers].count(True) == int(headline_stays)
    assert all("Not so" in answer.text for answer in answers[2:])
    assert "Stays" in answers[0].text


@pytest.mark.anyio
@pytest.mark.parametrize("ring", ["100", "1"])
async def test_no_replay_tells_what_was_withdrawn(serve: Serve, stream: str, ring: str) -> None:
    """From the ring and from the log alike: the order stays whole, and what was said is not told."""
    server = serve("--ring-events", ring)
    cursor = put(server, stream, "w", {"headline": "Start"})["cursor"]
    async with reader(server, stream) as early:  # so that the stream is followed, and its ring filled
        await receive(early, "snapshot")
        answers = [
            put(server, stream, "x", {"headline": "Secret one"}),
            patch(server, stream, "x", {"headline": "Secret two"}),
            put(server, stream, "y", {"headline": "Stays"}),
            withdraw(server, stream, "x", "reason=legal"),
        ]
    for format in ("json", "html"):
        async with reader(server, stream, cursor=cursor, format=format) as late:
            assert (await receive(late))["complete"] is True
            frames = [await receive(late) for _ in answers]
        assert [frame["type"] for frame in frames] == [
            "entry.withdraw",
            "entry.withdraw",
            "entry.put",
            "entry.withdraw",
        ]
        assert [(frame["n"], frame["cursor"]) for frame in frames] == [(a["n"], a["cursor"]) for a in answers]
        assert [frame["prev"] for frame in frames] == [cursor, *(answer["cursor"] for answer in answers[:-1])]
        assert "Secret" not in json.dumps(frames)
        assert {frame["id"] for frame in frames if frame["type"] == "entry.withdraw"} == {"x"}


def test_the_page_is_patched_field_by_field(server: Served, stream: str) -> None:
    server.put_page(stream, {"headline": "One", "dek": "Dek", "timezone": "America/New_York"})
    response = server.send("PATCH", f"/streams/{stream}", {"headline": "Two", "dek": None}, If_Match='"1"')
    assert (response.status_code, response.json()["rev"]) == (200, 2)
    page = server.snapshot(stream)["page"]
    assert (page["headline"], page.get("dek"), page["timezone"]) == ("Two", None, "America/New_York")
    stale = server.send("PATCH", f"/streams/{stream}", {"headline": "Three"}, If_Match='"1"')
    assert (stale.status_code, stale.json()["current"]["headline"]) == (412, "Two")
    assert server.send("PATCH", f"/streams/{stream}", {"rev": 9}).status_code == 422


def test_an_ended_stream_takes_corrections_and_nothing_new(server: Served, stream: str) -> None:
    server.put_page(stream, {"headline": "Page"})
    put(server, stream, "x", {"headline": "One"})
    following = {"label": "Tomorrow's page", "url": "https://news.example/tomorrow"}
    ended = server.send("POST", f"/streams/{stream}/end", {"next": following})
    assert ended.status_code == 200, ended.text
    page = server.snapshot(stream)["page"]
    assert (page["state"], page["next"]) == ("ended", following)
    assert server.publish(stream, {"headline": "Late"}).status_code == 409
    patch(server, stream, "x", {"headline": "Mended"})
    server.send("PATCH", f"/streams/{stream}", {"headline": "Page, mended"})
    assert server.snapshot(stream)["page"]["state"] == "ended"
    server.send("PATCH", f"/streams/{stream}", {"state": "live"})
    server.publish_ok(stream, "Live again")


def test_a_stream_whose_name_is_misspelt_is_not_ended(server: Served, stream: str) -> None:
    server.publish_ok(stream, "One")
    refused = server.send("POST", f"/streams/{stream}-x/end", {})
    assert (refused.status_code, refused.json()["detail"]) == (
        404,
        f"There is no stream {stream}-x; nothing was ended.",
    )
    assert server.http.get(f"/streams/{stream}-x").status_code == 404
    assert server.send("POST", f"/streams/{stream}/end", {}).status_code == 201


EARLY, LATE = "2023-07-11T15:53:00Z", "2023-07-11T15:54:00Z"
FOLLOWING = {"label": "Tomorrow's page", "url": "https://news.example/tomorrow"}


@pytest.mark.parametrize(
    ("method", "path", "change", "other"),
    [
        ("POST", "/end", {"next": FOLLOWING}, {"next": {**FOLLOWING, "label": "Other"}}),
        ("POST", "/end", {}, {"next": FOLLOWING}),
        ("PUT", "", {"headline": "Page", "topics": [{"label": "Storm"}]}, {"headline": "Other"}),
        ("PUT", "", {"headline": "Page", "updated_at": EARLY}, {"headline": "Page", "updated_at": LATE}),
        ("PATCH", "", {"headline": "Page", "dek": None}, {"dek": "Dek"}),
    ],
)
def test_a_change_of_a_page_that_changes_nothing_is_no_event(
    server: Served, stream: str, method: str, path: str, change: dict[str, Any], other: dict[str, Any]
) -> None:
    server.publish_ok(stream, "One")
    address = f"/streams/{stream}{path}"
    first = server.send(method, address, change).json()
    before = server.snapshot(stream)
    for _ in range(2):
        again = server.send(method, address, change)
        expected = {"rev": first["rev"], "url": f"/streams/{stream}", "unchanged": True}
        assert (again.status_code, again.json(), again.headers["etag"]) == (200, expected, f'"{first["rev"]}"')
    assert server.snapshot(stream) == before
    assert server.send(method, address, change, If_Match='"99"').status_code == 412
    assert server.send(method, address, other).json()["n"] == before["n"] + 1


def test_the_end_needs_no_body(server: Served, stream: str) -> None:
    server.publish_ok(stream, "One")
    bearer, path = {"Authorization": f"Bearer {server.key}"}, f"/streams/{stream}/end"
    assert server.http.post(path, headers=bearer, content=b"{}").status_code == 415
    assert server.snapshot(stream)["page"]["state"] == "live"
    assert server.http.post(path, headers=bearer).status_code == 201
    assert server.snapshot(stream)["page"]["state"] == "ended"


@pytest.mark.anyio
async def test_the_end_is_told_and_readers_do_not_come_back(server: Served, stream: str) -> None:
    server.put_page(stream, {"headline": "Page"})
    async with reader(server, stream) as socket:
        await receive(socket, "snapshot")
        server.send("POST", f"/streams/{stream}/end", {})
        end = await receive(socket, "stream.end")
        await socket.wait_closed()
    assert end["page"]["state"] == "ended"
    assert socket.close_code == 4410
