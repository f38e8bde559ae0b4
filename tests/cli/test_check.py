"""`pushserver check` finds each misconfiguration that operators have met, and `serve` refuses or names the same."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from click.testing import CliRunner, Result

from pushserver.__main__ import main
from pushserver.settings import KNOBS, variables
from pushserver.store.rights import NEEDED

from ..support.commands import DONE, NOT_REACHED, REFUSED, WRONG_USAGE
from ..support.server import KEY, Running
from ..support.stores import Server


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*os.environ, *(name for field in KNOBS for name in variables(field.name))):
        if name.startswith("PUSHSERVER_") or name in ("PORT", "REDIS_URL", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("store"), "--appendonly", "no")
    yield server
    server.close()


def run(command: str, *arguments: str, env: dict[str, str] | None = None) -> Result:
    """A command in this process."""
    return CliRunner().invoke(main, [command, "--port", "0", *arguments], env=env)


def check(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what `check` reports, as JSON."""
    done = run("check", "--json", *arguments, env=env)
    assert done.exit_code in (DONE, REFUSED), done.output
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["ok"] == (done.exit_code == DONE)
    return report


def lines(report: dict[str, Any], level: str) -> str:
    rows = [row for row in report["findings"] if row["level"] == level]
    return "\n".join(f"{row['subject']}: {row['says']} > {' '.join(row['do'])}" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "env", "named"),
    [
        (["--forwarded", "not an ip"], {}, "--forwarded (PUSHSERVER_FORWARDED, FORWARDED_ALLOW_IPS): expected IP"),
        (["--origins", "news.example"], {}, "https://news.example, or *, got news.example"),
        (["--key", "k"], {}, "openssl rand -hex 24"),
        ([], {"PUSHSERVER_KEY": "ein langer Schlüssel"}, "--key (PUSHSERVER_KEY): expected 16"),
        (["--host", ""], {}, "0.0.0.0 for all interfaces"),
        (["--redis", "redis://u:hunter2#@host"], {}, "%23"),
        (["--redis", "redis://full:hunter2:/@#?%w@127.0.0.1:1/0"], {}, "percent-encoded"),
        ([], {"WEB_CONCURRENCY": "two words"}, "--workers (PUSHSERVER_WORKERS, WEB_CONCURRENCY): "),
        (["--heartbeat", "nan"], {}, "expected a number"),
        (["--private", "Desk"], {}, "PUSHSERVER_PRIVATE: expected patterns"),
        (["--private", "desk-*"], {}, "PUSHSERVER_TOKEN_KEYS: expected a file"),
        (["--replicas", "1"], {}, "the embedded store has no replicas"),
        (["--key-file", "/no/such/file"], {}, "--key-file (PUSHSERVER_KEY_FILE): expected a file that can be read"),
        (["--redis", "redis://127.0.0.1:1/0"], {"PUSHSERVER_KEY": KEY}, "store redis://127.0.0.1:1/0: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_serve_refuses_is_found(arguments: list[str], env: dict[str, str], named: str, tmp_path: Path) -> None:
    own = [*arguments, "--data", str(tmp_path / "data")]
    report = check(*own, env=env)
    assert named in lines(report, "error")
    assert "hunter2" not in json.dumps(report)
    refused = run("serve", *own, env=env)
    assert refused.exit_code in (WRONG_USAGE, NOT_REACHED)
    assert named.rpartition("): ")[2] in " ".join(refused.stderr.replace("│", " ").split())
    assert "hunter2" not in refused.output


@pytest.mark.parametrize(
    ("arguments", "env", "named"),
    [
        ([], {"PUSHSERVER_WORKRES": "4"}, "PUSHSERVER_WORKRES is no setting, and has no effect; the nearest is"),
        (["--key", KEY], {}, "--key: a secret stands in the command line, where `ps` shows it"),
        (["--forwarded", "10.0.0.1,*"], {}, "--forwarded: every client is believed"),
    ],
)
def test_what_serve_warns_of_is_found(
    arguments: list[str], env: dict[str, str], named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The start is refused after its warnings, since it needs a file that is not there."""
    own = [*arguments, "--data", str(tmp_path / "data")]
    assert named in lines(check(*own, env=env), "warning")
    with caplog.at_level(logging.WARNING):
        assert run("serve", *own, "--port", "1", "--host", "192.0.2.1", env=env).exit_code == NOT_REACHED
    assert named in caplog.text


def test_values_that_are_made_normal_are_no_findings(tmp_path: Path) -> None:
    env = {"PUSHSERVER_KEY": f"{KEY}\n", "PUSHSERVER_ORIGINS": "https://www.news.example/", "WEB_CONCURRENCY": ""}
    report = check("--data", str(tmp_path / "My news#1" / "data"), env=env)
    assert report["ok"]
    assert not lines(report, "error")


def test_a_proxy_of_the_environment_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    report = check("--data", str(tmp_path), env={"HTTP_PROXY": "gopher://127.0.0.1:9"})
    assert "HTTP_PROXY" in lines(report, "warning")


@pytest.mark.parametrize(("seconds", "level"), [("10", "error"), ("15", "error"), ("30", "warning"), ("60", "ok")])
def test_the_time_out_of_a_proxy_is_compared_with_the_heartbeat(tmp_path: Path, seconds: str, level: str) -> None:
    report = check("--data", str(tmp_path), "--proxy-timeout", seconds)
    assert f"time-out: {seconds} s of a proxy" in lines(report, level)


def test_nothing_is_made(tmp_path: Path) -> None:
    assert check("--data", str(tmp_path / "data"))["ok"]
    assert [*tmp_path.iterdir()] == []
    folder = tmp_path / "file"
    folder.write_text("")
    assert "is no folder" in lines(check("--data", str(folder)), "error")


def test_a_folder_whose_log_or_key_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "store.id").write_text("0123\n")
    (tmp_path / "publish.key").write_text("two words\n")
    wrong = lines(check("--data", str(tmp_path)), "error")
    assert "had a store (store.id), and its append-only file is gone" in wrong
    assert "publish.key: expected 16 to 512" in wrong


def test_a_limit_of_open_files_and_a_disk_that_are_too_small_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushserver.server.checks.file_limit", lambda: 4_096)
    monkeypatch.setattr("pushserver.store.folder.DataFolder.free", lambda self: 10 * 2**20)
    doubtful = lines(check("--data", str(tmp_path)), "warning")
    assert "a worker accepts 3584 readers, not 20000: it may open 4096 files" in doubtful
    assert "raise the hard limit to 20512 (ulimit -Hn, LimitNOFILE=), or set --readers 3584" in doubtful
    assert "disk: disk almost full" in doubtful
    assert "(10 MiB free, reserve 64 MiB) > make room on the disk of the data folder" in doubtful


def test_a_server_that_runs_is_looked_at_as_it_is(server: Running) -> None:
    report = check("--data", str(server.data), "--port", server.url.rpartition(":")[2])
    assert report["ok"]
    assert "in use by a server that is ready" in lines(report, "ok")
    assert f"{server.data} is in use by a server, which has to end before another one starts" in lines(report, "ok")
    assert "durability: disk" in lines(report, "ok")
    other = check("--data", str(server.data), "--partitions", "8")
    assert "expected 16 partitions" in lines(other, "error")


def test_an_address_that_another_program_has_is_named(redis_server: Server, tmp_path: Path) -> None:
    report = check("--data", str(tmp_path), "--port", str(redis_server.port))
    assert "/readyz does not answer as this server does > stop what runs there" in lines(report, "error")


class NotReady(BaseHTTPRequestHandler):
    """A server whose data folder was deleted while it ran."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"ready": false, "folder": false}')

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_a_server_that_runs_and_is_not_ready_is_shown_with_its_checks(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), NotReady) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        report = check("--data", str(tmp_path), "--port", str(server.server_port))
        server.shutdown()
    assert '"folder": false' in lines(report, "error")


def test_the_address_of_the_metrics_is_bound_too(redis_server: Server, tmp_path: Path) -> None:
    report = check("--data", str(tmp_path), "--metrics-port", str(redis_server.port))
    assert f"metrics address: 127.0.0.1:{redis_server.port}: Address already in use" in lines(report, "warning")
    report = check("--data", str(tmp_path), "--metrics-port", "9600", "--metrics-host", "203.0.113.7")
    assert "metrics address: 203.0.113.7:9600: Cannot assign requested address" in lines(report, "error")
    for host in ("127.0.0.1", "0.0.0.0"):
        report = check("--data", str(tmp_path), "--host", host, "--port", "9600", "--metrics-port", "9600")
        assert "metrics address: 127.0.0.1:9600 is the address of readers, too" in lines(report, "error")


# --- an external store


def url_as(server: Server, *words: str) -> str:
    server.ask("ACL", "SETUSER", "checked", "reset", "on", ">p", *words)
    return f"redis://checked:p@127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["~*", "&*", "+@all", "-@scripting"], "SCRIPT EXISTS is refused"),
        (["~*", "+@all"], "SSUBSCRIBE is refused: No permissions to access a channel"),
        (["~{p*", "~pushserver:*", "&{p*", "+@all", "-hset"], "HSET is refused"),
        (["~{p00}*", "~pushserver:*", "&*", "+@all"], "a key of {p01} is refused"),
        (["~*", "&*"], "INFO is refused"),
    ],
)
def test_a_user_of_the_store_without_a_right_is_found(redis_server: Server, words: list[str], named: str) -> None:
    url = url_as(redis_server, *words)
    wrong = lines(check("--redis", url, env={"PUSHSERVER_KEY": KEY}), "error")
    assert named in wrong
    assert f"on the store: ACL SETUSER NAME on >PASSWORD {NEEDED}" in wrong
    refused = run("serve", "--redis", url, env={"PUSHSERVER_KEY": KEY})
    assert refused.exit_code == NOT_REACHED
    assert named in refused.stderr


