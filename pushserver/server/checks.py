"""Checks of a server's settings, of its data folder and of its store: `serve` makes them at start, `check` without one.

Each check is a function that returns findings. `serve` logs the warnings and stops at the first error; `check` lists
them all. Nothing here changes a store, but for a mark that goes by itself after a minute, and the two keys that a new
store gets from a server that starts on it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from .. import findings, model
from ..access import keyfile
from ..access.keys import fingerprint
from ..access.keystore import KeyStore
from ..access.tokens import Tokens
from ..findings import Finding, Level
from ..logs import Own, hide_secrets
from ..settings import Settings
from ..store.folder import CannotStart
from ..store.rights import NEEDED
from ..store.store import Store, StoreError, StoreUnfit
from ..values import NEW_KEY
from .files import file_limit, files_for, most_readers

logger = logging.getLogger(__name__)

OTHER_KEY_SECONDS = 7 * 86_400  # since the start of a server with another key, in which it may still run
NO_SHARED_KEY = (
    f"expected PUSHSERVER_KEY, the same on every server of the store (`{NEW_KEY}` makes one), "
    "or a key in the store (`pushserver keys create NAME --redis URL` makes one), got none"
)
GRANT = f"ACL SETUSER NAME on >PASSWORD {NEEDED}"


def insist(results: Iterable[Finding]) -> None:
    """Log the warnings. Raises CannotStart at the first error."""
    for finding in results:
        if finding.level is Level.ERROR:
            raise CannotStart(finding.sentence())
        if finding.level is Level.WARNING:
            logger.warning("%s", Own(finding.sentence()))


# --- the settings themselves


def check_variables(sentences: Sequence[str]) -> list[Finding]:
    """Name the variables that begin like settings and are none. They are no errors: a newer server may know them."""
    return [findings.warning("environment", sentence) for sentence in sentences] or [
        findings.ok("environment", "every PUSHSERVER_ variable is a setting")
    ]


def check_exposed(names: Sequence[str]) -> list[Finding]:
    """Name the secrets that stand in the command line."""
    return [
        findings.warning(
            f"--{name}",
            "a secret stands in the command line, where `ps` shows it to every user of this machine",
            f"use --{name}-file, or the variable PUSHSERVER_{name.upper()}",
        )
        for name in names
    ]


def check_together(settings: Settings) -> list[Finding]:
    """Name settings that do not fit each other."""
    results = []
    if settings.replicas and not settings.redis:
        results.append(
            findings.error(
                "--replicas",
                "expected --redis with --replicas, since the embedded store has no replicas, got --replicas alone",
            )
        )
    if settings.forwarded == "*":
        results.append(
            findings.warning(
                "--forwarded",
                "every client is believed about its address and scheme, since * is any address",
                "name the addresses of your proxies, such as --forwarded 10.0.0.0/24",
            )
        )
    return results


def check_tokens(settings: Settings) -> Finding:
    """Refuse settings of private streams that would let nobody read them, or everybody."""
    try:
        tokens = Tokens.of(settings)
    except (ValueError, OSError) as error:
        name, _, says = str(error).partition(": ")
        return findings.error(name, says) if says else findings.error("PUSHSERVER_TOKEN_KEYS", name)
    return findings.ok("private streams", settings.private if tokens.any_private else "none")


def check_readers(settings: Settings) -> Finding:
    """Compare the readers of a worker with the files that it may open."""
    limit = file_limit()
    readers = most_readers(settings.readers, limit)
    if limit is None or readers == settings.readers:
        return findings.ok("open files", f"a worker may open {limit or 'any number of'}, and accepts {readers} readers")
    return findings.warning(
        "open files",
        f"a worker accepts {readers} readers, not {settings.readers}: it may open {limit} files, of which"
        f" {limit - readers} are for others than readers",
        f"raise the hard limit to {files_for(settings.readers)} (ulimit -Hn, LimitNOFILE=), or set --readers {readers}",
    )


def check_heartbeat(heartbeat: float, timeouts: Sequence[float]) -> list[Finding]:
    """Compare the time-outs of proxies with the heartbeat: a quiet stream sends nothing between two of them."""
    results = []
    for timeout in timeouts:
        says = f"{timeout:g} s of a proxy and heartbeats each {heartbeat:g} s"
        do = f"set the proxy's time-out to {4 * heartbeat:g} s, or --heartbeat {timeout / 4:g}"
        if timeout <= heartbeat:
            results.append(findings.error("time-out", f"{says}: it cuts the readers of every quiet stream", do))
        elif timeout <= 2 * heartbeat:
            results.append(findings.warning("time-out", f"{says}: one late heartbeat cuts readers", do))
        else:
            results.append(findings.ok("time-out", says))
    return results


# --- the data folder


def check_folder(data: Path, *, make: bool) -> Finding:
    """Refuse a folder that cannot be made or written; `make` it, or look at the folder in which it would be made."""
    subject = "--data (PUSHSERVER_DATA)"
    expected = f"expected a folder that this user can make and write, got {data}"
    try:
        if make:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
        nearest = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
        if not nearest.is_dir():
            return findings.error(subject, f"{expected}: {nearest} is no folder")
    except OSError as error:
        return findings.error(subject, f"{expected}: {error.strerror}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return findings.error(subject, f"{expected}: it is not writable")
    return findings.ok(subject, f"{data}{'' if data.exists() else ', which the start makes'}")


def check_local_key(data: Path) -> Finding:
    """Refuse a key file of the data folder without a key."""
    path = data / keyfile.KEY_FILE
    if not path.exists():
        return findings.ok("publish key", f"the start makes one in {path}")
    try:
        keyfile.make_local_key(data)
    except (ValueError, OSError) as error:
        return findings.error("publish key", str(error))
    return findings.ok("publish key", f"the one in {path}")


# --- the store


async def examine_store(store: Store, settings: Settings, *, writes: bool, is_shared: bool) -> AsyncIterator[Finding]:
    """Try all that a server needs of its store, one finding after the other.

    A store that does not answer is asked nothing more. `writes` is for a start: see `Store.checks`. A store that is not
    embedded may be `is_shared` with other servers.
    """
    subject = f"store {hide_secrets(settings.redis)}"
    for name, check in store.checks(writes=writes).items():
        try:
            await check()
        except StoreUnfit as error:
            refused = "is refused" in str(error)
            yield findings.error(subject, str(error), f"on the store: {GRANT}" if refused and not writes else "")
        except (StoreError, ValueError, OSError) as error:
            yield findings.error(subject, str(error))
            return
        else:
            yield findings.ok(subject, name)
    for finding in _promises(store, settings):
        yield finding
    try:
        if is_shared:
            async for finding in _check_keys(KeyStore(store), settings, writes=writes):
                yield finding
    except StoreError as error:
        yield findings.error(subject, str(error))


def _promises(store: Store, settings: Settings) -> Iterable[Finding]:
    """Name what the store does not promise of a write that it has acknowledged."""
    if store.durability() == "disk":
        yield findings.ok("durability", "disk: the store syncs each write before it answers")
    else:
        yield findings.warning(
            "durability",
            "memory: the store is not known to sync each write before it answers, and may lose the last ones",
            "set appendonly yes and appendfsync always on the store, and allow its user +config|get",
        )
    if settings.replicas and store.has_replicas():
        yield findings.ok("replicas", f"{settings.replicas} acknowledge a write")
    elif settings.replicas:
        yield findings.warning(
            "replicas",
            f"expected {settings.replicas} to acknowledge a write within a second, got fewer: /readyz stays 503",
            "start the replicas, or set --replicas 0",
        )


async def _check_keys(keys: KeyStore, settings: Settings, *, writes: bool) -> AsyncIterator[Finding]:
    """Refuse a store without a key that its servers share; name another key with which a server started on it."""
    at = model.now()
    if not settings.key:
        has_key = await keys.has_key(model.instant(at))
        yield (
            findings.ok("publish key", "one of those in the store")
            if has_key
            else findings.error("publish key", NO_SHARED_KEY)
        )
        return
    own = fingerprint(settings.key)
    others = {print: began for print, began in (await keys.server_keys()).items() if print != own}
    latest = max(others.values(), default="")
    if latest > model.instant(at - OTHER_KEY_SECONDS * 1_000):
        yield findings.warning(
            "publish key",
            f"a server of this store started with another key at {latest}: each refuses the key of the other",
            "set the same PUSHSERVER_KEY on every server; if that one has the new key now, nothing is to be done",
        )
    else:
        yield findings.ok(
            "publish key", "that of the settings; no server of this store started with another in the last seven days"
        )
    if writes:
        await keys.note_server_key(own, model.instant(at))
