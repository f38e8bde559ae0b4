"""Encodings are bounded, the oldest go first, and accounts count what is kept."""

from __future__ import annotations

from pushserver.wire.accounts import Account, Encodings
from pushserver.wire.frames import Coding, EventFrame, Format

from ..support.frames import frame


def encoded_frames(encodings: Encodings, numbers: range) -> list[EventFrame]:
    events = [frame(n, size=1_000) for n in numbers]
    for event in events:
        event.encodings = encodings
        event.encoded(Format.JSON, Coding.EVENT)
    return events


def test_an_account_counts_into_another_until_it_is_closed() -> None:
    total = Account()
    first, second = Account(total), Account(total)
    first.grow(5)
    second.grow(7)
    second.grow(-3)
    assert (first.bytes, second.bytes, total.bytes) == (5, 4, 9)
    first.close()
    first.grow(100)
    first.close()
    assert total.bytes == 4


def test_frames_forget_what_they_made_before_all_others_beyond_the_bound() -> None:
    account = Account()
    encodings = Encodings(10_000, account)
    events = encoded_frames(encodings, range(1, 7))
    assert encodings.bytes == account.bytes <= 10_000
    assert [bool(event._bytes) for event in events] == [False, False, False, True, True, True]


def test_a_forgotten_encoding_is_made_again_the_same() -> None:
    encodings = Encodings(10**6, Account())
    (event,) = encoded_frames(encodings, range(1, 2))
    before = event.encoded(Format.JSON, Coding.EVENT)
    encodings.clear()
    again = event.encoded(Format.JSON, Coding.EVENT)
    assert again == before
    assert again is not before


def test_the_newest_frame_keeps_its_own_even_beyond_the_bound() -> None:
    encodings = Encodings(1, Account())
    (event,) = encoded_frames(encodings, range(1, 2))
    assert event.encoded(Format.JSON, Coding.EVENT) is event.encoded(Format.JSON, Coding.EVENT)


def test_frames_forget_after_two_ages_what_they_made() -> None:
    encodings = Encodings(10**6, Account())
    before = encoded_frames(encodings, range(1, 3))
    encodings.age()
    between = encoded_frames(encodings, range(3, 5))
    encodings.remove(before[0])
    encodings.age()
    assert [bool(event._bytes) for event in (*before, *between)] == [False, False, True, True]
    encodings.age()
    assert (encodings.bytes, [bool(event._bytes) for event in between]) == (0, [False, False])


def test_closed_encodings_refer_to_no_frame_and_frames_still_share_theirs() -> None:
    account = Account()
    encodings = Encodings(10**6, account)
    (event,) = encoded_frames(encodings, range(1, 2))
    encodings.close()
    assert event.encoded(Format.JSON, Coding.EVENT) is event.encoded(Format.JSON, Coding.EVENT)
    assert (encodings.bytes, account.bytes, len(encodings._newer)) == (0, 0, 0)
