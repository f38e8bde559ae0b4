"""A bad field is refused in the words of this interface, none of which is from a library."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pushserver.content import schema, validation
from pushserver.errors import Invalid

SURROGATE = "text without a surrogate, U+D800 to U+DFFF, that stands alone"


@pytest.mark.parametrize(
    ("kind", "value", "field", "expected", "got"),
    [
        (schema.NewEntryIn, '{"headline": "\\ud800"}', "headline", SURROGATE, "\\ud800"),
        (schema.NewEntryIn, '{"headline": "a", "tags": ["b", "\\udfff"]}', "tags.1", SURROGATE, "\\udfff"),
        (
            schema.NewEntryIn,
            '{"headline": "a", "bylines": [{"name": "\\udc00"}]}',
            "bylines.0.name",
            SURROGATE,
            "\\udc00",
        ),
        (schema.PagePut, '{"headline": "a", "dek": "\\ud83d"}', "dek", SURROGATE, "\\ud83d"),
        (schema.NewEntryIn, '{"headline": 1.5}', "headline", "a string", "1.5 (float)"),
        (schema.DeliveryIn, '{"n": "x"}', "n", "a whole number", "x"),
        (schema.DeliveryIn, '{"n": "0"}', "n", "at least 1", "0"),
        (schema.DeliveryIn, '{"wait": "x"}', "wait", "a number", "x"),
        (schema.DeliveryIn, '{"wait": "99"}', "wait", "at most 10", "99"),
    ],
)
def test_a_refusal_has_no_words_of_a_library(kind: Any, value: str, field: str, expected: str, got: str) -> None:
    with pytest.raises(Invalid) as caught:
        validation.read(kind, json.loads(value))
    (fault,) = caught.value.faults
    assert fault == (field, expected, got)


@pytest.mark.parametrize(
    ("kind", "value", "known"),
    [
        (
            schema.NewEntryIn,
            {"title": "x"},
            "headline, blocks, bylines, tags, flags, published_at, sort_at, body",  # and no correction, nor an id
        ),
        (schema.EndIn, {"following": {}}, "next"),
    ],
)
def test_a_field_that_is_not_known_is_refused_with_those_that_are(kind: Any, value: Any, known: str) -> None:
    with pytest.raises(Invalid) as caught:
        validation.read(kind, value)
    assert caught.value.faults[0].expected == f"only known fields, which are {known}"
