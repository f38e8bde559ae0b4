"""Values are the texts of settings as the server uses them: each function returns the normal form, or refuses a text.

A text that is refused raises ValueError with what was expected and what came; a secret is never repeated.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import idna

from .errors import shorten
from .logs import hide_secrets

KEY_LEAST, KEY_MOST = 16, 512  # characters of a publish key
ADDRESS_LIMIT = 2_000  # characters of a web address
NEW_KEY = "openssl rand -hex 24"  # the command that makes one
DEFAULT_PORTS = {"http": 80, "https": 443}
STORES = "redis://, rediss://, redis+sentinel://, redis+cluster:// or unix://"


def publish_key(text: str) -> str:
    """A publish key without white space around it. Raises ValueError where it is too short, or fits into no header."""
    key = text.strip()
    if not re.fullmatch("[\x21-\x7e]*", key):
        got = "others"
    elif not KEY_LEAST <= len(key) <= KEY_MOST:
        got = str(len(key))
    else:
        return key
    raise ValueError(f"expected {KEY_LEAST} to {KEY_MOST} visible ASCII characters, as `{NEW_KEY}` makes, got {got}")


def some_text(text: str) -> str:
    """A text that is not blank. Raises ValueError."""
    if not text.strip():
        raise ValueError("expected a text, got an empty one")
    return text


UNIX = "unix:"  # before the path of a socket in place of a host
UNIX_BYTES = 107  # of a path, the most that the kernel takes


def listen_host(text: str) -> str:
    """An IP address without brackets, a host name, or `unix:` and an absolute path. Raises ValueError, also for an
    empty text, which would mean all interfaces."""
    name = text.strip()
    if name.startswith(UNIX):
        path = name.removeprefix(UNIX)
        if not path.startswith("/") or "\0" in path or len(path.encode("utf-8", "surrogateescape")) > UNIX_BYTES:
            raise ValueError(f"expected {UNIX} and an absolute path of {UNIX_BYTES} bytes at most, got {shorten(text)}")
        return name
    bare = name[1:-1] if re.fullmatch(r"\[.*\]", name) else name
    if _is_address(bare) or (re.fullmatch(r"[\w.-]{1,253}", name) and not re.fullmatch(r"[0-9.]+", name)):
        return bare
    expected = "expected an IP address or a host name without a port, such as 127.0.0.1, or 0.0.0.0 for all interfaces"
    raise ValueError(f"{expected}, got {shorten(text)}")


def tcp_host(text: str) -> str:
    """An address as `listen_host` takes it, but for a unix socket. Raises ValueError."""
    if text.strip().startswith(UNIX):
        raise ValueError(f"expected an IP address or a host name, got {shorten(text)}")
    return listen_host(text)


def unix_path(host: str) -> str:
    """The path of a host that is a unix socket, else an empty text."""
    return host.removeprefix(UNIX) if host.startswith(UNIX) else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def origins(text: str) -> str:
    """A list of origins, each as browsers send it; `*` is any. Raises ValueError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return ",".join(dict.fromkeys(part if part == "*" else origin(part) for part in parts))


def origin(text: str) -> str:
    """An origin as browsers send it (RFC 6454, 6.2): small letters, an IDN in ASCII, no default port, no slash.

    Raises ValueError for a text that no browser would send for a page of one site.
    """
    match = re.fullmatch(r"(?i:([a-z][a-z0-9+.-]*)://)(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]*]+)(?::([0-9]{1,5}))?/?", text)
    scheme = match[1].lower() if match else ""
    if not match or scheme in ("ws", "wss") or int(match[3] or 1) not in range(1, 65_536):
        raise ValueError(f"expected an origin such as https://news.example, or *, got {shorten(hide_secrets(text))}")
    port = int(match[3] or 0)
    return f"{scheme}://{_ascii_host(match[2])}{f':{port}' if port not in (0, DEFAULT_PORTS.get(scheme)) else ''}"


def public_url(text: str) -> str:
    """The http or https address of a server, with its path but without a slash at the end. Raises ValueError."""
    match = re.fullmatch(r"([^/]*//[^/]*)((?:/[\w.~-]+)*)/?", text.strip(), re.ASCII)
    try:
        address = origin(match[1]) if match and not re.search(r"/\.{1,2}(/|$)", match[2]) else ""
    except ValueError:
        address = ""
    if not match or not address.startswith(("http://", "https://")):
        expected = "expected an address such as https://live.news.example or https://news.example/live"
        raise ValueError(f"{expected}, got {shorten(hide_secrets(text))}")
    return f"{address}{match[2]}"


