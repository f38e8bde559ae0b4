from __future__ import annotations

import gzip
import random

import brotli
import pytest

from pushserver.surfaces.codings import STEP, ContentCoding, accepted, compress

BROTLI, GZIP, IDENTITY = ContentCoding.BROTLI, ContentCoding.GZIP, ContentCoding.IDENTITY


@pytest.mark.parametrize(
    ("field", "coding"),
    [
        (b"", IDENTITY),
        (b"gzip, deflate, br, zstd", BROTLI),
        (b"gzip, deflate", GZIP),
        (b"GZIP", GZIP),
        (b"x-gzip", GZIP),
        (b"br;q=0, gzip", GZIP),
        (b"br;q=0.5, gzip;q=0.8", GZIP),
        (b"gzip;q=0", IDENTITY),
        (b"*", BROTLI),
        (b"*;q=0", IDENTITY),
        (b"br;q=0, *", GZIP),
        (b"identity, gzip;q=0.5", IDENTITY),
        (b"identity;q=0.5, gzip;q=1", GZIP),
        (b"gzip;q=nonsense", IDENTITY),
        (b"gzip;level=1", IDENTITY),
        (b"gzip;q=2", IDENTITY),
        (b"\xff, ,;q=", IDENTITY),
        (b"brotli", IDENTITY),
    ],
)
def test_the_client_chooses_the_coding(field: bytes, coding: ContentCoding) -> None:
    assert accepted(field) is coding


def compressed(body: bytes, coding: ContentCoding) -> tuple[bytes, int]:
    """The body in a coding, and in how many steps it was made."""
    steps, count = compress(body, coding), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


@pytest.mark.parametrize("size", [0, 1, 1_000, 300_000])
def test_a_body_in_a_coding_is_the_body(size: int) -> None:
    body = random.Random(size).randbytes(size // 2) * 2
    assert gzip.decompress(compressed(body, GZIP)[0]) == body
    assert brotli.decompress(compressed(body, BROTLI)[0]) == body
    assert compressed(body, IDENTITY)[0] is body


@pytest.mark.parametrize("coding", [GZIP, BROTLI])
def test_a_body_is_compressed_in_steps_and_as_well_as_at_once(coding: ContentCoding) -> None:
    words = [f"word{number}" for number in range(2_000)]
    body = " ".join(random.Random(1).choices(words, k=40_000)).encode()
    data, count = compressed(body, coding)
    assert count == -(-len(body) // STEP)
    at_once = brotli.compress(body, quality=1) if coding is BROTLI else gzip.compress(body, 1)
    assert len(data) < 1.05 * len(at_once)
