"""`pushserver doctor` behind real proxies: each that is broken is found and its line named, none of deploy/ is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pushserver.__main__ import main

from ..support import issuer
from ..support.balancers import BALANCERS, balancer, is_listening_on, program
from ..support.certificates import Authority
from ..support.commands import DONE, REFUSED, WRONG_USAGE
from ..support.keys import as_key, create_key
from ..support.nginx import MAP, UPGRADES, nginx
from ..support.ports import free_port
from ..support.server import STOP_LIMIT, Running, running, until
from ..support.worker import Serve

pytestmark = pytest.mark.full

HEARTBEAT = "2"
READERS = "location ~ /(ws|sse)$"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    """Two servers on one store."""
    folder = tmp_path_factory.mktemp("servers")
    with running(folder / "one", "--heartbeat", HEARTBEAT) as one:
        url = f"unix://{one.data}/valkey.sock"
        with running(folder / "two", "--heartbeat", HEARTBEAT, "--redis", url, env={"PUSHSERVER_KEY": one.key}) as two:
            yield [one, two]


def examine(url: str, servers: list[Running], status: int, **env: str) -> dict[str, Any]:
    """What the doctor reports."""
    arguments = ["doctor", url, "--data", str(servers[0].data), "--json"]
    done = CliRunner().invoke(main, arguments, env={"PUSHSERVER_KEY": "", **env})
    assert done.exit_code == status, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def faults(report: dict[str, Any]) -> dict[str, str]:
    """What is not well, by its subject, each with what to do."""
    rows = [row for row in report["findings"] if row["level"] != "ok"]
    return {row["subject"]: f"{row['says']} > {' '.join(row['do'])}" for row in rows}


# --- proxies


def upstream(servers: list[Running], *lines: str) -> str:
    addresses = " ".join(f"server {server.url.removeprefix('http://')};" for server in servers)
    return f"{MAP}\nupstream servers {{ {' '.join(lines)} {addresses} }}"


def location(*lines: str, path: str = "location /") -> str:
    forwarded = "proxy_set_header X-Forwarded-For $remote_addr;"
    return f"{path} {{ proxy_pass http://servers; {forwarded} {' '.join(lines)} }}"


GOOD = (*UPGRADES, "proxy_buffering off;")
HAPROXY = """
defaults
    mode http
    option forwardfor
    timeout connect 5s
    timeout client 60s
    timeout server {timeout}
    timeout tunnel {timeout}
frontend public
    bind 127.0.0.1:{port} {tls}
    default_backend live
backend live
    balance {balance}
    {lines}
    server one {one} cookie one
    server two {two} cookie two
