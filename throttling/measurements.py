"""What the limiter goes through in this process, for whoever wants to publish it.

| count | of |
|---|---|
| `script <= <bound>` | calls of the script answered within this of BOUNDS, and not the one before |
| `script > all` | answered later |
| `script us` | microseconds, of all of these together |
| `store failures` | questions that the store did not answer |
| `breaker openings` | times that the process began to decide without the store |
| `decisions without store` | hits decided so |
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from threading import Lock
from typing import Final

BOUNDS: Final = (0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1)
"""Of a round trip, in seconds."""
WITHIN: Final = (*(f"script <= {bound}" for bound in BOUNDS), "script > all")
MICROSECONDS: Final = "script us"
FAILURES: Final = "store failures"
OPENINGS: Final = "breaker openings"
WITHOUT_STORE: Final = "decisions without store"


class Measurements:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()

    def answered(self, seconds: float) -> None:
        within = WITHIN[bisect_left(BOUNDS, seconds)]
        with self._lock:
            self._counts[within] += 1
            self._counts[MICROSECONDS] += round(seconds * 1e6)

    def count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def take(self) -> Counter[str]:
        """What came since the last time."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken


measurements: Final = Measurements()

# The parent publishes what it had gathered.
os.register_at_fork(after_in_child=measurements.clear)
