"""Addresses are limited one by one: IPv4, IPv6 by /64; loopback and believed proxies are not limited."""

from __future__ import annotations

import pytest

from pushserver.access import addresses
from pushserver.access.addresses import Addresses, AddressLimits, Proxies
from pushserver.errors import TooMany

V4, OTHER_V4 = "203.0.113.7", "203.0.113.8"
V6, SAME_64, OTHER_64 = "2001:db8:1:2::3", "2001:db8:1:2:ffff::9", "2001:db8:1:3::3"
# one address, and another text of the same one
SAME = [
    (V4, V4),
    (V6, SAME_64),
    (f"::ffff:{V4}", V4),
    ("::FFFF:cb00:7107", V4),
    ("nonsense", "_hidden"),
    ("", "x" * 99),
]
OTHERS = [(V4, OTHER_V4), (V6, OTHER_64), (f"::ffff:{V4}", f"::ffff:{OTHER_V4}"), (V4, V6), (V4, "unknown")]
# an exempt peer, and the proxies that are believed
EXEMPT = [
    ("127.0.0.1", ""),
    ("127.8.8.8", ""),
    ("::1", ""),
    ("::ffff:127.0.0.1", ""),
    (None, ""),
    ("10.0.0.2", "10.0.0.2"),
    ("::ffff:10.0.0.2", "10.0.0.2"),
    ("10.0.0.2", "192.0.2.1, 10.0.0.0/8"),
    ("fd00::2", "fd00::/8"),
    ("fd00:0::0:2", "fd00::2"),
    (V4, "*"),
]
LIMITED = [("10.0.0.2", "10.0.0.3"), ("10.0.0.2", "proxy.example"), ("fd00::2", "10.0.0.0/8"), (V4, "*,10.0.0.2")]


def limited(connections: int = 0, handshakes: int = 0, requests: int = 0, proxies: str = "127.0.0.1") -> Addresses:
    return Addresses(AddressLimits(connections, handshakes, requests), Proxies(proxies))


@pytest.mark.parametrize(("host", "same"), SAME)
def test_one_address_is_limited_whatever_its_text(host: str, same: str) -> None:
    limit = limited(connections=2)
    assert limit.connect(host) and limit.connect(same)
    with pytest.raises(TooMany):
        limit.connect(host)


@pytest.mark.parametrize(("host", "other"), OTHERS)
def test_another_address_is_not_limited_by_it(host: str, other: str) -> None:
    limit = limited(connections=1)
    assert limit.connect(host)
    assert limit.connect(other)


@pytest.mark.parametrize(("host", "proxies"), EXEMPT)
def test_loopback_and_believed_proxies_are_exempt(host: str | None, proxies: str) -> None:
    limit = limited(1, 1, 1, proxies)
    for _ in range(9):
        assert limit.connect(host) is None
        limit.take_handshake(host, 0.0)
        limit.take_request(host, 0.0)


@pytest.mark.parametrize(("host", "proxies"), LIMITED)
def test_a_proxy_that_is_not_believed_is_limited(host: str, proxies: str) -> None:
    limit = limited(connections=1, proxies=proxies)
    assert limit.connect(host)
    with pytest.raises(TooMany):
        limit.connect(host)


def test_a_peer_is_believed_that_the_setting_names() -> None:
    believed = limited(proxies="192.0.2.1, 10.0.0.0/8")
    assert all(map(believed.believes, ["192.0.2.1", "10.9.9.9", "::ffff:10.9.9.9"]))
    assert not any(map(believed.believes, ["127.0.0.1", "192.0.2.2", "fd00::2", "unknown", ""]))


def test_without_limits_nothing_is_counted() -> None:
    limit = limited()
    for _ in range(9):
        assert limit.connect(V4) is None
        limit.take_handshake(V4, 0.0)
        limit.take_request(V4, 0.0)


def test_a_connection_that_left_leaves_its_place_once() -> None:
    limit = limited(connections=2)
    first, second = limit.connect(V4), limit.connect(V4)
    assert first and second
    first.leave()
    first.leave()
    assert limit.connect(V4)
    with pytest.raises(TooMany):
        limit.connect(V4)
    assert second


def test_handshakes_and_requests_have_rates_of_their_own() -> None:
    limit = limited(handshakes=1, requests=2)
    for _ in range(2):  # a burst of two seconds
        limit.take_handshake(V4, 10.0)
    for _ in range(4):
        limit.take_request(V4, 10.0)
    with pytest.raises(TooMany, match="handshakes") as refused:
        limit.take_handshake(V4, 10.0)
    assert refused.value.headers["Retry-After"] == "1"
    assert refused.value.faults[0].expected == "at most 1 handshakes a second"
    with pytest.raises(TooMany, match="requests"):
        limit.take_request(V4, 10.0)
    limit.take_handshake(OTHER_V4, 10.0)
    limit.take_handshake(V4, 11.0)


def test_memory_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ADDRESSES", 2)
    limit = limited(requests=1)
    for host in (V4, V4, OTHER_V4, V4):  # V4 was used last, and has no place left
        try:
            limit.take_request(host, 0.0)
        except TooMany:
            assert host == V4
    limit.take_request(V6, 0.0)  # OTHER_V4 is forgotten for it
    with pytest.raises(TooMany):
        limit.take_request(V4, 0.0)
    for _ in range(2):
        limit.take_request(OTHER_V4, 0.0)
