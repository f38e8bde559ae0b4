"""Each alert of deploy/ is caused for real: Prometheus scrapes servers, the alert fires for the right one, and clears.

Its `for` and its windows are scaled to seconds. All causes share three servers, whose store is frozen, slowed and
deprived between them, and one Prometheus.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import httpx2
import pytest
import redis
from websockets.sync.client import ClientConnection, connect

from ..faults.disk import filled, is_small, small_disk
from ..faults.test_slow import connected
from ..support.processes import workers_of
from ..support.prometheus import firing, needs_prometheus, prometheus, query, scaled
from ..support.scrapes import METRICS
from ..support.server import LIMIT, Running, running, until
from ..support.stores import Server
from .test_alerts import ALERTS, RULES, expressions

pytestmark = [pytest.mark.full, needs_prometheus]

MOST_READERS, STALLED = 22, 20
ENTRIES, BODY = 60, "word " * 3_900  # far more than kernel and server keep for one reader
RESERVE = 30 * 2**20  # bytes that are left free on the small disk
LATE = 1.2  # seconds, more than the second of two alerts
KILLS = 4  # of a worker and its successors: the server would end at the sixth


class Scene(NamedTuple):
    """Scene is a store with a replica, and the servers: alone on it, with the replica, and on a store of its own."""

    store: Server
    replica: Server
    alone: Running
    replicated: Running
    embedded: Running
    http: httpx2.Client  # of Prometheus


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    with ExitStack() as stack:
        store = Server(folder / "store", "--appendonly", "yes", "--appendfsync", "always")
        stack.callback(store.close)
        replica = Server(folder / "replica", "--replicaof", "127.0.0.1", str(store.port))
        stack.callback(replica.close)
        until(lambda: replica.info("replication").get("master_link_status") == "up")
        stack.enter_context(small_disk(folder / "embedded"))
        usual = ("--redis", f"redis://127.0.0.1:{store.port}", "--heartbeat", "1", *METRICS)
        own = ("--slow-store", "500", "--heal", "false", "--readers", str(MOST_READERS))
        alone = stack.enter_context(running(folder / "alone", *usual, *own))
        replicated = stack.enter_context(running(folder / "replicated", *usual, "--replicas", "1"))
        embedded = stack.enter_context(running(folder / "embedded", *METRICS))
        servers = [alone, replicated, embedded]
        (folder / "prometheus").mkdir()
        http = stack.enter_context(prometheus(folder / "prometheus", servers, scaled(RULES.read_text())))
        until(lambda: len(query(http, "pushserver_build_info")) == len(servers))
        yield Scene(store, replica, alone, replicated, embedded, http)


# --- causes: each yields what is to be done again and again until the alert fires

Again = Callable[[], object]


def nothing() -> None:
    pass


@contextmanager
def frozen(scene: Scene) -> Iterator[Again]:
    """The supervisor stands still, and with it its metrics."""
    scene.alone.process.send_signal(signal.SIGSTOP)
    try:
        yield nothing
    finally:
        scene.alone.process.send_signal(signal.SIGCONT)


@contextmanager
def store_frozen(scene: Scene) -> Iterator[Again]:
    scene.store.freeze()
    try:
        yield nothing
    finally:
        scene.store.thaw()


@contextmanager
def store_slow(scene: Scene) -> Iterator[Again]:
    scene.store.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        yield nothing
    finally:
        scene.store.ask("CLIENT", "UNPAUSE")


@contextmanager
def replica_frozen(scene: Scene) -> Iterator[Again]:
    scene.replica.freeze()
    try:
        yield nothing
    finally:
        scene.replica.thaw()


def tails_at(store: Server) -> list[str]:
    """The connections to a store over which tails read."""
    return [client["id"] for client in store.client.client_list() if client["cmd"] == "xread"]


@contextmanager
def tail_refused(scene: Scene) -> Iterator[Again]:
    """A tail is cut off while the store accepts no more connections."""
    with followed(scene.alone, "tail"):
        until(lambda: bool(tails_at(scene.store)))  # a tail that was lost before comes back in its own time
        (tail,) = tails_at(scene.store)
        (before,) = scene.store.client.config_get("maxclients").values()
        scene.store.ask("CONFIG", "SET", "maxclients", 1)
        try:
            scene.store.ask("CLIENT", "KILL", "ID", tail)
            yield nothing
        finally:
            scene.store.ask("CONFIG", "SET", "maxclients", str(before))


@contextmanager
def workers_killed(scene: Scene) -> Iterator[Again]:
    """A worker dies, and its successors before they are ready."""
    killed: set[int] = set()

    def kill() -> None:
        for pid in set(workers_of(scene.replicated)) - killed:
            if len(killed) < KILLS:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    yield kill


@contextmanager
def folder_lost(scene: Scene) -> Iterator[Again]:
    log = scene.embedded.data / "appendonlydir"
    away = log.rename(log.with_name("elsewhere"))
    try:
        yield nothing
    finally:
        away.rename(log)


@contextmanager
def disk_filled(scene: Scene) -> Iterator[Again]:
    if not is_small(scene.embedded.data):
        pytest.skip("only root may mount a disk to fill")
    with filled(scene.embedded.data, but=RESERVE):
        yield nothing


@contextmanager
def events_lost(scene: Scene) -> Iterator[Again]:
    """The store falls back to what it had before an event that readers have, and the worker may not heal it."""
    stream = "lost"
    scene.alone.publish_ok(stream, "stays")
    with followed(scene.alone, stream) as socket, redis.Redis(port=scene.store.port) as store:
        kept: Any = {name: store.dump(name) for name in store.scan_iter(f"*:{stream}:*")}
        scene.alone.publish_ok(stream, "is lost")
        until_frame(socket, "entry.put")
        delete_all(store, stream)
        for name, value in kept.items():
            store.restore(name, 0, value)
        yield nothing


@contextmanager
def stream_emptied(scene: Scene) -> Iterator[Again]:
    """Somebody empties the store behind the server's back."""
    with followed(scene.alone, "emptied"), redis.Redis(port=scene.store.port) as store:
        delete_all(store, "emptied")
        yield nothing


