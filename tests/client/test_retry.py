"""The wait before the next attempt is what the server asks for, within reason."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.client import PublishError, Rejected, Unreached
from pushserver.client.retry import ATTEMPTS, DELAY_MOST, NDJSON, Attempts, Call, in_time, judge, retry_after

CALL = Call("PUT", "/streams/storm", b"{}", "key-1")


@given(st.text())
def test_no_header_can_break_the_wait(header: str) -> None:
    assert 0 <= retry_after(header) <= 60


def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert 1 <= retry_after((datetime.now(UTC) + timedelta(seconds=40)).strftime("%a %b %d %H:%M:%S %Y")) <= 40
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (None, 0, 0),
        ("3", 3, 3),
        ("0.5", 0.5, 0.5),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("nan", 0, 0),
        ("1e999", 60, 60),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(hours=1)), 60, 60, id="in an hour"),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_a_server_is_given_the_time_it_asks_for_within_reason(header: str | None, least: float, most: float) -> None:
    assert least <= retry_after(header) <= most


def answered(status: int, text: str = "{}", **headers: str) -> httpx2.Response:
    return httpx2.Response(status, text=text, headers=headers)


def test_an_answer_says_whether_the_key_was_used_before() -> None:
    assert judge(CALL, answered(200), 0) == {"replayed": False}
    assert judge(CALL, answered(200, **{"Idempotent-Replayed": "true"}), 0) == {"replayed": True}
    assert judge(CALL._replace(key=""), answered(200), 0) == {}


@pytest.mark.parametrize(
    "response", [httpx2.ConnectError("refused"), answered(429), answered(502), answered(503), answered(504)]
)
def test_what_may_pass_is_tried_again_until_the_last_attempt(response: httpx2.Response | httpx2.ConnectError) -> None:
    for attempt in range(ATTEMPTS - 1):
        wait = judge(CALL, response, attempt)
        assert isinstance(wait, float)
        assert 0 <= wait <= DELAY_MOST
    with pytest.raises(Unreached) as error:
        judge(CALL, response, ATTEMPTS - 1)
    assert error.value.idempotency_key == "key-1"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (httpx2.ConnectError("refused"), "was not reached: refused"),
        (httpx2.ConnectTimeout(""), "was not reached: ConnectTimeout"),
        (httpx2.PoolTimeout("none free"), "was not reached: none free"),
        (httpx2.ReadTimeout(""), "gave no answer: ReadTimeout"),
        (httpx2.RemoteProtocolError("it hung up"), "gave no answer: it hung up"),
    ],
)
def test_a_server_that_was_sent_the_request_is_not_called_unreached(
    error: httpx2.TransportError, says: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pushserver.client.retry.ATTEMPTS", 2)
    attempts = Attempts(CALL)
    attempts.judge(error)
    assert caplog.messages[0].startswith(f"the server {says}; attempt 2 of 2")
    with pytest.raises(Unreached) as unreached:
        attempts.judge(error)
    assert str(unreached.value).startswith(f"The server {says}\n")
    assert unreached.value.may_be_stored is ("no answer" in says)


def test_a_batch_of_which_one_line_may_pass_is_tried_again() -> None:
    lines = answered(200, '{"status": 201}\n{"status": 503, "detail": "later"}\n', **{"Content-Type": NDJSON})
    assert isinstance(judge(CALL._replace(media_type=NDJSON), lines, 0), float)


def test_a_proxy_is_not_taken_for_the_server() -> None:
    with pytest.raises(PublishError, match="not pushserver's") as error:
        judge(CALL, answered(200, "<html>Welcome to the hotel"), 0)
    assert "Welcome to the hotel" in str(error.value)
    with pytest.raises(PublishError, match="not pushserver's"):
        judge(CALL, answered(200, "[" * 100_000), 0)
    with pytest.raises(Rejected, match="405 Method Not Allowed"):
        judge(CALL, answered(405, "<html>"), 0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "at once"), (0.1, "at once"), (0.11, "in 0.1 s"), (4.96, "in 5.0 s")]
)
def test_a_wait_is_said_to_be_none_where_a_decimal_would_not_show_it(seconds: float, said: str) -> None:
    assert in_time(seconds) == said
