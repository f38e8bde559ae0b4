"""The Origin check admits the server's own pages and those of allowed origins, and refuses others."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from pushserver.access.gate import PERMIT, Permit
from pushserver.access.origins import Origins
from pushserver.errors import Forbidden

NEWS, EVIL = "https://news.example", "https://evil.example"


def connection(origin: str | None, *, by_cookie: bool | None = None) -> HTTPConnection:
    """A request from a page of an origin; with a permit where it is known how its token came."""
    headers = [(b"host", b"live.example:8000")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    permit = {} if by_cookie is None else {PERMIT: Permit(2e9, by_cookie)}
    return HTTPConnection({"type": "http", "headers": headers, **permit})


@pytest.mark.parametrize("setting", ["", "*", NEWS])
@pytest.mark.parametrize("by_cookie", [None, True, False])
@pytest.mark.parametrize("origin", [None, "http://live.example:8000", "https://live.example:8000"])
def test_the_server_s_own_pages_and_scripts_may_read(setting: str, by_cookie: bool | None, origin: str | None) -> None:
    assert Origins(setting).check(connection(origin, by_cookie=by_cookie)) is None


@pytest.mark.parametrize(
    ("setting", "origin", "by_cookie"),
    [
        (NEWS, NEWS, None),
        (f" https://a.example , {NEWS}", NEWS, None),
        ("*", EVIL, None),
        ("*", "null", None),
        ("*", EVIL, False),
        (f"*,{NEWS}", NEWS, True),
    ],
)
def test_an_allowed_origin_may_read(setting: str, origin: str, by_cookie: bool | None) -> None:
    assert Origins(setting).check(connection(origin, by_cookie=by_cookie)) == origin


@pytest.mark.parametrize(
    ("setting", "origin", "by_cookie"),
    [
        ("", EVIL, None),
        ("", "", None),
        ("", "null", None),
        ("", "http://live.example", None),  # another port is another origin
        (NEWS, EVIL, None),
        (NEWS, f"{NEWS}.evil.example", None),
        (NEWS, "http://news.example", None),
        ("*", EVIL, True),
        ("*", "*", True),
        (f"*,{NEWS}", EVIL, True),
    ],
)
def test_any_other_origin_may_not(setting: str, origin: str, by_cookie: bool | None) -> None:
    with pytest.raises(Forbidden) as refused:
        Origins(setting).check(connection(origin, by_cookie=by_cookie))
    assert refused.value.faults[0].field == "Origin"
