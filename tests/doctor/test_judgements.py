"""An answer through a public address shows what the proxies on its way did."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.doctor import judgements
from pushserver.findings import Level


def echo(**fields: Any) -> dict[str, Any]:
    """A server believes this of a request that came through a sound proxy."""
    headers = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    usual = {"id": "a", "scheme": "https", "host": "live.example", "address": "203.0.113.9", "port": 0}
    return {**usual, "headers": headers, **fields}


def levels(answer: dict[str, Any], **sent: Any) -> dict[str, Level]:
    usual = {"scheme": "https", "netloc": "live.example", "port": 4321, "proxy": "nginx"}
    return {finding.subject: finding.level for finding in judgements.judge_echo(answer, **{**usual, **sent})}


WELL = {"host": Level.OK, "scheme": Level.OK, "address": Level.OK}


def test_a_request_that_arrives_as_it_was_sent_is_well() -> None:
    assert levels(echo()) == WELL
    assert levels(echo(host="live.example:443")) == WELL
    assert levels(echo(host="LIVE.example"), netloc="live.example:443") == WELL
    direct = echo(host="127.0.0.1:8000", scheme="http", address="127.0.0.1", port=4321, headers={})
    assert levels(direct, scheme="http", netloc="127.0.0.1:8000") == WELL


@pytest.mark.parametrize(
    ("fields", "subject", "level", "do"),
    [
        ({"host": "10.0.0.1:8000"}, "host", Level.ERROR, "proxy_set_header Host $http_host;"),
        ({"host": "live.example:80"}, "host", Level.ERROR, "proxy_set_header Host $http_host;"),
        ({"scheme": "http", "headers": {"x-forwarded-for": "203.0.113.9"}}, "scheme", Level.ERROR, "$scheme"),
        ({"scheme": "http", "address": "10.0.0.1"}, "scheme", Level.ERROR, "--forwarded 10.0.0.1"),
        ({"address": "10.0.0.1", "port": 999}, "address", Level.WARNING, "--forwarded 10.0.0.1"),
        ({"headers": {}, "address": "10.0.0.1", "port": 999}, "address", Level.WARNING, "X-Forwarded-For"),
    ],
)
def test_what_a_proxy_loses_is_named_with_its_line(fields: dict[str, Any], subject: str, level: Level, do: str) -> None:
    results = judgements.judge_echo(echo(**fields), scheme="https", netloc="live.example", port=4321, proxy="nginx")
    (finding,) = (finding for finding in results if finding.subject == subject)
    assert finding.level is level
    assert do in finding.do


def test_an_answer_that_comes_twice_is_from_a_cache() -> None:
    assert judgements.judge_caching({"id": "a"}, {"id": "b"}, "").level is Level.OK
    assert judgements.judge_caching({"id": "a"}, {"id": "a"}, "").level is Level.ERROR
    assert judgements.judge_age("/readyz", {"age": "0", "x-cache": "MISS"}, "") == []
    for shown in ({"age": "7"}, {"x-cache": "HIT"}, {"x-cache": "Hit from cloudfront"}):
        assert len(judgements.judge_age("/readyz", shown, "")) == 1


@pytest.mark.parametrize(
    ("server", "said"),
    [(100.5, ""), (98.5, ""), (102.9, ""), (97.0, "3 s behind"), (105.0, "4 s ahead of"), (0.0, "100 s behind")],
)
def test_a_clock_may_differ_by_two_seconds_and_the_way(server: float, said: str) -> None:
    finding = judgements.judge_clock(server, sent=100.0, received=101.0)
    assert finding.level is (Level.WARNING if said else Level.OK)
    assert said in finding.says


def test_readers_of_one_machine_are_on_several_workers() -> None:
    spread = [{"sent": 9}, {"sent": 7}, {"sent": 0}]
    assert "16 readers are on 2 of 3 workers" in judgements.judge_spread(spread, 16, "", is_direct=False).says
    bound = judgements.judge_spread([{"sent": 16}, {"sent": 0}], 16, "haproxy", is_direct=False)
    assert (bound.level, "leastconn" in bound.do) == (Level.WARNING, True)
    assert judgements.judge_spread([{"sent": 16}], 16, "", is_direct=False).level is Level.OK
    assert judgements.judge_spread([{"sent": 16}, {"sent": 0}], 16, "", is_direct=True).level is Level.OK


def test_a_cookie_is_a_proxy_s() -> None:
    assert judgements.judge_cookies([{}, {"set-cookie": ""}], "") == []
    (finding,) = judgements.judge_cookies([{}, {"set-cookie": "SRV=one; path=/"}, {"set-cookie": "SRV=two"}], "")
    assert "the cookie SRV;" in finding.says


def test_page_loads_are_compressed() -> None:
    assert judgements.judge_coding({"content-encoding": "gzip"}, "").level is Level.OK
    assert judgements.judge_coding({}, "caddy").do.startswith("Caddy: ")
