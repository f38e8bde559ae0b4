"""The Origin check admits the server's own pages and those of allowed origins, and refuses others."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from pushserver.access.origins import HINTS, Origin, Origins, parse_origins, parse_public_url
from pushserver.access.token_gate import PERMIT, Permit
from pushserver.errors import Forbidden

NEWS, EVIL = "https://news.example", "https://evil.example"


def connection(
    origin: str | None, *, by_cookie: bool | None = None, host: str = "live.example:8000", scheme: str = "http"
) -> HTTPConnection:
    """A request from a page of an origin; with a permit where it is known how its token came."""
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    permit = {} if by_cookie is None else {PERMIT: Permit(2e9, by_cookie)}
    return HTTPConnection({"type": "http", "headers": headers, "scheme": scheme, **permit})


@pytest.mark.parametrize("setting", ["", "*", NEWS])
@pytest.mark.parametrize("by_cookie", [None, True, False])
@pytest.mark.parametrize("origin", [None, "http://live.example:8000", "https://live.example:8000"])
def test_the_server_s_own_pages_and_scripts_may_read(setting: str, by_cookie: bool | None, origin: str | None) -> None:
    Origins(setting).check(connection(origin, by_cookie=by_cookie))


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("news.example:443", "https", "https://news.example"),
        ("news.example:443", "http", "https://news.example"),  # the proxy does not say that it ended TLS
        ("news.example", "http", "https://news.example"),
        ("news.example:80", "http", "http://news.example"),
        ("News.Example", "https", "https://news.example"),
        ("news.example:8443", "wss", "https://news.example:8443"),
        ("[0:0:0:0:0:0:0:1]:80", "http", "http://[::1]"),
        ("news.example:", "http", "http://news.example"),
    ],
)
def test_a_page_s_own_host_is_compared_as_origins_are(host: str, scheme: str, origin: str) -> None:
    Origins("").check(connection(origin, host=host, scheme=scheme, by_cookie=True))


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("news.example:80", "http", "https://news.example"),
        ("news.example:443", "https", "http://news.example"),
        ("news.example", "https", "http://news.example"),  # a page that anybody on the way may have written
        ("news.example", "wss", "http://news.example"),
        ("news.example:8443", "https", "https://news.example"),
        ("", "http", "http://"),
        ("127.0.0.1:8000", "http", "https://news.example"),
        ("news.example@evil.example", "http", "http://evil.example"),
    ],
)
def test_another_scheme_host_or_port_is_another_origin(host: str, scheme: str, origin: str) -> None:
    with pytest.raises(Forbidden):
        Origins("").check(connection(origin, host=host, scheme=scheme))


@pytest.mark.parametrize(
    ("setting", "origin", "by_cookie"),
    [
        (NEWS, NEWS, None),
        (f" https://a.example , {NEWS}", NEWS, None),
        ("*", EVIL, None),
        ("*", "null", None),
        ("*", EVIL, False),
        (f"*,{NEWS}", NEWS, True),
        ("HTTPS://News.Example:443/", NEWS, True),
    ],
)
def test_an_allowed_origin_may_read(setting: str, origin: str, by_cookie: bool | None) -> None:
    Origins(setting).check(connection(origin, by_cookie=by_cookie))


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
        (NEWS, f"{NEWS}, {EVIL}", None),
        ("*", EVIL, True),
        ("*", "*", True),
        (f"*,{NEWS}", EVIL, True),
    ],
)
def test_any_other_origin_may_not(setting: str, origin: str, by_cookie: bool | None) -> None:
    with pytest.raises(Forbidden) as refused:
        Origins(setting).check(connection(origin, by_cookie=by_cookie))
    assert refused.value.faults[0].field == "Origin"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://www.news.example/", "https://www.news.example"),
        ("HTTPS://WWW.News.Example", "https://www.news.example"),
        ("https://news.example:443", "https://news.example"),
        ("http://news.example:80/", "http://news.example"),
        ("http://news.example:8080", "http://news.example:8080"),
        ("https://news.example:80", "https://news.example:80"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[2001:DB8:0::1]:8000", "http://[2001:db8::1]:8000"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_is_read_as_browsers_write_it(text: str, canonical: str) -> None:
    assert str(Origin.parse(text)) == canonical
    assert parse_origins(f"*, {text},") == (frozenset([Origin.parse(canonical)]), True)


@pytest.mark.parametrize(
    "text",
    [
        "news.example",
        "https://",
        "https://news.example/live",
        "https://news.example//",
        "https://news.example?a",
        "https://*.news.example",
        "https://ada@news.example",
        "https://news.example:65536",
        "https://news.example:http",
        "https://news..example",
        "https://[::1",
        "https://[:::]",
        "https://news.example\nhttps://evil.example",
        "wss://news.example",
        "file:///",
        "null",
    ],
)
def test_what_is_no_origin_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*" + text[:4].replace("*", r"\*")):
        Origins(text)


def test_the_public_address_is_one_of_the_web_and_its_pages_are_the_server_s_own() -> None:
    origins = Origins("", "https://Live.News.example/")
    origins.check(connection("https://live.news.example", host="127.0.0.1:8000", by_cookie=True))
    Origins("", "https://news.example/live").check(connection("https://news.example", host="127.0.0.1:8000"))
    assert parse_public_url("") is None
    for text in ("capacitor://localhost", "live.news.example", "https:///live"):
        with pytest.raises(ValueError, match="expected"):
            Origins("", text)


def test_a_page_that_a_proxy_may_have_given_another_host_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    origins = Origins("")
    for _ in range(3):
        with pytest.raises(Forbidden):
            origins.check(connection("https://news.example", host="127.0.0.1:8000"))
    (line,) = caplog.messages
    assert "https://news.example" in line
    assert "Host: 127.0.0.1:8000" in line
    assert "proxy_set_header Host $http_host" in line
    assert "--public-url https://news.example" in line


def test_strange_origins_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    origins = Origins("")
    for text in ("null", "https://a\nb", *(f"https://{number}.example" for number in range(3 * HINTS))):
        with pytest.raises(Forbidden):
            origins.check(connection(text))
    assert len(caplog.messages) == HINTS
