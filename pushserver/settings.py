"""Every knob once: name, default, help, unit.

The flags of the command line, the environment variables, the list shown at start and `docs/settings.md` are all
made from the fields of `Settings`. Nothing else reads the environment.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import click

SECRET = frozenset({"key"})


def knob(default: Any, text: str, kind: click.ParamType[Any] | type, *also: str) -> Any:
    """One setting: its default, its help, its click type, and further environment variables that are honoured."""
    return dataclasses.field(default=default, metadata={"help": text, "kind": kind, "also": also})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server was told. Seconds, bytes and counts, unless the name says otherwise."""

    host: str = knob("127.0.0.1", "Address to listen on.", str)
    port: int = knob(8000, "Port to listen on; 0 takes a free one.", click.IntRange(0, 65535), "PORT")
    workers: int = knob(1, "Server processes that share the port.", click.IntRange(1, 64), "WEB_CONCURRENCY")
    data: str = knob("data", "Folder of the embedded store and of the local publish key.", str)
    redis: str = knob(
        "",
        "URL of a Redis or Valkey: redis://, redis+sentinel:// or redis+cluster://; empty starts the embedded one.",
        str,
        "REDIS_URL",
    )
    replicas: int = knob(
        0, "Replicas of the store that must have what is published; 0 waits for none.", click.IntRange(0, 16)
    )
    key: str = knob("", "Publish key with every right; empty makes one in DATA/publish.key.", str)
    origins: str = knob(
        "", "Web origins, comma separated, whose pages may read besides the server's own; * is any.", str
    )
    private: str = knob("", "Patterns of the streams that need a token to read, comma separated, as desk-*.", str)
    token_keys: str = knob(
        "", "File of the keys that tokens are signed with: a JWKS, PEM public keys, or a secret of 32 bytes.", str
    )
    token_algorithms: str = knob(
        "EdDSA,ES256,RS256", "Algorithms of tokens, comma separated; HS256, with a secret, only alone.", str
    )
    token_audience: str = knob("pushserver", "What tokens have to name as their audience.", str)
    forwarded: str = knob(
        "127.0.0.1", "Proxies, comma separated, whose X-Forwarded headers are believed.", str, "FORWARDED_ALLOW_IPS"
    )
    partitions: int = knob(
        16, "Hash tags that the streams are spread over; fixed for the life of a store.", click.IntRange(1, 64)
    )
    body_limit: int = knob(65_536, "Largest body of a publish, in bytes.", click.IntRange(1_024, 1_048_576))
    entry_limit: int = knob(
        10_000, "Most entries a stream holds, withdrawn ones counted; one more is refused.", click.IntRange(1, 100_000)
    )
    page_entries: int = knob(100, "Newest entries on a page and in a snapshot.", click.IntRange(1, 500))
    log_events: int = knob(10_000, "Events that a stream's log keeps, at least.", click.IntRange(100, 1_000_000))
    idempotency: int = knob(86_400, "Seconds that an idempotency key is remembered.", click.IntRange(1, 604_800))
    heal: bool = knob(True, "Publish again what the store lost and a worker still has.", click.BOOL)
    ring_events: int = knob(
        1_000, "Events that a feed keeps in memory; twice as many while they are given out.", click.IntRange(1, 100_000)
    )
    ring_bytes: int = knob(
        4_194_304,
        "Bytes of events that a feed keeps in memory; twice as many while they are given out.",
        click.IntRange(1),
    )
    replay_events: int = knob(
        1_000,
        "Events that are replayed from the log, at most; further back gets a snapshot.",
        click.IntRange(1, 10_000),
    )
    replay_bytes: int = knob(
        1_048_576, "Bytes that are replayed from the log, at most; beyond gets a snapshot.", click.IntRange(1)
    )
    readers: int = knob(20_000, "Readers per worker; one more is told 503.", click.IntRange(1, 1_000_000))
    admit: int = knob(
        2_000,
        "Readers that a worker lets in, a second; others are told 503, and when to come.",
        click.IntRange(1, 1_000_000),
    )
    deflate: bool = knob(True, "Compress WebSocket messages, once for all readers that offer it.", bool)
    heartbeat: float = knob(15.0, "Seconds between two head frames.", click.FloatRange(0.05, 300))
    drain: float = knob(5.0, "Seconds that a stopping worker waits for its readers to leave.", click.FloatRange(0, 300))
    log_level: str = knob(
        "info", "Least level that is logged.", click.Choice(["debug", "info", "warning", "error"], case_sensitive=False)
    )

    @property
    def patience(self) -> float:
        """Seconds for which a reader may take nothing: two heartbeats, and never more than 30."""
        return min(2 * self.heartbeat, 30.0)


KNOBS = dataclasses.fields(Settings)


def variables(name: str) -> list[str]:
    """The environment variables of a setting, the first found wins."""
    (field,) = (field for field in KNOBS if field.name == name)
    return [f"PUSHSERVER_{name.upper()}", *field.metadata["also"]]


def option(name: str) -> click.Option:
    """The command line's option for a setting; it reads the environment too."""
    return click.Option([f"--{name.replace('_', '-')}"], **option_of(name))


def option_of(name: str) -> dict[str, Any]:
    """What an option for a setting is made of, for commands other than `serve`."""
    (field,) = (field for field in KNOBS if field.name == name)
    return {
        "type": field.metadata["kind"],
        "default": field.default,
        "envvar": variables(name),
        "show_default": name not in SECRET,
        "show_envvar": True,
        "help": field.metadata["help"],
    }


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables: how a worker process is told."""
    return {f"PUSHSERVER_{field.name.upper()}": str(getattr(settings, field.name)) for field in KNOBS}


def shown(settings: Settings) -> str:
    """One `name=value` for each setting, secrets hidden, those that are not the default marked with a star."""
    words = []
    for field in KNOBS:
        value = getattr(settings, field.name)
        mark = "" if value == field.default else "*"
        text = "(set)" if value and field.name in SECRET else repr(value)
        words.append(f"{field.name}={without_password(text)}{mark}")
    return " ".join(words)


def without_password(url: str) -> str:
    """A URL as it may be logged."""
    return re.sub(r"(://[^:@/]*):[^@/]*@", r"\1:***@", url)


def markdown() -> str:
    """`docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Each is a flag of `pushserver serve` and an environment variable; a flag wins. This page is made from",
        "`pushserver/settings.py` by `make docs`, and a test compares the two.",
        "",
        "| flag | environment | default | what it is |",
        "| --- | --- | --- | --- |",
    ]
    for field in KNOBS:
        names = ", ".join(f"`{name}`" for name in variables(field.name))
        default = f"`{field.default}`" if field.default != "" else "(empty)"
        lines.append(
            f"| `--{field.name.replace('_', '-')}` | {names} | {default} | {field.metadata['help'].replace('|', ' ')} |"
        )
    return "\n".join(lines) + "\n"
