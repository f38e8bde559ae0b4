"""Cache-Control lets shared caches serve what everybody may read for a moment, and nothing that has a token."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pushserver.web.cache_control import cache_control

from ..support import issuer
from ..support.issuer import token
from ..support.server import Running
from ..support.worker import Serve

CACHED = "public, max-age=0, s-maxage=1, stale-while-revalidate=2, stale-if-error=30"
READ = ["", "?before=9.x", "?n=1", "/entries", "/entries?limit=1", "/entries/one", "/feed.atom", "/feed.json"]


@pytest.mark.parametrize(
    ("seconds", "field"),
    [
        (0, "no-cache"),
        (1, CACHED),
        (10, "public, max-age=0, s-maxage=10, stale-while-revalidate=20, stale-if-error=30"),
    ],
)
def test_the_setting_is_the_time_for_which_a_shared_cache_answers_by_itself(seconds: int, field: str) -> None:
    assert cache_control(seconds) == field


@pytest.fixture
def one_entry(server: Running, stream: str) -> str:
    """A stream with an entry."""
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    return stream


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("surface", READ)
def test_what_everybody_may_read_is_for_caches_and_names_its_stream(
    server: Running, one_entry: str, surface: str, accept: str
) -> None:
    path = f"/streams/{one_entry}{surface}"
    answer = server.http.get(path, headers={"Accept": accept})
    again = server.http.get(path, headers={"Accept": accept, "If-None-Match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code) == (200, 304)
    for each in (answer, again):
        assert (each.headers["cache-control"], each.headers["surrogate-key"]) == (CACHED, one_entry)
        assert "set-cookie" not in each.headers
    by_token = server.http.get(path, headers={"Accept": accept, "Authorization": "Bearer x", "Cookie": "a=b"})
    assert by_token.content == answer.content  # a cache may share it: it depends on neither


@pytest.mark.parametrize("path", ["/events", "/entries/none", "/none"])
def test_catching_up_and_refusals_are_asked_for_each_time(server: Running, one_entry: str, path: str) -> None:
    for accept in ("*/*", "text/html"):
        answer = server.http.get(f"/streams/{one_entry}{path}", headers={"Accept": accept})
        assert answer.headers["cache-control"] == "no-cache"


def test_a_server_may_have_caches_ask_each_time(serve: Serve, stream: str) -> None:
    server = serve("--cache", "0")
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    for surface in READ:
        assert server.http.get(f"/streams/{stream}{surface}").headers["cache-control"] == "no-cache"


def test_no_cache_keeps_what_a_token_let_through(serve: Serve, tmp_path: Path, stream: str) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(issuer.ALL)
    server = serve("--private", "*", "--token-keys", str(keys))
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    for surface in [*READ, "/events", "/entries/none"]:
        for headers in ({}, {"Authorization": f"Bearer {token(stream)}"}):
            accept = {"Accept": "text/html"} if surface == "/entries/none" else {}
            answer = server.http.get(f"/streams/{stream}{surface}", headers={**headers, **accept})
            assert answer.headers["cache-control"] == "private, no-store"
            assert {"Authorization", "Cookie"} <= set(re.split(r",\s*", answer.headers["vary"]))
            assert "surrogate-key" not in answer.headers


@pytest.mark.parametrize("surface", ["", "/entries", "/feed.atom", "/feed.json"])
def test_an_answer_is_not_older_than_the_event_that_the_address_names(
    server: Running, one_entry: str, surface: str
) -> None:
    path = f"/streams/{one_entry}{surface}"
    for number in range(2, 5):
        n = server.publish_ok(one_entry, f"Entry {number}")["n"]
        answer = server.http.get(f"{path}?n={n}")
        assert (answer.status_code, f"Entry {number}" in answer.text) == (200, True)
    for text in ("", "x", "-1", "9" * 17):
        for query in (f"?n={text}", f"?utm_source=x&n={text}"):
            refused = server.http.get(f"{path}{query}")
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "n")