def delete_all(store: redis.Redis, stream: str) -> None:
    """Delete every key of a stream, as nothing of this server does it."""
    names: Any = list(store.scan_iter(f"*:{stream}:*"))
    store.delete(*names)


@contextmanager
def late(scene: Scene) -> Iterator[Again]:
    """The worker that has the readers stands still, while another one publishes."""
    (worker,) = workers_of(scene.alone)
    with followed(scene.alone, "late"):

        def stand_still() -> None:
            os.kill(worker, signal.SIGSTOP)
            try:
                scene.replicated.publish_ok("late", "for a second")
                at = time.monotonic()
                until(lambda: time.monotonic() > at + LATE)
            finally:
                os.kill(worker, signal.SIGCONT)

        yield stand_still


@contextmanager
def publish_slow(scene: Scene) -> Iterator[Again]:
    def publish() -> None:
        scene.store.ask("CLIENT", "PAUSE", int(LATE * 1_000), "WRITE")
        scene.alone.publish_ok("slow", "after a second")

    yield publish


@contextmanager
def refused(scene: Scene) -> Iterator[Again]:
    def publish() -> None:
        answer = scene.alone.publish("storm", {"headline": "x"}, Authorization="Bearer pk_wrong_0123456789")
        assert answer.status_code == 401

    yield publish


@contextmanager
def full(scene: Scene) -> Iterator[Again]:
    scene.alone.publish_ok("full", "one")
    with ExitStack() as stack:
        for _ in range(MOST_READERS - 1):
            stack.enter_context(socket_to(scene.alone, "full"))
        yield nothing


