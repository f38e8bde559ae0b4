"""A line of the log is one line: whatever a text from outside has in it is escaped, cut, and without secrets."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pushserver import logs
from pushserver.logs import REQUEST, RequestMark


def formatted(message: str, *args: Any, error: BaseException | None = None) -> str:
    """A record as the log has it, without its time."""
    trace = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("library", logging.WARNING, __file__, 1, message, args, trace)
    return logs.Formatter().format(record).split(" WARNING library ", 1)[1]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/a\r\nWARNING forged", r"/a\r\nWARNING forged"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("a\u2028b\u2066c\u200b", r"a\u2028b\u2066c\u200b"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("Zürich – é 東京 😀", "Zürich – é 東京 😀"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_a_text_from_outside_is_escaped_as_argument_and_as_message(text: str, escaped: str) -> None:
    assert formatted("path %s", text) == f"path {escaped}"
    assert formatted("failed: %s", ValueError(text)) == f"failed: {escaped}"
    assert formatted(f"uvicorn says {text}") == f"uvicorn says {escaped}"


@given(st.text(), st.text())
def test_whatever_is_logged_is_one_visible_line(message: str, argument: str) -> None:
    line = formatted(message.replace("%", "") + "%s %r", argument, argument)
    assert "".join(line.splitlines()) == line
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in line)


def test_a_long_text_is_cut_and_a_text_of_the_program_s_own_is_not() -> None:
    assert formatted("path %s", "x" * 5_000) == f"path {'x' * 200}… (5000 characters)"
    assert formatted("%r", OSError("x" * 5_000)).endswith("characters)")
    assert formatted("settings: %s", logs.Own("x" * 5_000)) == f"settings: {'x' * 5_000}"
    assert len(formatted("x" * 100_000)) < 9_000
    assert formatted("pid %d, %.1f s, %s", 7, 0.25, None) == "pid 7, 0.2 s, None"


def test_the_lines_of_a_traceback_stay_and_its_texts_are_escaped() -> None:
    try:
        raise ValueError("one\x1b[2J")
    except ValueError as error:
        text = formatted("failed", error=error)
    first, *_, last = text.split("\n")
    assert (first, last) == ("failed", r"ValueError: one\x1b[2J")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://full:p:/@#?%w@127.0.0.1:1/0", "redis://full:***@127.0.0.1:1/0"),
        ("redis://:pa@ss@host:6379", "redis://:***@host:6379"),
        ("rediss://a-token@host", "rediss://***@host"),
        ("redis+sentinel://u:a?b@one:1,two:2/name/0?db=1", "redis+sentinel://u:***@one:1,two:2/name/0?db=1"),
        ("redis+sentinel://one:1/name?sentinel_password=a#b&db=1", "redis+sentinel://one:1/name?sentinel_password=***&db=1"),
        ("redis+cluster://u:p@one:1,two:2", "redis+cluster://u:***@one:1,two:2"),
        ("unix:///run/a@b.sock?db=0&password=x", "unix:///run/a@b.sock?db=0&password=***"),
        ("unix://u:p/w@/run/a.sock", "unix://u:***@/run/a.sock"),
        ("redis://host/0?pass%77ord=x", "redis://host/0?pass%77ord=***"),
        ("https://u:p@news.example/@ada?token=x&q=1", "https://u:***@news.example/@ada?token=***&q=1"),
        ("https://news.example/@ada", "https://news.example/@ada"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
    ],
)  # fmt: skip
def test_a_secret_is_hidden_wherever_it_stands_in_an_address(address: str, shown: str) -> None:
    assert logs.hide_secrets(address) == shown
    assert formatted("store %s is away", address) == f"store {shown} is away"
    assert formatted(f"store {address} away") == f"store {shown} away"


def test_a_secret_is_hidden_in_an_address_without_a_scheme() -> None:
    assert logs.hide_secrets("user:p/w@host:6379") == "user:***@host:6379"


@given(st.text(st.characters(exclude_categories=["Zs", "Zl", "Zp", "Cc", "Cs"]), min_size=8))
def test_whatever_a_password_is_it_is_hidden(password: str) -> None:
    for address in (f"redis://user:{password}@127.0.0.1:6379/0", f"redis+sentinel://:{password}@one:1,two:2/name"):
        assume(password not in address.replace(password, "", 1))  # such as `sentinel`, which stands there anyway
        assert password not in logs.hide_secrets(address)
        assert password not in formatted("cannot start: store %s: %s", address, ValueError(address))


def test_a_secret_is_hidden_before_the_text_is_cut() -> None:
    assert "hunter" not in formatted("%s", "redis://user:" + "hunter2" * 100 + "@host")


def record(message: str, *args: Any, error: BaseException | None = None) -> logging.LogRecord:
    trace = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("library", logging.WARNING, __file__, 1, message, args, trace)


def marked(formatter: logging.Formatter, mark: RequestMark | None, entry: logging.LogRecord) -> str:
    """A line that is logged while a request is served."""

    def line() -> str:
        REQUEST.set(mark)
        return formatter.format(entry)

    return copy_context().run(line)


def test_a_line_for_people_ends_with_the_process_and_the_request() -> None:
    mark = RequestMark(b"abc-1", "192.0.2.1")
    line = marked(logs.Formatter("worker"), mark, record("late"))
    assert line.endswith(f" late [worker {os.getpid()}, request abc-1, from 192.0.2.1]")
    assert marked(logs.Formatter("worker"), None, record("late")).endswith(f" late [worker {os.getpid()}]")
    assert marked(logs.Formatter(), None, record("late")).endswith(" late")


def test_a_line_for_programs_is_json() -> None:
    mark = RequestMark(b"abc-1", "192.0.2.1\nforged")
    line = marked(logs.JsonFormatter("worker"), mark, record('a "quoted" %s', "one\ntwo", error=ValueError("x\x1b")))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("at").endswith("Z")
    assert fields == {
        "level": "warning",
        "logger": "library",
        "message": r'a "quoted" one\ntwo',
        "process": "worker",
        "pid": os.getpid(),
        "request": "abc-1",
        "client": r"192.0.2.1\nforged",
        "error": r"ValueError: x\x1b",
    }


@given(st.text(), st.text())
def test_whatever_is_logged_is_one_line_of_json(message: str, argument: str) -> None:
    line = logs.JsonFormatter("worker").format(record(message.replace("%", "") + "%s", argument))
    assert json.loads(line)["message"] is not None
    assert "".join(line.splitlines()) == line


@pytest.mark.parametrize("given_id", [b"", b"a b", "ü".encode(), b"x" * 129, b"a\x00", b"a\nb"])
def test_an_id_that_is_not_visible_ascii_or_too_long_is_not_taken(given_id: bytes) -> None:
    one, other = RequestMark(given_id), RequestMark(given_id)
    assert one.id != other.id
    assert one.id.encode() != given_id


@pytest.mark.parametrize("given_id", [b"7f3a", b"Root=1-67891233-abcdef012345678912345678", b"x" * 128])
def test_an_id_of_a_proxy_is_taken(given_id: bytes) -> None:
    assert RequestMark(given_id).id.encode() == given_id


@pytest.mark.parametrize(
    ("form", "is_terminal", "kind"),
    [
        ("auto", True, logs.Formatter),
        ("auto", False, logs.JsonFormatter),
        ("human", False, logs.Formatter),
        ("json", True, logs.JsonFormatter),
    ],
)
def test_the_log_is_for_people_on_a_terminal_alone(
    form: str, is_terminal: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert type(logs.formatter(form, "worker")) is kind
