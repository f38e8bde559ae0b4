"""The address of a store: the URL of the setting `redis`, read and checked before anything connects.

    redis://user:password@host:6379/0                     one server; rediss:// with TLS, unix:///path
    redis+sentinel://user:password@host:26379,host:26379/name/0?sentinel_user=…&sentinel_password=…
                                                          the primary that Sentinels watch under a name
    redis+cluster://user:password@host:6379,host:6379     a cluster, by some of its nodes

Users, passwords, paths and values of options are percent-encoded (RFC 3986, section 2.1). No message repeats one of
them, but for the paths of files: a password that was not encoded may stand anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

SCHEMES = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
ENCODED = "in a user or password, write / as %2F, ? as %3F, # as %23 and @ as %40"
OPTIONS = ("client_name", "health_check_interval", "socket_keepalive")
SINGLE_OPTIONS = ("db", "username", "password")
SENTINEL_OPTIONS = ("sentinel_user", "sentinel_password")
TLS_FILES = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")
TLS_OPTIONS = (
    *TLS_FILES,
    *("ssl_ca_path", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version"),
)
HOST = r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)"


class Address(NamedTuple):
    """An Address is what the URL of a store says. `kind` is `single`, `sentinel` or `cluster`."""

    kind: str
    scheme: str  # of one server: redis, rediss or unix
    hosts: tuple[str, ...]  # host:port; of one server, also without a port
    path: str  # the name of the primary to Sentinels, the path of a unix socket, else empty
    database: str
    login: str  # encoded, with the @ behind it
    sentinel_login: str
    options: str  # encoded, with the ? before them

    def server(self, host: str) -> str:
        """The URL of one server of the store, by its host:port."""
        path = self.path if self.scheme == "unix" else f"/{self.database}" if self.database else ""
        return f"{self.scheme}://{self.login}{host}{path}{self.options}"

    def sentinel(self, host: str) -> str:
        """The URL of one Sentinel, by its host:port."""
        return f"{self.scheme}://{self.sentinel_login}{host}{self.options}"


def read_address(url: str) -> Address:
    """The address that a URL gives. Raises ValueError, which says what was expected."""
    scheme, _, rest = url.partition("://")
    match = re.fullmatch(r"(rediss?)(?:\+(sentinel|cluster))?|unix", scheme)
    if match is None:
        raise ValueError(f"expected a URL whose scheme is {SCHEMES}")
    if "#" in rest:
        raise ValueError(f"expected no # in the URL: {ENCODED}")
    kind = match[2] or "single"
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    login, _, hosts = authority.rpartition("@")
    names = _hosts(hosts, kind) if scheme != "unix" else (hosts,)
    options = _options(query, kind, match[1] or scheme)
    return Address(
        kind,
        match[1] or scheme,
        names,
        *(_path(kind, path) if scheme != "unix" else (slash + path, "")),
        _login(*(unquote(word) for word in login.partition(":")[::2])),
        _login(options.pop("sentinel_user", ""), options.pop("sentinel_password", "")),
        "?" * bool(options) + "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items()),
    )


def _hosts(hosts: str, kind: str) -> tuple[str, ...]:
    """The servers that a URL names. Raises ValueError."""
    if kind == "single":
        match = re.fullmatch(rf"(?:{HOST})?(?::([0-9]{{1,5}}))?", hosts)
        if match is None or int(match[2] or 0) > 65_535:
            raise ValueError(f"expected host:port after the scheme and the user; {ENCODED}")
        return (hosts,)
    names = tuple(hosts.split(","))
    for name in names:
        match = re.fullmatch(f"{HOST}:([0-9]{{1,5}})", name)
        if match is None or int(match[2]) > 65_535:
            raise ValueError(f"expected host:port,host:port after the scheme and the user; {ENCODED}")
    return names


def _path(kind: str, path: str) -> tuple[str, str]:
    """The name of the primary, and the number of the database, as text. Raises ValueError."""
    name, database = "", path.strip("/")
    if kind == "sentinel":
        name, _, database = database.partition("/")
        database = database or "0"
        if not name:
            raise ValueError("expected the name of the primary after the Sentinels, such as /name, got none")
    if not re.fullmatch("[0-9]{0,5}", database):
        raise ValueError("expected the number of a database at the end of the path, such as /0")
    if kind == "cluster":
        if database not in ("", "0"):
            raise ValueError(f"expected no database, since a cluster has only database 0, got {database}")
        database = ""
    return unquote(name), database


def _options(query: str, kind: str, scheme: str) -> dict[str, str]:
    """The options behind the question mark, decoded. Raises ValueError for one that this server does not know."""
    known = [*OPTIONS, *{"single": SINGLE_OPTIONS, "sentinel": SENTINEL_OPTIONS}.get(kind, ())]
    known += TLS_OPTIONS if scheme == "rediss" else ()
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in known or name in options:
            raise ValueError(_unknown(name, known, options))
        options[name] = unquote(value)
    _check_files(options)
    return options


def _unknown(name: str, known: Iterable[str], options: Iterable[str]) -> str:
    if name in options:
        return f"expected the option {name} once in the URL"
    if name in TLS_OPTIONS:
        return f"expected a scheme with TLS, such as rediss://, for the option {name}"
    shown = f", got {name}" if re.fullmatch("[a-z_]{1,40}", name) else f"; {ENCODED}"  # else it may be a password
    return f"expected options of the URL to be among {', '.join(sorted(known))}{shown}"


def _check_files(options: dict[str, str]) -> None:
    """Raises ValueError for a file of TLS that cannot be read: OpenSSL's own error does not name it."""
    for name in TLS_FILES:
        if name in options:
            try:
                open(options[name], "rb").close()
            except OSError as error:
                raise ValueError(
                    f"expected {name} to be a file that can be read, got {options[name]}: {error.strerror}"
                ) from None


def _login(user: str, password: str) -> str:
    if not user and not password:
        return ""
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else f"{quote(user, safe='')}@"
