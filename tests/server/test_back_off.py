from __future__ import annotations

from pushserver.server.back_off import MOST_BACK_OFF, STABLE, BackOff


def test_the_first_end_is_followed_at_once_and_each_next_one_later_up_to_a_bound() -> None:
    back_off = BackOff()
    assert [back_off.next(0.1) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert max(back_off.next(0.1) for _ in range(2_000)) == MOST_BACK_OFF
    assert back_off.next(STABLE) == 0, "it was stable"
    assert back_off.next(0.1) == 1