def web_address(text: str) -> str:
    """An absolute http or https address. Raises ValueError."""
    address = text.strip()
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s]*", address) or len(address) > ADDRESS_LIMIT:
        raise ValueError(f"expected an address such as https://news.example/logo.png, got {shorten(address)}")
    return address


def handle(text: str) -> str:
    """A handle on a social network, with its @. Raises ValueError."""
    name = text.strip().removeprefix("@")
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,100}", name):
        raise ValueError(f"expected a handle such as @courier, got {shorten(text)}")
    return f"@{name}"


def _ascii_host(name: str) -> str:
    """A host as it stands in an origin. Raises ValueError."""
    try:
        if name.startswith("["):
            return f"[{ipaddress.IPv6Address(name[1:-1])}]"
        return name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
    except ValueError as error:  # idna's errors are of this kind, too
        raise ValueError(f"expected the name or the address of a host, got {shorten(name)}: {error}") from None


def proxies(text: str) -> str:
    """A list of IP addresses and networks, or `*` for all. Raises ValueError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return "*" if "*" in parts else ",".join(_network(part) for part in parts)


def _network(text: str) -> str:
    """An address, or a network by its first address. Raises ValueError."""
    try:
        return str(ipaddress.ip_network(text, strict=False) if "/" in text else ipaddress.ip_address(text))
    except ValueError:
        got = shorten(text)
        raise ValueError(f"expected IP addresses or networks such as 10.0.0.0/8, or *, got {got}") from None


def stream_patterns(text: str) -> str:
    """A list of patterns of stream names. Raises ValueError for none, and for one that fits no name."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts or [text]:
        if not re.fullmatch(r"[a-z0-9*?\[\]!-]{1,64}", part):
            expected = "expected patterns such as desk-*, of a to z, 0 to 9, -, * and ?"
            raise ValueError(f"{expected}, since names have no others, got {shorten(part)}")
    return ",".join(parts)


def store_url(text: str) -> str:
    """The URL of a store, with a scheme, hosts and ports that can be read. Raises ValueError.

    A password with a raw `/`, `?` or `#` would be cut at it, and the rest of it would stand in errors as a host.
    """
    url = text.strip()
    shown = shorten(hide_secrets(url))
    parts = re.fullmatch(r"(?i:(rediss?(?:\+(?:sentinel|cluster))?|unix)://)([^/?#]*)([^?#]*)(?:\?([^#]*))?", url)
    if not parts and not re.match(r"(?i:(rediss?(\+(sentinel|cluster))?|unix)://)", url):
        raise ValueError(f"expected a URL that begins with {STORES}, got {shown}")
    if not parts or re.search(r"\s", url) or not _is_plain(*parts.groups("")):
        escapes = "/ as %2F, ? as %3F, # as %23, @ as %40, a space as %20"
        raise ValueError(f"expected user name, password and options percent-encoded ({escapes}), got {shown}")
    scheme, authority = parts[1].lower(), parts[2]
    for address in authority.rpartition("@")[2].split(",") if scheme != "unix" else ():
        if not _is_host_and_port(address):
            # Without an @ the text may be a user and a password whose host is missing.
            got = shorten(address) if "@" in authority else shown
            raise ValueError(f"expected host:port, with a port of 1 to 65535, got {got}")
    return url


def _is_plain(scheme: str, authority: str, path: str, query: str) -> bool:
    """Whether no part of a URL is the rest of a password that was cut."""
    names = [pair.partition("=")[0] for pair in query.split("&") if pair]
    is_path_plain = "@" not in path or scheme.lower() == "unix"
    return is_path_plain and all(re.fullmatch(r"\w+", name) for name in names)


def _is_host_and_port(address: str) -> bool:
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]@,]*)(?::([0-9]{1,5}))?", address)
    return bool(match) and int(match[1] or 1) in range(1, 65_536)  # type: ignore[index]


def purge_urls(text: str) -> str:
    """Templates of URLs that purge a cache, separated by spaces. Raises ValueError."""
    for template in text.split():
        if not _is_purge_url(template):
            expected = "expected an http:// or https:// URL with {path} or {stream} in its path, and without a password"
            got = shorten(hide_secrets(template))
            raise ValueError(f"{expected}, such as http://127.0.0.1:6081/{{path}}, got {got}")
    return " ".join(text.split())


def _is_purge_url(template: str) -> bool:
    filled = template.replace("{path}", "path").replace("{stream}", "stream")
    try:
        parts = urlsplit(template)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(is_url) and filled != template and not {*"{}@"} & {*parts.netloc} and not {*"{}"} & {*filled}


def base_url(text: str) -> str:
    """The URL of a server, for its clients, without a slash at its end. Raises ValueError."""
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(f"expected a URL that begins with http:// or https://, got {shorten(hide_secrets(text))}")
    return url
