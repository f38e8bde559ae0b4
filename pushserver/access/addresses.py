"""Addresses: how many connections one client address may have, and how many handshakes and requests a second.

An IPv6 client has a whole /64 (RFC 6177), so that counts as one address. Loopback and the believed proxies are exempt:
all readers behind a proxy share its address. Everything is counted per worker, and the clock is an argument.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, Self

from ..errors import Fault, TooMany
from ..settings import Settings
from .rates import KeyedRates

ADDRESSES = 16_384  # whose rates are remembered; the least recently used one makes room for another
GROUPS = 4_096  # texts of addresses that are remembered with what they count as
NO_ADDRESS = "unknown"  # what every text that is no IP address counts as: a proxy may write anything
CONNECTION_RETRY = 5  # seconds after which an address with too many connections is asked to come back


class AddressLimits(NamedTuple):
    """AddressLimits is the settings of the same names. 0 sets no limit."""

    address_connections: int
    address_handshakes: int  # a second
    address_requests: int  # a second

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(*(getattr(settings, name) for name in cls._fields))


class Proxies:
    """Proxies are the addresses whose `X-Forwarded-For` is believed: IP addresses and networks, or `*` for all.

    uvicorn reads the header by the same setting, which `server/worker` passes on.
    """

    def __init__(self, setting: str) -> None:
        parts = [part.strip() for part in setting.split(",")]
        self._all = setting.strip() == "*"
        self._networks = [network for part in parts if (network := _network(part))]

    def believe(self, address: IPv4Address | IPv6Address) -> bool:
        return self._all or any(address in network for network in self._networks)


class AddressPlace:
    """An AddressPlace is one connection that counts for its address until it leaves."""

    __slots__ = ("_connections", "_group")

    def __init__(self, connections: Counter[str], group: str) -> None:
        self._connections = connections
        self._group: str | None = group
        connections[group] += 1

    def leave(self) -> None:
        """Give the place back; only the first call counts."""
        group, self._group = self._group, None
        if group is None:
            return
        self._connections[group] -= 1
        if not self._connections[group]:
            del self._connections[group]  # else each address that ever came would stay in memory


class Addresses:
    """Addresses counts what each address does, and refuses with TooMany what is beyond its limits."""

    def __init__(self, limits: AddressLimits, proxies: Proxies) -> None:
        self._limits = limits
        self.limit_requests = limits.address_requests > 0
        self._connections: Counter[str] = Counter()
        self._handshakes = KeyedRates(limits.address_handshakes, ADDRESSES)
        self._requests = KeyedRates(limits.address_requests, ADDRESSES)
        self._proxies = proxies
        self._group = lru_cache(maxsize=GROUPS)(self._compute_group)

    def connect(self, host: str | None) -> AddressPlace | None:
        """Count a connection; None where no limit applies. Raises TooMany."""
        most = self._limits.address_connections
        group = self._group(host) if most else None
        if group is None:
            return None
        if self._connections[group] >= most:
            raise _too_many("connections", f"at most {most} connections at a time", CONNECTION_RETRY)
        return AddressPlace(self._connections, group)

    def believes(self, host: str) -> bool:
        """Whether what this peer says of the addresses behind it is believed."""
        address = _address(host)
        return address is not None and self._proxies.believe(address)

    def take_handshake(self, host: str | None, now: float) -> None:
        """Count a request that subscribes to a stream. Raises TooMany."""
        self._take(self._handshakes, "handshakes", self._limits.address_handshakes, host, now)

    def take_request(self, host: str | None, now: float) -> None:
        """Count a request that does not subscribe. Raises TooMany."""
        self._take(self._requests, "requests", self._limits.address_requests, host, now)

    def _take(self, rates: KeyedRates, kind: str, rate: int, host: str | None, now: float) -> None:
        group = self._group(host) if rate else None
        wait = rates.wait(group, now) if group is not None else 0.0
        if wait:
            raise _too_many(kind, f"at most {rate} {kind} a second", math.ceil(wait))

    def _compute_group(self, host: str | None) -> str | None:
        """The text under which an address is counted; None where it is exempt. A unix socket has no address."""
        if host is None:
            return None
        address = _address(host)
        if address is None:
            return NO_ADDRESS
        if address.is_loopback or self._proxies.believe(address):
            return None
        if isinstance(address, IPv6Address):
            return f"{IPv6Address(int(address) >> 64 << 64)}/64"
        return str(address)


def _too_many(kind: str, expected: str, retry_after: int) -> TooMany:
    return TooMany(
        f"Your address has too many {kind}; retry later.",
        Fault("address", expected, "more"),
        headers={"Retry-After": str(retry_after)},
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address; the IPv4 address inside an IPv6 one that maps it (RFC 4291, 2.5.5.2)."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:  # a name: the server compares it with the text of a unix socket's peer
        return None
