"""The settings of a server, each declared once: name, default, help text and type.

The flags of `pushserver serve`, the environment variables, the list in the log at start and `docs/settings.md` are made
from the fields of `Settings`. No other module reads the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from . import logs, values

SECRET = frozenset({"key"})
PREFIX = "PUSHSERVER_"  # of the variables
OTHER_FLAGS = {"drain_window": "--drain"}  # by which a setting is known, too
LEAST_LIFETIME = 5.0  # seconds
OTHER_VARIABLES = ("URL", "TOKEN")  # which commands other than `serve` read
# Kubernetes gives these to the pods beside a Service that is called pushserver; they are nobody's settings.
SERVICE_LINK = re.compile(r"PUSHSERVER_(SERVICE_(HOST|PORT\w*)|PORT_[0-9]+_(TCP|UDP|SCTP)\w*)|(tcp|udp|sctp)://\S*")


class Parsed(click.ParamType[str]):
    """Parsed is the click type of a text that a function of `values` makes normal or refuses.

    A blank text stays empty, unless it is `required`.
    """

    def __init__(self, parse: Callable[[str], str], *, required: bool = False) -> None:
        self.name = "text"
        self._parse = parse
        self._required = required

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._parse(value) if self._required or value.strip() else ""
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class Seconds(click.FloatRange):
    """Seconds is the click type of a time; unlike click's own it takes no NaN, which is in no range and in all."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"expected a number, got {value}.", param, ctx)
        return float(seconds)


class Lifetime(Seconds):
    """Lifetime is the click type of a time that is 0 for none, or not so short that readers would come in a loop."""

    def __init__(self) -> None:
        super().__init__(0, 604_800)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if 0 < seconds < LEAST_LIFETIME:
            self.fail(f"expected 0, or {LEAST_LIFETIME:g} or more, got {value}.", param, ctx)
        return seconds


