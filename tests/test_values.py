"""The texts of settings: each is made normal or refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pushserver import values

from .support.server import KEY


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"\t {KEY} \r\n", "!" * 16, "~" * 512])
def test_a_publish_key_is_taken_without_the_space_around_it(text: str) -> None:
    assert values.publish_key(text) == text.strip()


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("k", "got 1"),
        ("", "got 0"),
        ("fifteen-letters", "got 15"),
        ("x" * 513, "got 513"),
        ("two words of a key", "got others"),
        ("schlüssel-schlüssel", "got others"),
        ("one\ntwo\nthree\nfour", "got others"),
        ("0123456789abcdef\x00", "got others"),
    ],
)
def test_any_other_publish_key_is_refused_and_not_repeated(text: str, got: str) -> None:
    with pytest.raises(ValueError, match="openssl rand -hex 24") as refused:
        values.publish_key(text)
    assert got in str(refused.value)
    assert len(text) < 2 or text not in str(refused.value)


def refusal(parse: Callable[[str], str], text: str) -> str:
    with pytest.raises(ValueError, match="expected") as refused:
        parse(text)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        (" localhost\n", "localhost"),
        ("::1", "::1"),
        ("[::]", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("news.example", "news.example"),
    ],
)
def test_a_host_to_listen_on_is_an_address_or_a_name(text: str, host: str) -> None:
    assert values.listen_host(text) == host


@pytest.mark.parametrize(
    "text", ["", " ", "*", "http://0.0.0.0", "0.0.0.0:8000", "[::1]:80", "1.2.3", "0", "a b", "[x]"]
)
def test_any_other_host_is_refused(text: str) -> None:
    assert "without a port" in refusal(values.listen_host, text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://www.news.example/", "https://www.news.example"),
        ("https://News.Example", "https://news.example"),
        ("HTTPS://news.example:443", "https://news.example"),
        ("http://news.example:80/", "http://news.example"),
        ("http://news.example:443", "http://news.example:443"),
        ("http://127.0.0.1:08080", "http://127.0.0.1:8080"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("https://MÜNCHEN.example", "https://xn--mnchen-3ya.example"),
        ("https://faß.example", "https://xn--fa-hia.example"),
        ("http://[0:0::1]:8000", "http://[::1]:8000"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_is_as_browsers_send_it(text: str, origin: str) -> None:
    assert values.origin(text) == values.origin(origin) == origin
    assert values.origins(f"*, {text} ,,{origin}") == f"*,{origin}"


@pytest.mark.parametrize(
    "text",
    [
        "news.example",
        "https://news.example/live",
        "https://news.example?x",
        "https://news.example#x",
        "https://*.news.example",
        "https://ada:hunter2@news.example",
        "wss://news.example",
        "https://",
        "https://news.example:0",
        "https://news.example:99999",
        "https://news.example:x",
        "https://[::zz]",
        "https://two words",
        "https://-\u0301.example",
        "null",
        "file://",
    ],
)
def test_what_no_page_of_one_site_sends_is_refused_by_name(text: str) -> None:
    said = refusal(values.origins, f"https://good.example,{text}")
    assert "good.example" not in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("text", "proxies"),
    [
        ("10.0.0.7, 10.1.2.3/8", "10.0.0.7,10.0.0.0/8"),
        ("::1,fd00::1/8", "::1,fd00::/8"),
        ("*", "*"),
        ("127.0.0.1,*", "*"),
    ],
)
def test_proxies_are_addresses_and_networks(text: str, proxies: str) -> None:
    assert values.proxies(text) == values.proxies(proxies) == proxies


@pytest.mark.parametrize("text", ["nginx", "10.0.0.0/33", "10.0.0.1:80", "10.0.0.0/8 10.1.0.0/16", "http://10.0.0.1"])
def test_any_other_proxy_is_refused(text: str) -> None:
    assert "10.0.0.0/8, or *" in refusal(values.proxies, text)


def test_patterns_that_fit_no_name_of_a_stream_are_refused() -> None:
    assert values.stream_patterns(" desk-*, s?,[a-c]x,, ") == "desk-*,s?,[a-c]x"
    assert "got an empty string" in refusal(values.stream_patterns, "")
    for text in ("Desk-*", "desk_*", "desk/*", "desk-*;x", "bücher-*", "x" * 65):
        assert "desk-*" in refusal(values.stream_patterns, f"closed,{text}")


@pytest.mark.parametrize(
    "text",
    [
        "redis://127.0.0.1:6379/0",
        "redis://host",
        "rediss://user:p%40ss@[::1]:6380/3?ssl_cert_reqs=none",
        "redis://:a@b:c@host:1",
        "redis+sentinel://:secret@one:26379,two:26379/live/0?sentinel_password=x",
        "redis+cluster://one:1,two:2",
        "unix:///run/a@b.sock?db=0&password=x",
        "unix:///x/news%231/valkey.sock",
    ],
)
def test_the_url_of_a_store_is_taken_as_it_is(text: str) -> None:
    assert values.store_url(f" {text}\n") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://full:p:/@#?%w-hunter2@127.0.0.1:1/0", "%2F"),
        ("redis://u:hunter2/x@host:1", "%2F"),
        ("redis://u:1/hunter2@host:1", "%2F"),
        ("redis://u:hunter2?x@host:1", "%3F"),
        ("redis://u:hunter2#x@host:1", "%23"),
        ("redis://u:hunter2 x@host:1", "%20"),
        ("redis+sentinel://:hunter2/x@one:1,two:2/name", "%2F"),
        ("redis://host/0?password=hunter2#x", "%23"),
        ("redis://u:x?hunter2=1@host", "u:***@host"),
        ("u:hunter2@host:6379", "redis://"),
        ("https://u:hunter2@host:6379", "redis://"),
        ("redis:/u:hunter2@host:6379", "redis://"),
        ("redis://:hunter2@host:99999", "host:99999"),
        ("redis://:hunter2@host:x", "host:x"),
        ("redis://:hunter2@one:1,two:2,three:", "three:"),
        ("localhost:6379", "localhost:6379"),
    ],
)
def test_any_other_url_of_a_store_is_refused_without_its_secret(text: str, shown: str) -> None:
    said = refusal(values.store_url, text)
    assert shown in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://live.news.example", "https://live.news.example"),
        (" HTTPS://Live.News.example:443/ ", "https://live.news.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://News.example/Live/now/", "https://news.example/Live/now"),
    ],
)
def test_a_public_address_is_made_normal(text: str, address: str) -> None:
    assert values.public_url(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("foo", "live.news.example", "ftp://a.example", "*", "https://", "https:///live", "https://a.example/live?x"),
        *("https://a.example/<b>", "https://a.example//live", "https://a.example/../live", "https://a.example/a b"),
    ],
)
def test_what_is_no_public_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"https://live\.news\.example"):
        values.public_url(text)


def test_a_logo_has_an_absolute_address_and_a_handle_its_sign() -> None:
    assert values.web_address(" https://news.example/a.png?x=1 ") == "https://news.example/a.png?x=1"
    assert values.handle("courier") == values.handle("@courier") == "@courier"
    for refuse, text in ((values.web_address, "/a.png"), (values.web_address, "javascript:x"), (values.handle, "a b")):
        with pytest.raises(ValueError, match="expected"):
            refuse(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:6081/{path}",
        "https://cdn.example/service/1/purge/{stream}",
        "http://a.example/{path} http://b.example/x/{path}?k={stream}",
        "http://[::1]:80/{path}",
    ],
)
def test_addresses_that_purge_a_cache_are_taken(text: str) -> None:
    assert values.purge_urls(f" {text.replace(' ', '   ')}\n") == text


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:6081/",  # no place
        "http://127.0.0.1:6081/{path} x",
        "{path}",
        "ftp://a.example/{path}",
        "file:///{path}",
        "http://{stream}.example/{path}",
        "http://{path}",
        "http:///{path}",
        "http://a.example/{path}/{id}",
        "http://a.example/{path}}",
        "http://user:hunter2@a.example/{path}",
        "http://a.example:port/{path}",
    ],
)
def test_any_other_address_that_purges_is_refused(text: str) -> None:
    said = refusal(values.purge_urls, text)
    assert "http://127.0.0.1:6081/{path}" in said
    assert "hunter2" not in said


def test_the_operators_listener_has_an_address_and_no_path() -> None:
    assert values.tcp_host("[::1]") == "::1"
    assert "IP address or a host name" in refusal(values.tcp_host, "unix:/run/metrics.sock")
