"""How often each network rule decided on a request, and when it last did.

Gathered in the process and written beside the requests into one hash of the store, of which the
fields `<rule> n` are requests and `<rule> at` seconds since 1970. A write that failed is tried
again; one whose answer was lost counts twice.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redis import Redis

STORE_KEY: Final = "throttling:matches"


@dataclass(frozen=True, slots=True)
class Matches:
    count: int
    last_at: datetime | None


class GatheredMatches:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._lock = Lock()
        self._counts: Counter[int] = Counter()
        self._last: dict[int, int] = {}

    def note(self, rule: int) -> None:
        with self._lock:
            self._counts[rule] += 1
            self._last[rule] = int(time.time())

    def write(self, connection: Redis) -> None:
        """Raises RedisError; what was gathered is then kept."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            last, self._last = self._last, {}
        if not counts:
            return
        try:
            pipeline = connection.pipeline(transaction=False)
            for rule, count in counts.items():
                pipeline.hincrby(STORE_KEY, f"{rule} n", count)
            pipeline.hset(STORE_KEY, mapping={f"{rule} at": at for rule, at in last.items()})
            pipeline.execute()
        except BaseException:
            with self._lock:
                self._counts += counts
                self._last = last | self._last
            raise


def read(connection: Redis, rules: Iterable[int]) -> dict[int, Matches]:
    """Of these rules, by their number. Raises RedisError."""
    wanted = list(rules)
    if not wanted:
        return {}
    fields = [f"{rule} {what}" for rule in wanted for what in ("n", "at")]
    values = [int(value or 0) for value in connection.hmget(STORE_KEY, fields)]
    return {
        rule: Matches(count, datetime.fromtimestamp(at, UTC) if at else None)
        for rule, count, at in zip(wanted, values[::2], values[1::2], strict=True)
    }


def forget(connection: Redis, rules: Iterable[int]) -> None:
    """Of rules that are gone. Raises RedisError."""
    fields = [f"{rule} {what}" for rule in rules for what in ("n", "at")]
    if fields:
        connection.hdel(STORE_KEY, *fields)


gathered: Final = GatheredMatches()

# The parent writes what it had gathered.
os.register_at_fork(after_in_child=gathered.clear)
