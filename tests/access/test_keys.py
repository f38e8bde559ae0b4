from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from pushserver.access.keys import Keys, new_key
from pushserver.access.keystore import KeyStore
from pushserver.errors import Forbidden, TooMany, Unauthorized
from pushserver.store.store import Store

from ..support.keys import as_key, create_key, expired_key
from ..support.server import LIMIT, Running

pytestmark = pytest.mark.anyio


def test_a_key_can_do_what_it_is_for_and_nothing_else(server: Running, stream: str) -> None:
    key = create_key(server, "--streams", f"{stream},other-*", "--can", "publish,correct")
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
    assert [response.json()["detail"] for response in refused] == [
        f"This publish key lacks the right `withdraw` for stream {stream}.",
        f"This publish key lacks the right `page` for stream {stream}.",
        f"This publish key lacks the right `page` for stream {stream}.",
        f"This publish key lacks the right `publish` for stream {stream}-more.",
    ]
    (fault,) = refused[0].json()["errors"]
    assert fault == {
        "field": "Authorization",
        "expected": f"a key that can withdraw in {stream}",
        "got": f"one that can publish, correct in {stream}, other-*",
    }


async def test_a_request_without_a_right_needs_a_key_of_the_stream(log_store: Store) -> None:
    store = KeyStore(log_store)
    id, text, key = new_key("desk", streams=["storm-*"], can=["publish"], rate=50, expires=None)
    await store.add(id, key._asdict())
    keys = Keys("pk_local", store)
    await keys.admit(f"Bearer {text}", (), "storm-1")
    with pytest.raises(Forbidden) as refused:
        await keys.admit(f"Bearer {text}", (), "flood-1")
    assert refused.value.detail == "This publish key is not valid for stream flood-1."
    assert refused.value.faults[0].expected == "a key for flood-1"


async def test_each_request_and_each_line_of_a_batch_draws_on_the_rate_of_the_key(log_store: Store) -> None:
    store = KeyStore(log_store)
    id, text, key = new_key("desk", streams=["*"], can=["publish"], rate=10, expires=None)
    await store.add(id, key._asdict())
    keys = Keys("pk_local", store)
    quota = await keys.admit(f"Bearer {text}", ("publish",), "storm-1")
    quota.charge(1_000)
    with pytest.raises(TooMany, match="exceeds its rate"):
        await keys.admit(f"Bearer {text}", ("publish",), "storm-1")
    local = await keys.admit("Bearer pk_local", ("publish",), "storm-1")
    local.charge(1_000)
    await keys.admit("Bearer pk_local", ("publish",), "storm-1")


@pytest.mark.parametrize("authorization", [None, "", "Basic pk_local", "Bearer", "Bearer pk_other", "Bearer pk_0_"])
async def test_a_request_without_a_known_key_is_unauthorized(log_store: Store, authorization: str | None) -> None:
    keys = Keys("pk_local", KeyStore(log_store))
    with pytest.raises(Unauthorized, match="requires a publish key"):
        await keys.admit(authorization, ("publish",), "storm-1")


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer", 'Bearer ""'])
async def test_a_server_without_a_key_of_its_own_takes_no_empty_key(log_store: Store, authorization: str) -> None:
    with pytest.raises(Unauthorized):
        await Keys("", KeyStore(log_store)).admit(authorization, ("publish",), "storm-1")


@pytest.mark.parametrize(("can", "shown"), [("withdraw", {"rev"}), ("withdraw,publish,page", {"rev"})])
def test_a_key_that_may_not_correct_gets_the_current_revision_and_no_text(
    server: Running, stream: str, can: str, shown: set[str]
) -> None:
    key = create_key(server, "--streams", stream, "--can", can)
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "Of readers alone"})
    for condition in ({"If_Match": '"7"'}, {"If_None_Match": "*"}):
        refused = server.send("DELETE", f"/streams/{stream}/entries/x", b"", **as_key(key), **condition)
        assert (refused.status_code, refused.json()["current"].keys()) == (412, shown)
        assert refused.headers["ETag"] == '"1"'
        assert "readers" not in refused.text


def test_a_key_that_may_correct_gets_what_is_current(server: Running, stream: str) -> None:
    key = create_key(server, "--streams", stream, "--can", "withdraw,correct")
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "One"})
    refused = server.send("DELETE", f"/streams/{stream}/entries/x", b"", **as_key(key), If_Match='"7"')
    assert (refused.status_code, refused.json()["current"]["headline"]) == (412, "One")


def test_a_key_ends_at_its_expiry(server: Running, stream: str) -> None:
    past = expired_key(server, "2020-01-01T00:00:00.000Z")
    future = create_key(server, "--expires", "2999-01-01T00:00:00+02:00")
    refused = server.publish(stream, {"headline": "x"}, **as_key(past))
    assert (refused.status_code, "2020-01-01" in refused.text) == (401, True)
    assert server.publish(stream, {"headline": "x"}, **as_key(future)).status_code == 201


@pytest.mark.parametrize(
    "change", [lambda key: key[:-1], lambda key: key[:-1] + "!", lambda key: key.replace("pk_", "pk_0"), str.upper]
)
def test_a_key_that_is_nearly_right_is_wrong(server: Running, stream: str, change: Callable[[str], str]) -> None:
    key = change(create_key(server))
    assert server.publish(stream, {"headline": "x"}, **as_key(key)).status_code == 401


def test_a_key_that_exceeds_its_rate_is_answered_when_to_come_back(server: Running, stream: str) -> None:
    key = create_key(server, "--rate", "2")
    lines = b"\n".join([b'{"headline": "x"}'] * 400)  # what it may do in 200 s
    assert server.publish(stream, lines, Content_Type="application/x-ndjson", **as_key(key)).status_code == 200
    for _ in range(3):
        limited = server.publish(stream, {"headline": "x"}, **as_key(key))
        assert (limited.status_code, int(limited.headers["retry-after"]) >= 1) == (429, True)
    assert server.snapshot(stream)["n"] == 400


def test_a_scope_is_judged_before_the_body_is_read(server: Running, stream: str) -> None:
    key = create_key(server, "--streams", "elsewhere")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.sendall(
            f"POST /streams/{stream}/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n".encode()
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 403 ")
