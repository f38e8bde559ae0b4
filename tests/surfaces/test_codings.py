from __future__ import annotations

import gzip
import random

import brotli
import pytest

from pushserver.surfaces.codings import ContentCoding, accepted, compress

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


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000])
def test_a_body_in_a_coding_is_the_body(size: int) -> None:
    body = random.Random(size).randbytes(size // 2) * 2
    assert gzip.decompress(compress(body, GZIP)) == body
    assert brotli.decompress(compress(body, BROTLI)) == body
    assert compress(body, IDENTITY) is body
