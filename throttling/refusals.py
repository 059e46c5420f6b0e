"""Refusals that are already known, so that a flooding client costs no round trip."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from throttling.limiter import Decision

LONGEST_SECONDS: Final = 1.0
"""After this long the store is asked again, so that an operator's reset takes effect."""


class RememberedRefusals:
    """The newest refusals of this process, at most `capacity`, by the limiter's key.

    Times are monotonic seconds. A refusal is dated from before the store was asked, so it is
    forgotten no later than the moment from which the store would admit.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._refusals: OrderedDict[str, tuple[float, Decision]] = OrderedDict()
        self._lock = Lock()

    def remember(self, key: str, refusal: Decision, asked_at: float) -> None:
        with self._lock:
            self._refusals[key] = (asked_at, refusal)
            self._refusals.move_to_end(key)
            if len(self._refusals) > self._capacity:
                self._refusals.popitem(last=False)

    def recall(self, key: str, now: float) -> Decision | None:
        found = self._refusals.get(key)
        if found is None:
            return None
        asked_at, refusal = found
        age = now - asked_at
        if age >= min(refusal.retry_after, LONGEST_SECONDS):
            with self._lock:
                self._refusals.pop(key, None)
            return None
        return Decision(
            False,
            refusal.remaining,
            round(refusal.retry_after - age, 3),
            round(max(refusal.reset_after - age, 0.001), 3),
        )

    def clear(self) -> None:
        with self._lock:
            self._refusals.clear()
