"""Checking keys whose hash is slow, without letting guesses take the processor.

A guess at such a key costs a fifth of a second, where any other costs microseconds. The limit of
its address slows down one client; this holds for any number of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from rest_framework.exceptions import APIException

from drf_api_keys import hashes

REST: Final = 9
"""After a wrong guess nothing is checked for this many times as long as the check took, so that
wrong guesses take at most a tenth of a process's time."""


class CheckedLater(APIException):
    status_code = 503
    default_detail = "This key cannot be checked at this moment. Try again in a few seconds."
    default_code = "checked_later"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.wait = math.ceil(seconds)  # DRF makes it Retry-After.


class SlowHashes:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._rests_until = 0.0

    def matches(self, hashed_key: str, key: str) -> bool:
        """Whether this is the key. A good key costs its time once, so no rest follows it.

        Raises CheckedLater while it rests, and ValueError when the hash cannot be checked here.
        """
        with self._lock:
            started = self._clock()
            if started < self._rests_until:
                raise CheckedLater(self._rests_until - started)
            is_good = hashes.matches(hashed_key, key)
            if not is_good:
                ended = self._clock()
                self._rests_until = ended + REST * (ended - started)
            return is_good

    def clear(self) -> None:
        self._rests_until = 0.0


slow_hashes = SlowHashes()