class Option(click.Option):
    """Option is click's, with variables as files and process managers leave them: blank is unset, without line ends."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        names = [self.envvar] if isinstance(self.envvar, str) else list(self.envvar or ())
        values = [os.environ.get(name, "").strip("\r\n") for name in names]
        return next((value for value in values if value.strip() and not SERVICE_LINK.fullmatch(value)), None)


def knob(default: Any, text: str, kind: click.ParamType[Any] | type, *also: str) -> Any:
    """Declare one setting: default, help text, click type, and other environment variables that set it, too."""
    return dataclasses.field(default=default, metadata={"help": text, "kind": kind, "also": also})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings holds the value of every setting of a server. Times are in seconds, sizes in bytes."""

    host: str = knob(
        "127.0.0.1", "Address to listen on, or unix:/PATH for a unix socket.", Parsed(values.listen_host, required=True)
    )
    port: int = knob(8000, "TCP port to listen on; 0 takes any free port.", click.IntRange(0, 65535), "PORT")
    workers: int = knob(
        1, "Number of worker processes, which share the port.", click.IntRange(1, 64), "WEB_CONCURRENCY"
    )
    data: str = knob(
        "data", "Folder for the embedded store and the local publish key.", Parsed(values.some_text, required=True)
    )
    redis: str = knob(
        "",
        "URL of a Redis or Valkey: redis://, redis+sentinel:// or redis+cluster://; empty starts an embedded Valkey.",
        Parsed(values.store_url),
        "REDIS_URL",
    )
    redis_file: str = knob(
        "", "File with the URL of `--redis`; other users can read a URL in the command line, not in a file.", str
    )
    replicas: int = knob(
        0,
        "Number of replicas that must acknowledge an event before the answer says `replica`; 0 waits for none.",
        click.IntRange(0, 16),
    )
    key: str = knob(
        "",
        "Publish key with all rights, at least 16 visible ASCII characters; empty creates one in DATA/publish.key, "
        "or with --redis accepts only keys made by `pushserver keys create`, of which there must be one.",
        Parsed(values.publish_key),
    )
    key_file: str = knob(
        "", "File with the key of `--key`; other users can read a key in the command line, not in a file.", str
    )
    origins: str = knob(
        "",
        "Origins whose web pages may read streams, comma separated, besides the server's own; * allows all.",
        Parsed(values.origins),
    )
    public_url: str = knob(
        "",
        "Address at which people reach the server, such as https://live.news.example or https://news.example/live, for "
        "canonical links and feeds; empty leaves these relative.",
        Parsed(values.public_url),
    )
    site_name: str = knob(
        "", "Name of the publisher in pages, feeds and structured data; empty uses the host of the server.", str
    )
    site_logo: str = knob(
        "", "Address of the publisher's logo, for feeds and structured data.", Parsed(values.web_address)
    )
    site_handle: str = knob(
        "", "Handle of the publisher on social networks, such as @courier, for cards of links.", Parsed(values.handle)
    )
    private: str = knob(
        "",
        "Name patterns of private streams, comma separated, such as desk-*; readers of these need a token.",
        str,
    )
    token_keys: str = knob(
        "", "File with the keys that verify tokens: a JWKS, PEM public keys, or a secret of 32 bytes or more.", str
    )
    token_algorithms: str = knob(
        "EdDSA,ES256,RS256",
        "Signature algorithms that tokens may use, comma separated; HS256 (shared secret) not with others.",
        str,
    )
    token_audience: str = knob("pushserver", "Audience (claim `aud`) that a token must name.", str)
    forwarded: str = knob(
        "127.0.0.1",
        "Addresses of proxies, comma separated, whose X-Forwarded headers are trusted.",
        Parsed(values.proxies),
        "FORWARDED_ALLOW_IPS",
    )
    partitions: int = knob(
        16,
        "Number of partitions, over which streams are spread by their names. A cluster keeps each on one primary (by a "
        "Redis hash tag), so more primaries than partitions are of no use. A worker has one connection to the store "
        "for each partition of which a stream is read. The number cannot be changed once a store has data.",
        click.IntRange(1, 64),
    )
    body_limit: int = knob(
        65_536, "Maximum size of a request body, or of one line of a batch, in bytes.", click.IntRange(1_024, 1_048_576)
    )
    entry_limit: int = knob(
        10_000,
        "Maximum number of entries in a stream, withdrawn ones included; a new one beyond it is refused with 409.",
        click.IntRange(1, 100_000),
    )
    page_entries: int = knob(100, "Number of newest entries on a page and in a snapshot.", click.IntRange(1, 500))
    log_events: int = knob(
        10_000, "Minimum number of events that the log of a stream keeps.", click.IntRange(100, 1_000_000)
    )
    idempotency: int = knob(86_400, "Seconds for which an idempotency key is remembered.", click.IntRange(1, 604_800))
    gone: int = knob(
        2_592_000,
        "Seconds for which the name of a deleted stream is refused, and answered with 410.",
        click.IntRange(60, 315_360_000),
    )
    expire_ended: int = knob(
        0,
        "Seconds after its last change after which a stream that has ended is deleted; 0: never.",
        click.IntRange(0, 315_360_000),
    )
    heal: bool = knob(True, "Publish events again that the store lost and a worker still has in memory.", click.BOOL)
    ring_events: int = knob(
        1_000,
        "Number of events per stream that a worker keeps in memory; up to twice as many during a burst.",
        click.IntRange(1, 100_000),
    )
    ring_bytes: int = knob(
        8_388_608,
        "Maximum bytes per stream that a worker keeps in memory for readers; up to twice as many during a burst.",
        click.IntRange(1, 2**30),
    )
    rings_bytes: int = knob(
        268_435_456,
        "Maximum bytes that a worker keeps in memory of all streams; the stream read least recently gives up its "
        "oldest events first, and keeps an equal share.",
        click.IntRange(1_048_576),
    )
    page_bytes: int = knob(
        67_108_864,
        "Maximum bytes of finished pages and feeds that a worker keeps; what was read least recently is dropped first.",
        click.IntRange(1_048_576, 2**36),
    )
    stale_pages: float = knob(
        300.0,
        "Seconds for which a page is served as it was while the store is away, from the last instant at which the "
        "worker knew the page to be current.",
        click.FloatRange(0, 86_400),
    )
    cache: int = knob(
        1,
        "Seconds for which shared caches may serve pages, entries and feeds without asking; 0: they ask each time.",
        click.IntRange(0, 60),
    )
    purge: str = knob(
        "",
        "URLs that a withdrawal calls with the method PURGE, space separated, such as http://127.0.0.1:6081/{path}; "
        "{path} is each address of the stream, {stream} its name.",
        Parsed(values.purge_urls),
    )
    replay_events: int = knob(
        1_000,
        "Maximum number of missed events that are sent to a reader; a reader that missed more gets a snapshot.",
        click.IntRange(1, 10_000),
    )
    replay_bytes: int = knob(
        2_097_152,
        "Maximum bytes of missed events that a reader is sent; one that missed more gets a snapshot.",
        click.IntRange(1, 2**30),
    )
    readers: int = knob(
        20_000, "Maximum number of readers per worker; another one is refused with 503.", click.IntRange(1, 1_000_000)
    )
    admit: int = knob(
        2_000,
        "Maximum number of new readers per second and worker; others get 503 with Retry-After.",
        click.IntRange(1, 1_000_000),
    )
    address_connections: int = knob(
        0,
        "Maximum number of connections at a time from one address (IPv6: a /64) to a worker; 0 and loopback: no limit.",
        click.IntRange(0, 1_000_000),
    )
    address_handshakes: int = knob(
        0,
        "Maximum number of new readers per second from one address to a worker, in a burst twice that; 0 and loopback: "
        "no limit.",
        click.IntRange(0, 1_000_000),
    )
    address_requests: int = knob(
        0,
        "Maximum number of other requests per second from one address to a worker, in a burst twice that; 0 and "
        "loopback: no limit.",
        click.IntRange(0, 1_000_000),
    )
    deflate: bool = knob(
        True, "Compress WebSocket messages for readers that offer permessage-deflate, once for all of them.", bool
    )
    unread_bytes: int = knob(
        67_108_864,
        "Maximum bytes of HTTP answers that a worker keeps for clients that do not read; beyond it the slowest is cut.",
        click.IntRange(1_048_576),
    )
    heartbeat: float = knob(15.0, "Seconds between two heartbeats (`head` frames).", Seconds(0.05, 300))
    show_readers: bool = knob(
        False, "Show on pages, and in `head` frames, how many readers a stream has on all workers.", click.BOOL
    )
    drain_delay: float = knob(
        5.0,
        "Seconds for which a stopping server is not ready and still accepts, until the balancer has noticed: set two "
        "intervals of its health check and a second (5 for a check every 2 s), or 0 without a balancer.",
        Seconds(0, 300),
    )
    drain_window: float = knob(
        5.0,
        "Seconds over which a stopping worker disconnects its readers, who then reconnect.",
        Seconds(0, 300),
        "PUSHSERVER_DRAIN",
    )
    lifetime: float = knob(
        0.0, "Seconds, give or take a fifth, after which a reader is told to reconnect; 0: never.", Lifetime()
    )
    hung: int = knob(
        6,
        "Seconds without a sign of life after which a worker is killed and replaced; 0: never.",
        click.IntRange(0, 3_600),
    )
    slow_store: int = knob(
        2_000,
        "Milliseconds that a check of the store may take before the worker is not ready (/readyz); 0: any time.",
        click.IntRange(0, 5_000),
    )
    metrics_host: str = knob(
        "127.0.0.1",
        "Address to serve metrics and status on, which should not be reachable from outside.",
        Parsed(values.tcp_host, required=True),
    )
    metrics_port: int = knob(
        -1,
        "TCP port to serve metrics and status on, apart from readers; 0 takes any free port, -1 serves none.",
        click.IntRange(-1, 65_535),
    )
    log_format: str = knob(
        "auto",
        "Format of the log: human, json, or auto, which is human on a terminal and json elsewhere.",
        click.Choice(["auto", "human", "json"], case_sensitive=False),
    )
    access_log: bool = knob(False, "Log each request: method, path, status and milliseconds.", click.BOOL)
    log_level: str = knob(
        "info",
        "Lowest level of messages in the log.",
        click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    )

    @property
    def patience(self) -> float:
        """Seconds after which a reader that accepts no data is disconnected: two heartbeats, at most 30."""
        return min(2 * self.heartbeat, 30.0)


