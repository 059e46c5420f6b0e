"""Refusals that are already known, so that a flooding client costs no round trip."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from throttling.limiter import Decision

LONGEST_SECONDS: Final = 1.0
"""After this long the store is asked again, in case an operator has changed something since."""
CONFIRMED_SECONDS: Final = 2.0
"""For this long that need not be, once it is known that nobody has."""


class RememberedRefusals:
    """The newest refusals of this process, at most `capacity`, by the limiter's key.

    Times are monotonic seconds. A refusal is dated from before the store was asked, so it is
    forgotten no later than the moment from which the store would admit. Whoever looks at
    throttling.changes about once a second can spare a flood its questions by `confirm`.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._refusals: OrderedDict[str, tuple[float, Decision]] = OrderedDict()
        self._lock = Lock()
        self._changes: int | None = None
        self._confirmed_at = -CONFIRMED_SECONDS

    def confirm(self, changes: int, read_at: float) -> None:
        """Forget everything unless `changes`, read since `read_at`, is what it was before."""
        if changes != self._changes:
            self.clear()
        self._changes, self._confirmed_at = changes, read_at

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
        is_confirmed = now - self._confirmed_at < CONFIRMED_SECONDS
        if age >= refusal.retry_after or (age >= LONGEST_SECONDS and not is_confirmed):
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


refusals: Final = RememberedRefusals(capacity=10_000)
