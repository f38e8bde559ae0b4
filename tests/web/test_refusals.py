"""A refusal is a page for people, a frame for an EventSource, and a problem for programs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from pushserver.access.addresses import Addresses, AddressLimits, Proxies
from pushserver.access.origins import Origins
from pushserver.errors import BadToken, Forbidden, Gone, Invalid, NotFound, Refused, TooMany, Unavailable
from pushserver.store.store import StoreError
from pushserver.web.middleware import App
from pushserver.web.static_files import StaticSet

from ..support.server import Running

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
LATER = {
    "full": Unavailable("This worker takes no more readers.", retry_after=2),
    "stopping": Unavailable("The worker stops."),
    "far": Unavailable("Too many readers arrive at once; retry later.", retry_after=30),
    "often": TooMany("Too often.", headers={"Retry-After": "7"}),
    "store": StoreError("gone"),
}
NEVER = {
    "token": BadToken("No token.", headers={"WWW-Authenticate": "Bearer"}),
    "right": Forbidden("Not yours."),
    "unknown": NotFound("No such stream."),
    "gone": Gone("Withdrawn."),
    "name": Invalid("No name."),
}


ADDRESSES = Addresses(AddressLimits(0, 0, 0), Proxies(""))


@asynccontextmanager
async def no_work(app: Starlette) -> AsyncIterator[None]:
    yield


def application(routes: list[Route]) -> App:
    none = cast(Any, None)  # nothing asks for it
    return App(
        routes,
        hub=none,
        addresses=ADDRESSES,
        origins=Origins(""),
        surfaces=none,
        cache_control="no-cache",
        tokens=none,
        static=StaticSet(Path("/nowhere")),
        lifespan=no_work,
    )


def client_of(error: Exception) -> TestClient:
    """A client of an application that answers every request with an error."""

    async def fail(request: Request) -> Response:
        raise error

    routes = [Route("/{path:path}", fail)]
    app = application(routes)
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("error", LATER.values(), ids=LATER)
@pytest.mark.parametrize("query", ["", "?format=html"])
def test_an_event_source_that_is_to_come_later_does(error: Exception, query: str) -> None:
    answer = client_of(error).get(f"/streams/a/sse{query}", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["cache-control"] == "no-store, no-transform"
    match = re.fullmatch(r"retry: ([0-9]+)\ndata: (.*)\n\n", answer.text)
    assert match, answer.text
    bye = json.loads(match[2])
    assert (bye["type"], bye["retry_ms"]) == ("bye", int(match[1]))
    least = 1_000 * int(answer.headers["retry-after"])
    assert least <= bye["retry_ms"] <= least + 4_000


def test_readers_who_are_put_off_at_once_come_back_at_different_times() -> None:
    client = client_of(LATER["store"])
    assert len({client.get("/streams/a/sse").text for _ in range(20)}) > 10


@pytest.mark.parametrize("error", NEVER.values(), ids=NEVER)
def test_an_event_source_that_is_not_to_come_back_gets_the_status(error: Refused) -> None:
    answer = client_of(error).get("/streams/a/sse", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.json()) == (error.status, error.problem())


@pytest.mark.parametrize("error", [*LATER.values(), *NEVER.values()], ids=[*LATER, *NEVER])
def test_every_head_gets_the_status(error: Exception) -> None:
    answer = client_of(error).head("/streams/a/sse")
    assert answer.status_code == getattr(error, "status", 503)
    assert ("retry-after" in answer.headers) is (error in LATER.values())


@pytest.mark.parametrize("path", ["/streams/a/events", "/streams/a/entries/sse", "/streams/a/entries/x", "/sse", "/"])
def test_other_addresses_get_the_status_too(path: str) -> None:
    answer = client_of(LATER["often"]).get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("error", [*LATER.values(), *NEVER.values(), ValueError("bug")], ids=[*LATER, *NEVER, "bug"])
def test_a_browser_gets_a_page_for_people(error: Exception, method: str) -> None:
    client = client_of(error)
    problem = client.request(method, "/streams/a/events")
    page = client.request(method, "/streams/a/events", headers={"Accept": BROWSER})
    assert page.status_code == problem.status_code >= 400
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers.get("retry-after") == problem.headers.get("retry-after")
    assert page.headers.get("www-authenticate") == problem.headers.get("www-authenticate")
    assert (page.headers["vary"], problem.headers["vary"]) == ("Accept, Accept-Language", "Accept")
    if method == "GET":
        assert "<h1>" in page.text
        assert problem.json()["detail"].partition(";")[0] in page.text


def test_what_a_refusal_repeats_is_text_in_the_page() -> None:
    page = client_of(NotFound("<script>alert(1)</script> & more")).get("/", headers={"Accept": "text/html"})
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page.text
    assert "<script" not in page.text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_publisher_gets_a_problem_whatever_it_accepts(method: str) -> None:
    answer = client_of(NEVER["unknown"]).request(method, "/streams/a/events", headers={"Accept": BROWSER})
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_no_problem_stays_as_it_is() -> None:
    """The report of a probe, and the page of an entry that was withdrawn."""

    async def report(request: Request) -> Response:
        return JSONResponse({"ready": False}, 503)

    routes = [Route("/readyz", report)]
    app = application(routes)
    answer = TestClient(app).get("/readyz", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()) == (503, {"ready": False})


def test_a_full_worker_sends_an_event_source_away_and_it_comes_back(start: Callable[..., Running], stream: str) -> None:
    server = start("--readers", "1")
    server.publish_ok(stream, "one")
    with server.http.stream("GET", f"/streams/{stream}/sse") as response:
        lines = response.iter_lines()
        while '"hello"' not in next(lines):
            pass
        away = server.http.get(f"/streams/{stream}/sse")
        assert (away.status_code, '"bye"' in away.text) == (200, True)
        assert server.http.head(f"/streams/{stream}/sse").status_code == 503


def test_a_browser_that_asks_for_what_is_not_there_gets_a_page(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    for path in ("/nothing", f"/streams/{stream}-no", f"/streams/{stream}/entries/none", f"/streams/{stream}/nothing"):
        page = server.http.get(path, headers={"Accept": BROWSER})
        assert (page.status_code in (404, 422), page.headers["content-type"]) == (True, "text/html; charset=utf-8")
        assert server.http.get(path).headers["content-type"] == "application/problem+json"


def test_a_page_for_people_is_in_the_language_of_the_browser() -> None:
    headers = {"Accept": BROWSER, "Accept-Language": "ar-EG,en;q=0.5"}
    page = client_of(NEVER["unknown"]).get("/streams/a/b", headers=headers).text
    assert '<html lang="ar" dir="rtl">' in page
    assert "<h1>لا توجد صفحة في هذا العنوان</h1>" in page
    assert "No such stream." not in page  # it is English, and the title says it


def test_a_page_for_people_shows_the_detail_in_english_or_where_its_title_says_little() -> None:
    headers = {"Accept": BROWSER, "Accept-Language": "en"}
    assert '<p lang="en" dir="ltr">No such stream.</p>' in client_of(NEVER["unknown"]).get("/", headers=headers).text
    headers["Accept-Language"] = "ar"
    assert '<p lang="en" dir="ltr">No name.</p>' in client_of(NEVER["name"]).get("/", headers=headers).text
