"""The echo says what the server believes of a request, to keys alone."""

from __future__ import annotations

from ..support.keys import as_key, create_key
from ..support.server import Running


def test_a_request_is_told_to_keys_as_it_arrived(server: Running, stream: str) -> None:
    path = f"/streams/{stream}/desk/echo"
    sent = {"Host": "live.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    headers = {"Authorization": f"Bearer {server.key}", **sent}
    answers = [server.http.get(path, headers=headers) for _ in range(2)]
    assert [answer.headers["cache-control"] for answer in answers] == ["private, no-store"] * 2
    first, second = (answer.json() for answer in answers)
    assert (first["scheme"], first["host"], first["address"]) == ("https", "live.example", "203.0.113.9")
    assert first["headers"]["x-forwarded-for"] == "203.0.113.9"
    assert first["id"] != second["id"]
    assert first["worker"] == second["worker"]
    assert "authorization" not in first["headers"]


def test_the_echo_needs_a_key_of_the_stream(server: Running, stream: str) -> None:
    path = f"/streams/{stream}/desk/echo"
    assert server.http.get(path).status_code == 401
    key = create_key(server, "--streams", "other-*")
    assert server.http.get(path, headers=as_key(key)).status_code == 403
    key = create_key(server, "--streams", "test-*", "--can", "publish")
    assert server.http.get(path, headers=as_key(key)).status_code == 200
    assert server.http.get("/streams/UPPER/desk/echo", headers=as_key(server.key)).status_code == 422
