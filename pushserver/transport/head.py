"""The head of a request is read here: its address, its version, its Host, and whether it may announce a body."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import httptools

from ..errors import Fault, Malformed, Refused, shorten

HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(:[0-9]*)?")  # RFC 3986, 3.2.2 and 3.2.3
ENCODED_SLASH = re.compile("%2[Ff]")
CLOSE = {"Connection": "close"}

Fields = list[tuple[bytes, bytes]]


class BadVersion(Refused):
    """The request is of a version of HTTP that the server does not speak (RFC 9110, 15.6.6)."""

    status, title, kind = 505, "HTTP version not supported", "http-version"


def fault_of(scope: Any, *, is_upgrade: bool) -> Refused | None:
    """The refusal of a head, None where it is valid. `scope` has its method, version and fields."""
    hosts, has_body = [], False
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name in (b"content-length", b"transfer-encoding"):
            has_body = True
    refused = _fault_of_host(scope["http_version"], hosts)
    return refused or (_fault_of_body(scope, is_upgrade=is_upgrade) if has_body else None)


def locate(scope: Any, target: bytes, root_path: str) -> None:
    """Put the address that a request is for into its scope. Raises HttpParserError, UnicodeError."""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    scope["path"] = root_path + (_decoded(path) if "%" in path else path)
    scope["raw_path"] = root_path.encode("ascii") + url.path
    scope["query_string"] = url.query or b""


def _decoded(path: str) -> str:
    """A path without its escapes, but for slashes: `/streams/a%2Fentries%2Fb` is a stream with a bad name, no entry."""
    return "%2F".join(map(unquote, ENCODED_SLASH.split(path)))


def late_upgrade() -> Refused:
    """The refusal of a WebSocket on a connection whose answers the client has not read: they would mix with it."""
    fault = Fault("Upgrade", "a request after the answer to the one before it", "one that did not wait")
    return Malformed("A WebSocket cannot begin while an answer is due.", fault, headers=dict(CLOSE))


def has_body(fields: Fields) -> bool:
    """Whether a head declares a body that is not empty."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t")) for name, value in fields
    )


def _fault_of_host(version: str, hosts: list[bytes]) -> Refused | None:
    """The refusal of a version other than 1.0 and 1.1, or of a Host that RFC 9112, 3.2, does not allow."""
    if version not in ("1.0", "1.1"):
        return BadVersion("The server speaks HTTP/1.1.", Fault("version", "1.1", version), headers=dict(CLOSE))
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return Malformed("A request has one Host.", Fault("Host", "one", str(len(hosts))), headers=dict(CLOSE))
    if hosts and not HOST.fullmatch(hosts[0].strip()):
        got = shorten(hosts[0].decode("latin-1"))
        fault = Fault("Host", "a name or an address, and a port", got)
        return Malformed("The Host is not valid.", fault, headers=dict(CLOSE))
    return None


def _fault_of_body(scope: Any, *, is_upgrade: bool) -> Refused | None:
    """The refusal of a body where none has a meaning: of GET and HEAD (RFC 9110, 9.3.1), and of an upgrade."""
    if not has_body(scope["headers"]) or not (is_upgrade or scope["method"] in ("GET", "HEAD")):
        return None
    name = "request to upgrade" if is_upgrade else scope["method"]
    fault = Fault("body", "none", "a Content-Length or Transfer-Encoding")
    return Malformed(f"A {name} has no body here.", fault, headers=dict(CLOSE))
