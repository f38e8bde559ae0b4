"""Rates: how many readers a worker accepts a second, and how many requests a key or an address may make.

RateLimit and KeyedRates are pure: the clock is an argument.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from ..errors import Fault, TooMany

BURST = 1.0  # seconds' worth of places that a limit holds in store: a small storm is accepted at once
LONGEST = 30.0  # seconds that a reader has to wait, at most
KEYED_BURST = 2.0  # seconds' worth of places of a key: a page and all that belongs to it come at once


class RateLimit:
    """RateLimit accepts `rate` readers a second.

    Where no place is free, each further reader gets a later turn, so that they come back as evenly as they can be
    accepted: at a rate of 10, the first readers of a storm at once, the next after 0.1 s, 0.2 s, 0.3 s.
    """

    def __init__(self, rate: float) -> None:
        self._each = 1.0 / rate
        self._taken_until = float("-inf")  # the instant up to which places are taken
        self._promised_until = float("-inf")  # the instant up to which they are taken or promised

    def wait(self, now: float) -> float:
        """Take a place and return 0.0; where none is free, return the seconds after which to come back."""
        taken = max(self._taken_until, now - BURST) + self._each
        if taken <= now:
            self._taken_until = taken
            return 0.0
        self._promised_until = min(max(self._promised_until, now) + self._each, now + LONGEST)
        return self._promised_until - now


class KeyedRates:
    """KeyedRates gives each key `rate` places a second (the generic cell rate algorithm, ITU-T I.371, A).

    It remembers the `size` keys that were used last: whoever comes with ever new keys must not fill the memory.
    """

    def __init__(self, rate: float, size: int) -> None:
        self._rate = rate
        self._size = size
        self._taken_until: OrderedDict[str, float] = OrderedDict()  # as in RateLimit, the most recently used key last

    def wait(self, key: str, now: float) -> float:
        """Take a place of a key and return 0.0; where none is free, return the seconds after which one is."""
        taken = max(self._taken_until.pop(key, -math.inf), now - KEYED_BURST) + 1 / self._rate
        is_free = taken <= now
        self._taken_until[key] = taken if is_free else taken - 1 / self._rate
        if len(self._taken_until) > self._size:
            self._taken_until.popitem(last=False)
        return 0.0 if is_free else taken - now


class Bucket:
    """Bucket is a token bucket: it fills at a key's rate up to two seconds' worth, and may be overdrawn once.

    A key of less than a request in two seconds has room for one.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = self._room = max(KEYED_BURST * rate, 1.0)
        self._at = time.monotonic()

    def take(self, rate: float) -> None:
        """Take one request, at `rate` requests a second. Raises TooMany where the bucket is empty."""
        self._rate, self._room = rate, max(KEYED_BURST * rate, 1.0)
        self._fill()
        if self._left < 1:
            fault = Fault("Authorization", f"at most {rate:g} requests a second", "more")
            retry_after = str(math.ceil((1 - self._left) / rate))
            headers = {"Retry-After": retry_after, **self.fields()}
            raise TooMany("This publish key exceeds its rate.", fault, headers=headers)
        self._left -= 1

    def _fill(self) -> None:
        at = time.monotonic()
        self._left = min(self._room, self._left + (at - self._at) * self._rate)
        self._at = at

    def fields(self) -> dict[str, str]:
        """The header fields that tell a publisher its limit, as draft-ietf-httpapi-ratelimit-headers-10 has them.

        `q` requests may come in `w` seconds; `r` may come now, and after `t` seconds `q` again. Each worker counts by
        itself.
        """
        self._fill()
        room, left = math.floor(self._room), max(math.floor(self._left), 0)
        window, full = math.ceil(self._room / self._rate), math.ceil((self._room - self._left) / self._rate)
        return {"RateLimit-Policy": f'"key";q={room};w={window}', "RateLimit": f'"key";r={left};t={full}'}

    def charge(self, count: int) -> None:
        """Take `count` more, as for the lines of a batch, which are counted after the request was accepted."""
        self._left -= count