"""


@contextmanager
def haproxy(
    folder: Path,
    servers: list[Running],
    *,
    timeout: str = "60s",
    tls: str = "",
    balance: str = "leastconn",
    lines: str = "",
) -> Iterator[str]:
    """HAProxy with a configuration of its own. Its address."""
    port = free_port()
    one, two = (server.url.removeprefix("http://") for server in servers)
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(timeout=timeout, port=port, tls=tls, balance=balance, lines=lines, one=one, two=two))
    with started([program("haproxy"), "-db", "-f", str(file)], port, folder):
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"


@contextmanager
def caddy(folder: Path, servers: list[Running], *lines: str, proxy: str = "") -> Iterator[str]:
    """Caddy with a configuration of its own. Its address."""
    port = free_port()
    addresses = " ".join(server.url.removeprefix("http://") for server in servers)
    text = "\n".join(lines)
    file = folder / "Caddyfile"
    file.write_text(
        f"{{\n\tadmin off\n}}\nhttp://127.0.0.1:{port} {{\n{text}\nreverse_proxy {addresses} {{\n{proxy}\n}}\n}}\n"
    )
    env = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with started([program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"], port, folder, **env):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def started(command: list[str], port: int, folder: Path, **env: str) -> Iterator[None]:
    log = folder / "proxy.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=output, stderr=output)
    try:
        until(lambda: process.poll() is not None or is_listening_on(port))
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def broken(name: str, folder: Path, servers: list[Running]) -> AbstractContextManager[str]:
    """A proxy with one fault."""
    http = upstream(servers)
    match name:
        case "no upgrade":
            return nginx(folder, location("proxy_set_header Host $http_host;", "proxy_buffering off;"), http=http)
        case "buffering":
            # What nginx does by default, but for the header by which the server asks it not to: HTTP/1.0, and buffers.
            buffering = (UPGRADES[-1], "proxy_ignore_headers X-Accel-Buffering;")
            sse = location(*buffering, path="location ~ /sse$")
            return nginx(folder, sse, location(*GOOD), http=http)
        case "gzip":
            gzip = ("gzip on;", "gzip_types text/event-stream;", "gzip_proxied any;", "gzip_min_length 0;")
            return nginx(folder, location(*GOOD, *gzip), http=http)
        case "gzip of caddy":
            match_ = "match {\nheader Content-Type text/event-stream*\n}"
            return caddy(folder, servers, f"encode {{\ngzip\nminimum_length 1\n{match_}\n}}", proxy="flush_interval -1")
        case "short time-out":
            return haproxy(folder, servers, timeout="1s")
        case "short time-out of nginx":
            return nginx(folder, location(*GOOD, "proxy_read_timeout 1s;"), http=http)
        case "host lost":
            return nginx(folder, location(*UPGRADES[:-1], "proxy_buffering off;"), http=http)
        case "host lost by caddy":
            return caddy(folder, servers, proxy="header_up Host inside.example")
        case "scheme lost":
            authority = Authority(folder)
            authority.sign("server")
            both = (folder / "server.pem").read_text() + (folder / "server.key").read_text()
            (folder / "both.pem").write_text(both)
            return haproxy(folder, servers, tls=f"ssl crt {folder}/both.pem")
        case "cached no-store":
            zone = f"proxy_cache_path {folder}/cache keys_zone=pages:1m;"
            caching = ("proxy_cache pages;", "proxy_ignore_headers Cache-Control Vary;", "proxy_cache_valid 200 1m;")
            return nginx(
                folder,
                location(*GOOD, path=READERS),
                location(*UPGRADES[-1:], *caching, "proxy_set_header X-Forwarded-For $remote_addr;"),
                http=f"{http}\n{zone}",
            )
        case "sticky":
            return nginx(folder, location(*GOOD), http=upstream(servers, "ip_hash;"))
        case "sticky by cookie":
            return haproxy(folder, servers, balance="source", lines="cookie SRV insert indirect nocache")
    raise ValueError(name)


@pytest.mark.parametrize(
    ("name", "subject", "line"),
    [
        ("no upgrade", "websocket", "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"),
        ("buffering", "events", "nginx: proxy_buffering off;"),
        ("gzip", "events", "nginx: gzip off;"),
        ("gzip of caddy", "events", "Caddy: @pages not path */sse"),
        ("short time-out", "time-out", "HAProxy: timeout client 60s, timeout server 60s, timeout tunnel 60s"),
        ("short time-out of nginx", "time-out", "nginx: proxy_read_timeout 60s;"),
        ("host lost", "host", "nginx: proxy_set_header Host $http_host;"),
        ("host lost by caddy", "host", "Caddy: header_up Host {host}"),
        ("scheme lost", "scheme", "HAProxy: http-request set-header X-Forwarded-Proto https if { ssl_fc }"),
        ("cached no-store", "cache", "nginx: proxy_cache off;"),
        ("sticky", "sticky", "nginx: least_conn;"),
        ("sticky by cookie", "sticky", "HAProxy: balance leastconn"),
    ],
)
def test_a_broken_proxy_is_found_and_its_line_named(
    name: str, subject: str, line: str, servers: list[Running], tmp_path: Path
) -> None:
    with broken(name, tmp_path, servers) as url:
        status = DONE if subject == "sticky" else REFUSED  # readers get everything through a sticky proxy, too
        named = faults(examine(url, servers, status, SSL_CERT_FILE=str(tmp_path / "ca.pem") if "s:" in url else ""))
    assert line in named[subject], named
    follows = {"host": {"websocket"}, "scheme": {"websocket"}}.get(subject, set())
    assert named.keys() - follows == {subject}, named


def test_the_three_of_deploy_are_well(servers: list[Running], tmp_path: Path) -> None:
    for name in BALANCERS:
        with balancer(name, tmp_path, servers) as proxy:
            report = examine(proxy.url, servers, DONE)
            assert faults(report) == {}
            assert "2 of 2 workers" in json.dumps(report)


def test_a_server_without_a_proxy_is_well(servers: list[Running]) -> None:
    report = examine(servers[0].url, servers, DONE)
    assert faults(report) == {}
    assert "with no proxy on the way" in json.dumps(report)


def test_without_a_key_a_stream_is_read_and_the_rest_is_named(servers: list[Running], tmp_path: Path) -> None:
    servers[0].publish_ok("seen", "One")
    arguments = ["doctor", servers[0].url, "--data", str(tmp_path), "--json"]
    done = CliRunner().invoke(main, [*arguments, "--stream", "seen"], env={"PUSHSERVER_KEY": ""})
    assert done.exit_code == DONE, done.output
    assert {row["subject"] for row in json.loads(done.stdout)["findings"]} >= {"websocket", "time-out", "clock"}
    done = CliRunner().invoke(main, arguments, env={"PUSHSERVER_KEY": ""})
    assert faults(json.loads(done.stdout)).keys() == {"websocket", "events", "time-out"}
    assert "expected a key" in done.stdout


def test_the_stream_of_a_look_is_gone_after_it_or_ended(servers: list[Running]) -> None:
    def probes() -> dict[str, str]:
        listed = servers[0].http.get("/streams", headers=as_key(servers[0].key)).json()["streams"]
        return {row["stream"]: row["state"] for row in listed if row["stream"].startswith("doctor-")}

    before = probes()
    examine(servers[0].url, servers, DONE)
    assert probes() == before
    key = create_key(servers[0], "--streams", "doctor-*", "--can", "publish,page")
    report = examine(servers[0].url, servers, DONE, PUSHSERVER_KEY=key)
    assert "stays listed as ended: the key lacks the right delete" in json.dumps(report)
    assert [state for name, state in probes().items() if name not in before] == ["ended"]


def test_a_private_stream_is_read_with_a_token(server: Running, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(issuer.ALL)
    private = serve("--private", "desk-*", "--token-keys", str(tmp_path / "keys"), "--heartbeat", "0.5")
    private.publish_ok("desk-doctor", "One")
    command = ["doctor", private.url, "--data", str(tmp_path), "--json", "--stream", "desk-doctor"]

    def run(token: str) -> dict[str, str]:
        done = CliRunner().invoke(main, command, env={"PUSHSERVER_KEY": "", "PUSHSERVER_TOKEN": token})
        return faults(json.loads(done.stdout))

    assert "or give a token for it: --token" in run("")["websocket"]
    assert run(issuer.token("desk-doctor")) == {}
    assert CliRunner().invoke(main, [*command, "--token", "two words"]).exit_code == WRONG_USAGE


def test_a_stream_that_is_not_there_is_no_fault_of_a_proxy(servers: list[Running], tmp_path: Path) -> None:
    arguments = ["doctor", servers[0].url, "--data", str(tmp_path), "--json", "--stream", "none"]
    done = CliRunner().invoke(main, arguments, env={"PUSHSERVER_KEY": ""})
    named = faults(json.loads(done.stdout))
    assert named.keys() == {"websocket", "events"}
    assert all("name a public stream: --stream" in said for said in named.values())


def test_a_key_that_does_not_arrive_is_named(servers: list[Running], unused_url: str) -> None:
    named = faults(examine(servers[0].url, servers, REFUSED, PUSHSERVER_KEY="pk_wrong_0123456789ab"))
    assert "nginx: proxy_set_header Authorization $http_authorization;" in named["publish"]
    unreached = faults(examine(unused_url, servers, REFUSED))
    assert unreached.keys() == {"reach"}