@contextmanager
def files_short(scene: Scene) -> Iterator[Again]:
    """The worker may open hardly more files than it has."""
    (worker,) = workers_of(scene.alone)
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{worker}/fd")), before[1]))
    try:
        yield nothing
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)


@contextmanager
def readers_stalled(scene: Scene) -> Iterator[Again]:
    """Readers take nothing of what is sent to them."""
    cursor = scene.alone.publish_ok("stalled", "one")["cursor"]
    with ExitStack() as stack:
        for _ in range(STALLED):
            stack.enter_context(connected(scene.alone, "stalled", cursor))
        lines = b"".join(json.dumps({"headline": "more", "body": BODY}).encode() + b"\n" for _ in range(ENTRIES))
        answer = scene.alone.send("POST", "/streams/stalled/entries", lines, Content_Type="application/x-ndjson")
        assert answer.text.count('"status":201') == ENTRIES
        yield nothing


# --- readers


def socket_to(server: Running, stream: str) -> ClientConnection:
    address = server.url.replace("http", "ws") + f"/streams/{stream}/ws"
    return connect(address, compression=None, proxy=None, open_timeout=LIMIT, ping_interval=None)


@contextmanager
def followed(server: Running, stream: str) -> Iterator[ClientConnection]:
    """A reader of a stream with an entry, who has had it."""
    server.publish_ok(stream, "one")
    with socket_to(server, stream) as socket:
        until_frame(socket, "snapshot")
        yield socket


def until_frame(socket: ClientConnection, kind: str) -> None:
    while json.loads(socket.recv(LIMIT))["type"] != kind:
        pass


# --- the tests


Cause = Callable[[Scene], AbstractContextManager[Again]]
CAUSES: dict[str, tuple[str, Cause, set[str]]] = {
    "refused": ("alone", refused, {"PushserverRefusesPublishers"}),
    "full": ("alone", full, {"PushserverFull"}),
    "files": ("alone", files_short, {"PushserverFiles"}),
    "stalled": ("alone", readers_stalled, {"PushserverSlowReaders"}),
    "lost": ("alone", events_lost, {"PushserverEventsLost"}),
    "emptied": ("alone", stream_emptied, {"PushserverLogGone"}),
    "late": ("alone", late, {"PushserverLate"}),
    "publish slow": ("alone", publish_slow, {"PushserverPublishSlow"}),
    "store slow": ("alone", store_slow, {"PushserverStoreSlow"}),
    "store away": ("alone", store_frozen, {"PushserverStoreAway"}),
    "tail": ("alone", tail_refused, {"PushserverFrozenTail"}),
    "replica": ("replicated", replica_frozen, {"PushserverNoReplicas"}),
    "workers": ("replicated", workers_killed, {"PushserverNoWorker", "PushserverWorkersEnd"}),
    "folder": ("embedded", folder_lost, {"PushserverDataFolder"}),
    "disk": ("embedded", disk_filled, {"PushserverDiskFull"}),
    "down": ("alone", frozen, {"PushserverDown"}),
}


@pytest.mark.parametrize("name", CAUSES)
def test_an_alert_fires_while_its_cause_lasts_and_clears(scene: Scene, name: str) -> None:
    place, cause, alerts = CAUSES[name]
    server: Running = getattr(scene, place)
    until(lambda: not alerts & firing(scene.http, server))
    seen: set[str] = set()

    def fire(again: Again) -> bool:
        again()
        seen.update(firing(scene.http, server))
        return alerts <= seen

    with cause(scene) as again:
        until(partial(fire, again))
    until(lambda: not alerts & firing(scene.http, server))


def test_the_board_has_rows(scene: Scene) -> None:
    until(lambda: all(query(scene.http, text) or "> 0" in text for text in expressions()))


def test_every_alert_is_caused() -> None:
    assert {alert for _, _, alerts in CAUSES.values() for alert in alerts} == set(ALERTS)
