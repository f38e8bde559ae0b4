from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

from pushserver.store.address import read_address
from pushserver.store.topology import topology_of

HARD = "p:/@#?%w &=+[é]"  # a password of every character that means something in a URL
ENCODED = "p%3A%2F%40%23%3F%25w%20%26%3D%2B%5B%C3%A9%5D"


def test_a_password_reaches_the_server_as_it_was_encoded() -> None:
    address = read_address(f"redis+sentinel://u%40x:{ENCODED}@one:26379/live/2")
    assert address.server("two:6379") == f"redis://u%40x:{ENCODED}@two:6379/2"
    assert address.sentinel("one:26379") == "redis://one:26379"


@pytest.mark.parametrize("password", ["#", "a+b/c==", HARD, "@", "%23", "?x=1&y"])
def test_a_password_of_the_sentinels_is_decoded_and_quoted(password: str) -> None:
    url = f"redis+sentinel://one:1/live?sentinel_password={quote(password, safe='')}&sentinel_user=watch%23"
    parts = urlsplit(read_address(url).sentinel("one:1"))
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("watch#", password)
    assert (parts.hostname, parts.port) == ("one", 1)
    assert parts.query == ""


def test_a_plus_in_a_password_is_a_plus() -> None:
    assert read_address("redis+sentinel://one:1/live?sentinel_password=a+b").sentinel("one:1") == "redis://:a%2Bb@one:1"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://", "redis://"),
        ("redis://localhost", "redis://localhost"),
        ("redis://:6379/3", "redis://:6379/3"),
        ("redis://:secret@[::1]:6379/0", "redis://:secret@[::1]:6379/0"),
        ("redis://one:6379?db=4&client_name=push%20er", "redis://one:6379?db=4&client_name=push%20er"),
        ("unix:///run/My%20Store%231/valkey.sock?db=2", "unix:///run/My%20Store%231/valkey.sock?db=2"),
        ("rediss://one:6380/0?ssl_check_hostname=false", "rediss://one:6380/0?ssl_check_hostname=false"),
        ("redis+cluster://user:secret@one:6379,[::1]:6380/0", "redis://user:secret@one:6379"),
        ("redis+sentinel://one:26379,two:26379/live", "redis://one:26379/0"),
    ],
)
def test_an_address_gives_the_url_of_a_server(url: str, server: str) -> None:
    address = read_address(url)
    assert address.server(address.hosts[0]) == server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:6379", "scheme"),
        ("full:secret@one:6379", "scheme"),
        ("redis://full:p:secret/@#?%w@127.0.0.1:1/0", "write / as %2F"),
        ("redis://full:12?secret@127.0.0.1:1/0", "write / as %2F"),
        ("redis://full:secret/x@127.0.0.1:1/0", "host:port"),
        ("redis://one:65536", "host:port"),
        ("redis://one:6379/secret", "number of a database"),
        ("redis+sentinel://one:26379", "name"),
        ("redis+sentinel://one:26379/live/secret", "number of a database"),
        ("redis+sentinel://one,two:26379/live", "host:port"),
        ("redis+sentinel://one:26379/live?username=secret", "got username"),
        ("redis+sentinel://one:26379/live?db=1", "got db"),
        ("redis+cluster://one:6379/1", "no database"),
        ("redis+cluster://one:6379?sentinel_password=secret", "got sentinel_password"),
        ("redis+cluster://", "host:port"),
        ("redis://one:6379?no_such=secret", "client_name, .*got no_such"),
        ("redis://one:6379?decode_responses=1", "got decode_responses"),
        ("redis://one:6379?socket_timeout=1", "got socket_timeout"),
        ("redis://one:6379?db=secret", "'db'"),
        ("redis://one:6379?db=1&db=2", "db once"),
        ("redis://one:6379?ssl_certfile=/secret", "scheme with TLS"),
        ("unix:///run/valkey.sock?socket_keepalive=1", "socket_keepalive"),
        ("rediss://one:6379?ssl_cert_reqs=secretly", "options"),
    ],
)
def test_a_url_that_describes_no_store_is_refused_and_no_secret_is_repeated(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as refused:
        topology_of(url)
    assert "secret" not in str(refused.value) or "secretly" in url


@pytest.mark.parametrize("name", ["ssl_certfile", "ssl_keyfile", "ssl_ca_certs"])
@pytest.mark.parametrize("kind", ["rediss://one:6379", "rediss+sentinel://one:1/live", "rediss+cluster://one:1"])
def test_a_file_of_tls_that_is_missing_is_named(name: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"expected {name} to be a file .*{tmp_path}/none.pem: No such file"):
        topology_of(f"{kind}?{name}={tmp_path}/none.pem")


def test_a_file_of_tls_that_holds_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rubbish.pem").write_text("rubbish")
    with pytest.raises(ValueError, match="expected options of the URL"):
        topology_of(f"rediss://one:6379?ssl_certfile={tmp_path}/rubbish.pem")
