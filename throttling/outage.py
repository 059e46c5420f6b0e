"""What decides when the store cannot: a breaker in front of it and a counter in the process."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import Final

from django.utils import timezone

from throttling.limiter import Decision
from throttling.measurements import FAILURES, OPENINGS, measurements
from throttling.rates import RateLimit

logger = logging.getLogger(__name__)

FAILURES_TO_OPEN: Final = 3
PROBE_SECONDS: Final = 1.0


class Breaker:
    """Closed while the store answers; after three failures in a row, open: one probe a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._failures = 0
        self._next_probe = 0.0
        self._opened_at: datetime | None = None

    @property
    def opened_at(self) -> datetime | None:
        """Since when it is open; None while it is closed."""
        return self._opened_at if self.is_open else None

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN

    def may_ask(self) -> bool:
        """Whether this caller is to ask the store; while open, one caller a second is the probe."""
        if not self.is_open:
            return True
        with self._lock:
            if self._clock() < self._next_probe:
                return False
            self._next_probe = self._clock() + PROBE_SECONDS
            return True

    def answered(self) -> None:
        if self._failures:
            if self.is_open:
                logger.warning("The store answers again; limits are exact again.")
            self._failures = 0

    def failed(self, error: Exception) -> None:
        measurements.count(FAILURES)
        with self._lock:
            self._failures += 1
            self._next_probe = self._clock() + PROBE_SECONDS
            if self._failures == FAILURES_TO_OPEN:
                measurements.count(OPENINGS)
                self._opened_at = timezone.now()
                logger.error("The store does not answer (%s); deciding without it.", error)


class LocalCounter:
    """The sliding-window counter of throttling.limiter in this process's memory.

    Holds the identifiers seen last, at most `capacity`. `clock` gives milliseconds.
    """

    def __init__(
        self,
        capacity: int = 10_000,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._lock = Lock()
        self._admitted: OrderedDict[tuple[str, RateLimit], deque[tuple[int, int]]] = OrderedDict()

    def hit(self, identifier: str, rate: RateLimit) -> Decision:
        """Count a hit of one unit if it fits. Each entry is a slot and the cost it admitted."""
        now = self._clock()
        current = now // rate.slot_ms
        with self._lock:
            slots = self._admitted.setdefault((identifier, rate), deque())
            self._admitted.move_to_end((identifier, rate))
            if len(self._admitted) > self._capacity:
                self._admitted.popitem(last=False)
            while slots and slots[0][0] < current - rate.slots:
                slots.popleft()
            used = sum(cost for _, cost in slots)
            allowed = used < rate.limit
            if allowed:
                used += 1
                if slots and slots[-1][0] == current:
                    slots[-1] = (current, slots[-1][1] + 1)
                else:
                    slots.append((current, 1))
            reset_after = ((slots[0][0] + rate.slots + 1) * rate.slot_ms - now) / 1000
        return Decision(allowed, rate.limit - used, 0.0 if allowed else reset_after, reset_after)

    def clear(self) -> None:
        with self._lock:
            self._admitted.clear()


def share_of(rate: RateLimit, processes: int) -> RateLimit:
    """What one of `processes` may admit alone: together at most max(limit, processes)."""
    return RateLimit(max(1, rate.limit // processes), rate.window)
