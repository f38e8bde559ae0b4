"""Judgements: what an answer through the public address says about the proxies on its way. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import findings
from ..findings import Finding
from .remedies import remedy

SKEW = 2.0  # seconds between two clocks, from which on they are called different
NO_KEY = "the key did not arrive, or is not one of this server's"


def judge_echo(echo: Mapping[str, Any], *, scheme: str, netloc: str, port: int, proxy: str) -> list[Finding]:
    """Compare what the server believes of a request with how it was sent, from this port of this machine."""
    return [
        _host(echo, scheme, netloc, proxy),
        _scheme(echo, scheme, proxy),
        _address(echo, proxy, is_direct=is_direct(echo, port)),
    ]


def is_direct(echo: Mapping[str, Any], port: int) -> bool:
    """Whether no proxy is on the way: the server sees the very port from which the request was sent."""
    return not echo["headers"].keys() & {"x-forwarded-for", "x-forwarded-proto"} and echo["port"] == port != 0


def _host(echo: Mapping[str, Any], scheme: str, netloc: str, proxy: str) -> Finding:
    if _with_port(echo["host"], scheme) == _with_port(netloc, scheme):
        return findings.ok("host", f"the server gets {netloc}")
    says = f"the server gets {echo['host'] or 'none'}, not {netloc}: it refuses the WebSockets of its own pages"
    return findings.error("host", says, remedy("host", proxy))


def _with_port(netloc: str, scheme: str) -> str:
    _, colon, port = netloc.lower().rpartition(":")
    has_port = bool(colon) and port.isdecimal()
    return netloc.lower() if has_port else f"{netloc.lower()}:{443 if scheme == 'https' else 80}"


def _scheme(echo: Mapping[str, Any], scheme: str, proxy: str) -> Finding:
    if echo["scheme"] == scheme:
        return findings.ok("scheme", f"the server believes {scheme}")
    says = f"the server believes {echo['scheme']}, not {scheme}: it refuses the WebSockets of its own pages"
    if echo["headers"].get("x-forwarded-proto") == scheme:
        return findings.error("scheme", says, _believe(echo))
    return findings.error("scheme", says, remedy("scheme", proxy))


def _address(echo: Mapping[str, Any], proxy: str, *, is_direct: bool) -> Finding:
    if is_direct:
        return findings.ok("address", f"the server sees {echo['address']}, with no proxy on the way")
    forwarded = echo["headers"].get("x-forwarded-for", "")
    if not forwarded:
        says = f"the server sees every reader as {echo['address']}, which is its proxy"
        return findings.warning("address", says, remedy("address", proxy))
    if echo["address"] not in [part.strip() for part in forwarded.split(",")]:
        says = f"a proxy says that the client is {forwarded}, and the server does not believe {echo['address']}"
        return findings.warning("address", says, _believe(echo))
    return findings.ok("address", f"the server believes {echo['address']}")


def _believe(echo: Mapping[str, Any]) -> str:
    return f"pushserver serve --forwarded {echo['address']}  # the proxy, or its network"


def judge_caching(first: Mapping[str, Any], second: Mapping[str, Any], proxy: str) -> Finding:
    """Compare the answers to two equal requests, each of which says `private, no-store`."""
    if first["id"] != second["id"]:
        return findings.ok("cache", "answers that say no-store are not kept")
    says = "a cache gives one answer twice that says `private, no-store`: it gives one reader's answer to others"
    return findings.error("cache", says, remedy("cache", proxy))


def judge_age(path: str, headers: Mapping[str, str], proxy: str) -> list[Finding]:
    """Look whether an answer that says `no-store` comes from a cache that shows itself."""
    is_hit = "hit" in headers.get("x-cache", "").lower() or headers.get("age", "0") not in ("", "0")
    if not is_hit:
        return []
    says = f"{path} comes from a cache, although it says no-store: a check sees how a server was, not how it is"
    return [findings.error("cache", says, remedy("cache", proxy))]


def judge_clock(server: float, sent: float, received: float) -> Finding:
    """Compare a server's clock with this machine's: an answer was made between its request and its arrival."""
    ahead = server - received if server > received else min(server - sent, 0.0)
    if abs(ahead) <= SKEW:
        return findings.ok("clock", f"within {SKEW:g} s of this machine's")
    says = f"the server's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return findings.warning("clock", says, "synchronise both, such as by chrony: tokens and entries have times")


def judge_coding(headers: Mapping[str, str], proxy: str) -> Finding:
    """Look whether a page load that may be compressed is."""
    coding = headers.get("content-encoding", "")
    if coding:
        return findings.ok("compression", f"page loads are compressed ({coding})")
    return findings.warning("compression", "page loads are not compressed", remedy("coding", proxy))


def judge_cookies(headers: Sequence[Mapping[str, str]], proxy: str) -> list[Finding]:
    """Name a cookie of a proxy: the server sets none."""
    cookies = sorted({each["set-cookie"].partition("=")[0] for each in headers if each.get("set-cookie")})
    if not cookies:
        return []
    says = (
        f"a proxy sets the cookie {', '.join(cookies)}; if it binds readers to a server, a restart finds them all there"
    )
    return [findings.warning("sticky", says, remedy("sticky", proxy))]


def judge_spread(workers: Sequence[Mapping[str, Any]], readers: int, proxy: str, *, is_direct: bool) -> Finding:
    """Look how the readers of this machine are spread over the workers that a receipt names."""
    here = [worker for worker in workers if worker["sent"]]
    if is_direct or len(workers) < 2:
        reason = "no proxy is on the way" if is_direct else "the store has one worker"
        return findings.ok("sticky", f"not tried: {reason}")
    if len(here) > 1:
        return findings.ok("sticky", f"{readers} readers are on {len(here)} of {len(workers)} workers")
    says = (
        f"all {readers} readers are on one of {len(workers)} workers of the store: a proxy binds a client to a server"
    )
    return findings.warning("sticky", f"{says}, or knows no other", remedy("sticky", proxy))
