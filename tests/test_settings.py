"""Settings from flags and from the environment: what is given is made normal, or is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest

from pushserver import settings
from pushserver.settings import Settings

from .support.commands import WRONG_USAGE
from .support.server import KEY, Run, Running


def parsed(*arguments: str) -> Settings:
    """The settings of `pushserver serve`, from these flags and the environment."""
    options: list[click.Parameter] = [settings.option(field.name) for field in settings.KNOBS]
    command = click.Command("serve", callback=lambda **chosen: chosen, params=options)
    chosen: dict[str, Any] = command.main([*arguments], standalone_mode=False)
    return Settings(**chosen)


def refusal(*arguments: str) -> str:
    """The sentence with which flags or variables are refused."""
    with pytest.raises(click.UsageError) as refused:
        parsed(*arguments)
    return refused.value.format_message()


def test_a_key_from_a_file_has_no_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHSERVER_KEY", f"{KEY}\r\n")
    assert parsed().key == KEY
    assert parsed("--key", f" {KEY} ").key == KEY


def test_a_key_that_is_too_short_does_not_start(run: Run) -> None:
    done = run("serve", "--key", "my-secret-key")
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "--key" in done.stderr
    assert "openssl rand -hex 24" in done.stderr
    assert "my-secret-key" not in done.stderr


def test_a_key_that_is_refused_names_its_variable_and_not_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHSERVER_KEY", "ein kurzer Schlüssel")
    said = refusal()
    assert "PUSHSERVER_KEY" in said
    assert "Schlüssel" not in said


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in settings.KNOBS:
        for variable in settings.variables(field.name):
            monkeypatch.setenv(variable, "" if field.name != "port" else " \n")
    assert parsed() == Settings()


def test_the_line_end_of_a_file_is_no_part_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000\r")
    monkeypatch.setenv("PUSHSERVER_DATA", "/srv/my data \r\n")
    monkeypatch.setenv("PUSHSERVER_LOG_LEVEL", "debug\r\n")
    chosen = parsed()
    assert (chosen.port, chosen.data, chosen.log_level) == (9000, "/srv/my data ", "debug")


def test_the_variables_of_a_service_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHSERVER_PORT", "tcp://10.0.0.7:80")
    assert parsed().port == 8000
    monkeypatch.setenv("PORT", "9000")
    assert parsed().port == 9000
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    assert settings.unknown_variables({f"PUSHSERVER_{name}": "x" for name in links}) == []


def test_a_variable_that_is_no_setting_is_named_with_the_nearest() -> None:
    every = {name: "" for field in settings.KNOBS for name in settings.variables(field.name)}
    others = {"PUSHSERVER_WORKRES": "4", "PUSHSERVER_ORIGIN": "", "PUSHSERVER_QQQQ": "\n", "PATH": ""}
    assert settings.unknown_variables({**every, "PUSHSERVER_URL": "", **others}) == [
        "PUSHSERVER_ORIGIN is no setting, and has no effect; the nearest is PUSHSERVER_ORIGINS",
        "PUSHSERVER_QQQQ is no setting, and has no effect",
        "PUSHSERVER_WORKRES is no setting, and has no effect; the nearest is PUSHSERVER_WORKERS",
    ]


def test_an_unknown_variable_is_named_at_start(start: Callable[..., Running]) -> None:
    env = {
        "PUSHSERVER_WORKRES": "4",
        "WEB_CONCURRENCY": "",
        "PORT": "",
        "REDIS_URL": "",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    server = start("--workers", "2", env=env)
    assert server.log.count("PUSHSERVER_WORKRES is no setting") == 1
    assert "the nearest is PUSHSERVER_WORKERS" in server.log
    assert "ended with status" not in server.log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", ""), "0.0.0.0 for all interfaces"),
        (("--data", ""), "expected a text"),
        (("--origins", "https://news.example/live"), "https://news.example/live"),
        (("--forwarded", "nginx"), "nginx"),
        (("--heartbeat", "nan"), "expected a number"),
        (("--drain-window", "inf"), "range"),
        (("--lifetime", "1"), "expected 0, or 5 or more"),
        (("--host", "unix:run/push.sock"), "absolute path"),
        (("--port", "65536"), "range"),
        (("--workers", "0"), "range"),
        (("--ring-bytes", "99999999999"), "range"),
        (("--log-level", "loud"), "loud"),
        (("--redis", "redis://u:hunter2#@host"), "%23"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_its_name(arguments: tuple[str, str], said: str) -> None:
    message = refusal(*arguments)
    assert arguments[0] in message
    assert said in message
    assert "hunter2" not in message


def test_a_bad_variable_is_a_sentence_and_no_traceback(run: Run) -> None:
    for variable in ("PUSHSERVER_HEARTBEAT", "WEB_CONCURRENCY", "PORT", "REDIS_URL", "FORWARDED_ALLOW_IPS"):
        done = run("serve", **{variable: "two words"})
        assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
        assert variable in done.stderr


def test_the_window_of_a_drain_has_its_old_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("--drain", "7").drain_window == 7.0
    monkeypatch.setenv("PUSHSERVER_DRAIN", "8")
    assert parsed().drain_window == 8.0
    assert settings.unknown_variables({"PUSHSERVER_DRAIN": "8"}) == []


def test_a_worker_gets_the_settings_and_none_of_the_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "")
    monkeypatch.setenv("HOME", "/srv")
    chosen = parsed("--origins", "https://News.example/", "--heartbeat", "0.5")
    passed = settings.worker_environment(chosen)
    assert "WEB_CONCURRENCY" not in passed
    assert passed["HOME"] == "/srv"
    monkeypatch.delenv("WEB_CONCURRENCY")
    for name, value in settings.environment(chosen).items():
        monkeypatch.setenv(name, value)
    assert parsed() == chosen


def test_the_list_of_settings_shows_no_secret() -> None:
    shown = settings.shown(Settings(key=KEY, redis="redis://full:p:/@#?%w@127.0.0.1:1/0"))
    assert "key=(set)*" in shown
    assert "redis='redis://full:***@127.0.0.1:1/0'*" in shown
    assert KEY not in shown


def test_a_switch_stands_alone_or_has_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = parsed("--show-readers", "--access-log", "--port", "9000")
    assert (chosen.show_readers, chosen.access_log, chosen.port) == (True, True, 9000)
    chosen = parsed("--access-log", "false", "--heal=no", "--deflate")
    assert (chosen.access_log, chosen.heal, chosen.deflate) == (False, False, True)
    monkeypatch.setenv("PUSHSERVER_ACCESS_LOG", "true")
    assert parsed().access_log
    assert not parsed("--access-log", "false").access_log
    assert "'maybe' is not a valid boolean" in refusal("--access-log", "maybe")
