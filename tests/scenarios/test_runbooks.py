"""The runbooks of docs/operations.md: each command of the page is run, or the page says that no test runs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from click.testing import CliRunner

from pushserver.__main__ import main

from ..support.balancers import program
from ..support.processes import Start
from ..support.scrapes import METRICS, metrics_url
from ..support.server import LIMIT, ROOT, Running, until
from ..support.stores import REDIS
from ..support.stores import Server as StoreServer

PAGE = (ROOT / "docs" / "operations.md").read_text()
INTRODUCTION, _, RUNBOOKS = PAGE.partition("\n## ")
STORE = ("BGSAVE", "REPLICAOF")  # the page's commands of Redis without redis-cli
SHELL = ("kill", "ulimit")
OURS, REQUEST = "pushserver", "GET"
OTHERS = ("systemctl", "systemd-analyze", "redis-cli", "python", "make", "curl", "nginx", "haproxy", "caddy", "podman")
PROGRAMS = (OURS, REQUEST, *STORE, *SHELL, *OTHERS)


def commands() -> list[str]:
    """The commands of the page in their order: lines that are indented, and what begins with a program in the text."""
    begins = "|".join(PROGRAMS)
    pattern = rf"^ {{4}}(\S[^#\n]*)|or: (kill[^,\n]*)|`((?:{begins})(?: [^`\n]*)?)`"
    return [text.strip() for match in re.findall(pattern, RUNBOOKS, re.MULTILINE) for text in match if text]


def not_run() -> set[str]:
    """The programs that no test runs, as the page says."""
    (sentence,) = re.findall(r"No test runs ([^.;]*)", INTRODUCTION.replace("\n", " "))
    return {span.split()[0] for span in re.findall(r"`([^`]*)`", sentence)}


def is_run(command: str) -> bool:
    return command.split(maxsplit=1)[0] not in not_run()


def arguments(command: str) -> list[str]:
    return command.partition(" > ")[0].split()[1:]


def test_each_command_is_one_that_a_test_runs_or_the_page_says_that_none_does() -> None:
    programs = {command.split()[0] for command in commands()}
    assert programs <= {OURS, REQUEST, "redis-cli", "systemd-analyze", *STORE, *SHELL} | not_run()
    assert {OURS, REQUEST, "redis-cli", "kill", "systemctl"} <= programs, "they were looked for"
    assert not_run() <= programs, "the page has it no more"


def test_each_command_of_ours_and_each_flag_exists() -> None:
    context = click.Context(main)
    ours = [command for command in commands() if command.startswith(f"{OURS} ")]
    assert len(ours) > 10
    for command in ours:
        name, *others = arguments(command)
        command_of_ours = main.get_command(context, name)
        assert command_of_ours is not None, command
        known = {flag for option in command_of_ours.params for flag in option.opts}
        assert {word for word in others if word.startswith("--")} <= known, command
    every = [each for name in main.list_commands(context) if (each := main.get_command(context, name))]
    flags = {flag for each in every for option in each.params for flag in option.opts}
    for flag in re.findall(r"`(--[a-z-]+)`", PAGE):
        assert flag in flags, flag


class Runbook:
    """Runbook runs commands against a server and a Redis, with real names for those of the page."""

    def __init__(self, server: Running, redis: StoreServer, folder: Path) -> None:
        self._server, self._redis, self._folder = server, redis, folder
        entry = server.publish_ok("storm", "Here")["id"]
        server.publish_ok("old", "Long ago")
        self._words = {
            "https://live.news.example": server.url,
            "http://127.0.0.1:9600": metrics_url(server),
            "/var/lib/pushserver": str(server.data),
            "{stream}": "storm",
            "STREAM": "storm",
            "FOLDER": str(folder / "streams"),
            "NAME": "desk",
            "PID": str(server.process.pid),
            "URL": server.url,
            "ID": entry,
        }

    def run(self, command: str) -> None:
        """Run a command of the page."""
        first = command.split(maxsplit=1)[0]
        if first == OURS:
            self._run_ours(command)
        elif first == REQUEST:
            answer = self._server.send(REQUEST, self._named(command).split()[1], b"")
            assert answer.status_code == 200, (command, answer.text)
        elif first in SHELL:
            self._run_in_shell(command)
        elif first in ("redis-cli", "BGSAVE"):
            words = command.removeprefix("redis-cli ").split()
            said = subprocess.check_output([program("redis-cli"), "-p", str(self._redis.port), *words], text=True)
            assert "ERR" not in said, (command, said)
            until(lambda: not self._redis.ask("INFO", "persistence")["aof_rewrite_in_progress"])  # one at a time

    def _named(self, command: str) -> str:
        for name, real in self._words.items():
            command = command.replace(name, real)
        return command

    def _run_ours(self, command: str) -> None:
        variables = {
            "PUSHSERVER_URL": self._server.url,
            "PUSHSERVER_KEY": self._server.key,
            "PUSHSERVER_DATA": str(self._server.data),
            "PUSHSERVER_PORT": str(urlsplit(self._server.url).port),
        }
        if command.startswith("pushserver delete"):
            command = command.replace("STREAM", "old")  # the rest of the page has the other one
        done = CliRunner().invoke(main, arguments(self._named(command)), env=variables, input="y\n")
        assert done.exit_code == 0, (command, done.output)

    def _run_in_shell(self, command: str) -> None:
        before = self._server.log.count("all workers have been restarted")
        subprocess.run(["sh", "-c", self._named(command)], check=True, capture_output=True)
        if command.startswith("kill"):
            until(lambda: self._server.log.count("all workers have been restarted") > before)


@pytest.mark.full  # the tests of the commands themselves are not
@pytest.mark.skipif(not REDIS, reason="redis-server is not installed")
def test_each_command_runs_as_it_stands(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = start("--heartbeat", "1", *METRICS)
    redis = StoreServer(tmp_path, "--appendonly", "yes", binary=REDIS)
    try:
        runbook = Runbook(server, redis, tmp_path)
        for command in commands():
            if is_run(command) and command not in ("pushserver serve", "pushserver repair"):
                runbook.run(command)
        assert server.stop() == 0
        assert CliRunner().invoke(main, ["repair", "--data", str(server.data)]).exit_code == 0
    finally:
        redis.close()


@pytest.mark.full
def test_a_store_is_moved_by_a_replica_and_readers_miss_nothing(start: Start, tmp_path: Path) -> None:
    old, new = (StoreServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always") for _ in range(2))
    try:
        server = start("--redis", f"redis://127.0.0.1:{old.port}/0")
        cursor = server.publish_ok("storm", "Before")["cursor"]
        server.publish_ok("storm", "While it follows")
        new.ask("REPLICAOF", "127.0.0.1", old.port)
        until(lambda: new.ask("INFO", "replication")["master_link_status"] == "up")
        server.stop()
        until(lambda: new.ask("DBSIZE") == old.ask("DBSIZE"))
        new.ask("REPLICAOF", "NO", "ONE")
        old.close()
        server = start("--redis", f"redis://127.0.0.1:{new.port}/0", name="moved")
        server.publish_ok("storm", "After")
        events = server.http.get("/streams/storm/events", params={"after": cursor}, timeout=LIMIT).json()
        assert [event["entry"]["headline"] for event in events["events"]] == ["While it follows", "After"]
    finally:
        new.close()
        old.close()
