"""If-Match and If-None-Match by RFC 9110, 13.1; Accept by RFC 9110, 12.5.1."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from pushserver.errors import PreconditionFailed
from pushserver.web.conditions import if_match, if_none_match, is_current, not_modified, prefers_html


@pytest.mark.parametrize(
    ("field", "etag", "matches"),
    [
        ('"a"', '"a"', True),
        ('W/"a"', '"a"', True),
        ('"a"', 'W/"a"', True),
        ('W/"a"', 'W/"a"', True),
        ('"x", W/"a" ,"y"', '"a"', True),
        (', ,"x",, "a",', '"a"', True),
        ('"x,a"', '"x,a"', True),
        ("*", '"a"', True),
        (" * ", '"a"', True),
        ('""', '""', True),
        ("", '"a"', False),
        ('"ab"', '"a"', False),
        ('"a"', '"ab"', False),
        ('"xa", "ax"', '"a"', False),
        ('"A"', '"a"', False),
        ('"x,a"', '"a"', False),
        ("a", '"a"', False),  # a tag stands in quotes
        ('"a', '"a"', False),
        ('w/"a"', '"a"', False),  # W is case-sensitive (8.8.3)
        ('"*"', '"a"', False),
        ('*, "a"', '"a"', False),
        ('"x" "a"', '"a"', False),
        ('"abc-gzip", *', '"abc"', False),
        ('"abc-gzip", *', '"abc-gzip"', False),  # a list has no *: the field is not valid
        ('"abc-gzip"', '"abc"', False),
        ('"abc"', '"abc-gzip"', False),
    ],
)
def test_a_condition_matches_the_tags_that_it_names(field: str, etag: str, matches: bool) -> None:
    assert if_none_match(field, etag) is matches


@pytest.mark.parametrize(
    ("field", "etag", "matches"),
    [
        ('"a"', '"a"', True),
        ('"x", "a"', '"a"', True),
        ("*", '"a"', True),
        ('W/"a"', '"a"', False),  # by strong comparison (8.8.3.2)
        ('"a"', 'W/"a"', False),
        ('W/"a"', 'W/"a"', False),
        ('"ab"', '"a"', False),
        ("a", '"a"', False),
        ('*, "a"', '"a"', False),
        ("", '"a"', False),
    ],
)
def test_if_match_names_a_tag_by_strong_comparison(field: str, etag: str, matches: bool) -> None:
    assert if_match(field, etag) is matches


def test_if_match_is_looked_at_before_if_none_match() -> None:
    assert is_current(None, None, '"a"') is False
    assert is_current('"a"', None, '"a"') is False
    assert is_current('"a"', '"a"', '"a"') is True
    with pytest.raises(PreconditionFailed):
        is_current('"x"', '"a"', '"a"')


def request(*fields: str) -> Request:
    return Request(
        {"type": "http", "method": "GET", "headers": [(b"if-none-match", field.encode()) for field in fields]}
    )


@pytest.mark.parametrize("fields", [('"a"',), ('"x"', 'W/"a"'), ("*",)])
def test_a_current_copy_is_answered_with_its_headers_alone(fields: tuple[str, ...]) -> None:
    answer = not_modified(request(*fields), {"ETag": '"a"', "Cache-Control": "no-cache"})
    assert answer is not None
    assert (answer.status_code, answer.body) == (304, b"")
    assert (answer.headers["etag"], answer.headers["cache-control"]) == ('"a"', "no-cache")


@pytest.mark.parametrize("fields", [(), ('"x"', '"y"'), ('"aa"',)])
def test_any_other_copy_is_not(fields: tuple[str, ...]) -> None:
    assert not_modified(request(*fields), {"ETag": '"a"'}) is None


def test_a_long_field_that_is_not_valid_takes_no_long_time_to_refuse() -> None:
    assert not if_none_match('"x"' + ", " * 30_000 + "!", '"a"')


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], True),
        (["text/html"], True),
        (["TEXT/HTML;charset=utf-8"], True),
        (["application/json;q=0.5, text/*"], True),
        (["application/json, text/html"], True),
        (["image/png", "text/html"], True),
        ([], False),
        (["*/*"], False),
        (["application/json"], False),
        (["text/html;q=0"], False),
        (["text/html;q=0.000, */*"], False),
        (["text/html;q=0.2, application/json"], False),
        (["text/html;q=0.2, */*;q=0.3"], False),
        (["text/html;q=2"], False),
        (["text/html;q=0, application/xhtml+xml"], False),
        (["text/html;q=0", "text/*;q=1"], False),
        (["text/html; Q=0.5 ; q=1, */*;q=0.4"], True),
        (["text/htmlx"], False),
        (['text/plain;a="text/html"'], False),
        ([",;,=;q=,text/" * 5_000], False),
    ],
)
def test_html_is_for_clients_that_accept_it_no_less_than_json(accept: list[str], is_html: bool) -> None:
    headers = Headers(raw=[(b"accept", value.encode()) for value in accept])
    assert prefers_html(headers) is is_html
