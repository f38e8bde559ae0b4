"""The texts of settings: each is made normal or refused by name."""

from __future__ import annotations

import pytest

from pushserver import values

from .support.server import KEY


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"\t {KEY} \r\n", "!" * 16, "~" * 512])
def test_a_publish_key_is_taken_without_the_space_around_it(text: str) -> None:
    assert values.publish_key(text) == text.strip()


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("k", "got 1"),
        ("", "got 0"),
        ("fifteen-letters", "got 15"),
        ("x" * 513, "got 513"),
        ("two words of a key", "got others"),
        ("schlüssel-schlüssel", "got others"),
        ("one\ntwo\nthree\nfour", "got others"),
        ("0123456789abcdef\x00", "got others"),
    ],
)
def test_any_other_publish_key_is_refused_and_not_repeated(text: str, got: str) -> None:
    with pytest.raises(ValueError, match="openssl rand -hex 24") as refused:
        values.publish_key(text)
    assert got in str(refused.value)
    assert len(text) < 2 or text not in str(refused.value)
