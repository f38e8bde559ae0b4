"""A reader parses frames wherever the bytes are cut."""

from __future__ import annotations

from pushserver.bench.reader import CLOSE, PING, Chunk, parse_frames, stamp

from ..support.faulty import frame


def test_a_chunk_is_read_the_same_wherever_it_is_cut() -> None:
    marks = [stamp(7, 1_000), stamp(8, 2_000)]
    pieces = [frame(1, f"{stamp}{'x' * size}".encode()) for stamp, size in zip(marks, (20, 300), strict=True)]
    data = pieces[0] + frame(PING, b"p") + pieces[1] + frame(CLOSE, (1012).to_bytes(2))
    whole = parse_frames(data)
    assert whole == Chunk(1 << 7 | 1 << 8, (1_000, 2_000), b"", (b"p",), 1012)
    for at in range(len(data)):
        first = parse_frames(data[:at])
        second = parse_frames(first.rest + data[at:])
        assert first.numbers | second.numbers == whole.numbers
        assert first.due + second.due == whole.due
        assert first.pings + second.pings == whole.pings
        assert (first.close or second.close, second.rest) == (1012, b"")
