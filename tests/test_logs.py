"""A line of the log is one line: whatever a text from outside has in it is escaped, cut, and without secrets."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver import logs


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
        assert password not in logs.hide_secrets(address)
        assert password not in formatted("cannot start: store %s: %s", address, ValueError(address))


def test_a_secret_is_hidden_before_the_text_is_cut() -> None:
    assert "hunter" not in formatted("%s", "redis://user:" + "hunter2" * 100 + "@host")