def test_a_store_that_evicts_or_is_newer_is_found_and_left_as_it_is(redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    redis_server.ask("FLUSHALL")
    check("--redis", url, env={"PUSHSERVER_KEY": KEY})
    assert [key for key in redis_server.ask("KEYS", "*") if not key.endswith(":written")] == []
    redis_server.ask("SET", "pushserver:format", "2.0")
    redis_server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    try:
        wrong = lines(check("--redis", url, env={"PUSHSERVER_KEY": KEY}), "error")
        assert "expected maxmemory-policy noeviction, got allkeys-lru" in wrong
        assert "expected a store of format 1, got 2.0" in wrong
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
        redis_server.ask("FLUSHALL")


def test_a_store_that_is_too_old_is_found(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    info = aioredis.Redis.info

    async def old(self: aioredis.Redis, *sections: str) -> dict[str, Any]:
        fields: dict[str, Any] = await info(self, *sections)
        return {
            **{name: value for name, value in fields.items() if name != "valkey_version"},
            "redis_version": "6.2.14",
        }

    monkeypatch.setattr(aioredis.Redis, "info", old)
    url = f"redis://127.0.0.1:{redis_server.port}"
    named = "expected Redis 7.0 or Valkey 7.2 or later, got 6.2.14"
    assert named in lines(check("--redis", url, env={"PUSHSERVER_KEY": KEY}), "error")
    refused = run("serve", "--redis", url, env={"PUSHSERVER_KEY": KEY})
    assert (refused.exit_code, named in refused.stderr) == (NOT_REACHED, True)


def test_a_store_that_promises_less_is_found(redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    doubtful = lines(check("--redis", url, "--replicas", "1", env={"PUSHSERVER_KEY": KEY}), "warning")
    assert "durability: memory" in doubtful
    assert "set appendonly yes and appendfsync always" in doubtful
    assert "replicas: expected 1 to acknowledge" in doubtful


def test_servers_of_a_store_need_one_key(redis_server: Server) -> None:
    """A start that is refused later has noted its key all the same, as one that is killed later would."""
    url = f"redis://127.0.0.1:{redis_server.port}"
    redis_server.ask("FLUSHALL")
    assert "expected PUSHSERVER_KEY, the same on every server" in lines(check("--redis", url), "error")
    assert run("serve", "--redis", url).exit_code == NOT_REACHED
    assert "no server of this store started with" in lines(check("--redis", url, env={"PUSHSERVER_KEY": KEY}), "ok")
    redis_server.ask("HSET", "pushserver:keys:servers", "0badf00d", "2099-01-01T00:00:00.000Z")
    doubtful = lines(check("--redis", url, env={"PUSHSERVER_KEY": KEY}), "warning")
    assert "a server of this store started with another key at 2099-01-01" in doubtful
    redis_server.ask("HSET", "pushserver:keys:servers", "0badf00d", "2020-01-01T00:00:00.000Z")
    assert "no server of this store started with" in lines(check("--redis", url, env={"PUSHSERVER_KEY": KEY}), "ok")


def test_the_list_is_for_people(tmp_path: Path) -> None:
    done = run("check", "--data", str(tmp_path), env={"PUSHSERVER_WORKRES": "4"})
    assert done.exit_code == DONE
    assert f"ok       --data (PUSHSERVER_DATA): {tmp_path}" in done.stdout
    assert "warning  environment: PUSHSERVER_WORKRES" in done.stdout