KNOBS = dataclasses.fields(Settings)


def variables(name: str) -> list[str]:
    """The environment variables of a setting; the first one that is set counts."""
    (field,) = (field for field in KNOBS if field.name == name)
    return [f"PUSHSERVER_{name.upper()}", *field.metadata["also"]]


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that begins like a setting and is none, with the nearest name."""
    every = [name for field in KNOBS for name in variables(field.name) if name.startswith(PREFIX)]
    known = [name.removeprefix(PREFIX) for name in every] + [*OTHER_VARIABLES]
    sentences = []
    for name in sorted(environ):
        own = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and own not in known and not SERVICE_LINK.fullmatch(name):
            nearest = difflib.get_close_matches(own, known, 1)
            hint = f"; the nearest is {PREFIX}{nearest[0]}" if nearest else ""
            sentences.append(f"{logs.one_line(name, logs.TEXT_LIMIT)} is no setting, and has no effect{hint}")
    return sentences


def option(name: str) -> click.Option:
    """The command-line option of a setting; it reads the environment variables, too."""
    return Option(flags(name), **option_of(name))


def exposed_secrets(ctx: click.Context) -> list[str]:
    """The names of settings with a secret in the command line, where every user of the machine can read it."""
    secrets = [*SECRET, "redis"]
    from_flags = [name for name in secrets if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    values = {name: str(ctx.params[name]) for name in from_flags}
    return [name for name, text in values.items() if name in SECRET or logs.hide_secrets(text) != text]


def flags(name: str) -> list[str]:
    """The flags of a setting, its own first."""
    return [f"--{name.replace('_', '-')}", *([OTHER_FLAGS[name]] if name in OTHER_FLAGS else [])]


def option_of(name: str) -> dict[str, Any]:
    """The arguments of `click.option` for a setting, for commands other than `serve`."""
    (field,) = (field for field in KNOBS if field.name == name)
    return {
        "type": field.metadata["kind"],
        "default": field.default,
        "envvar": variables(name),
        "show_default": name not in SECRET,
        "show_envvar": True,
        "help": field.metadata["help"],
        # A switch may stand alone: `--access-log` is `--access-log true`.
        **({"is_flag": False, "flag_value": True} if isinstance(field.default, bool) else {}),
    }


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, which the supervisor passes to a worker process."""
    return {f"PUSHSERVER_{field.name.upper()}": str(getattr(settings, field.name)) for field in KNOBS}


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker: the server's own, with these settings.

    Other variables that set one are left out: uvicorn reads WEB_CONCURRENCY by itself, and fails on one that is empty.
    """
    others = {name for field in KNOBS for name in field.metadata["also"]}
    return {**{name: value for name, value in os.environ.items() if name not in others}, **environment(settings)}


def shown(settings: Settings) -> logs.Own:
    """One `name=value` per setting. Secrets are hidden; a star marks a value that is not the default."""
    words = []
    for field in KNOBS:
        value = getattr(settings, field.name)
        mark = "" if value == field.default else "*"
        text = "(set)" if value and field.name in SECRET else repr(_without_secrets(field.name, value))
        words.append(f"{field.name}={text}{mark}")
    return logs.Own(" ".join(words))


def _without_secrets(name: str, value: Any) -> Any:
    return logs.hide_secrets(value) if name == "redis" else value


def markdown() -> str:
    """The text of `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "For whoever runs the server. Each setting is a flag of `pushserver serve` and an environment variable; if",
        "both are set, the flag counts. A flag whose default is `True` or `False` may stand alone: `--access-log` is",
        "`--access-log true`. The server logs its settings when it starts.",
        "",
        "`make docs` writes this page from `pushserver/settings.py`.",
        "",
        "| flag | environment variable | default | what it sets |",
        "| --- | --- | --- | --- |",
    ]
    for field in KNOBS:
        names = ", ".join(f"`{name}`" for name in variables(field.name))
        default = f"`{field.default}`" if field.default != "" else "(empty)"
        spelled = ", ".join(f"`{flag}`" for flag in flags(field.name))
        lines.append(f"| {spelled} | {names} | {default} | {field.metadata['help'].replace('|', ' ')} |")
    return "\n".join(lines) + "\n"
