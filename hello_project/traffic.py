"""What became of the requests, counted for operators and off the hot path.

Each process gathers in memory and once a second writes what is new into the store, by calls of
traffic.lua with at most 500 counts each. One hash tag keeps all of it on one shard:

| key | what | kept after the last write |
|---|---|---|
| `{traffic}:minute:<minutes since 1970>` | hash, outcome -> requests | 2 hours |
| `{traffic}:hour:<hours since 1970>` | hash, outcome -> requests | 31 days |
| `{traffic}:keys:hour:<hours since 1970>` | hash, `<key id> <outcome>` -> requests | 26 hours |
| `{traffic}:keys:minutes:<5 minutes since 1970>` | hash, as above | 70 minutes |
| `{traffic}:busiest:<hours since 1970>` | sorted set, key id by its requests, 1,000 | 26 hours |
| `{traffic}:usage:0` | hash, `<day> <key id> <outcome>` -> requests, until a flush | 32 days |
| `{traffic}:refused:<hours since 1970>` | sorted set, client by its refusals, 1,000 | 26 hours |
| `{traffic}:total:0` | hash, outcome -> requests | 400 days |
| `{traffic}:limiter:0` | hash, a count of throttling.measurements -> the count | 400 days |
| `{traffic}:flushed:<process>` | string, the number of that process's last call | 1 hour |

A client that falls out of the 1,000 most refused, or a key of the busiest, begins again at 0, so a
score may be too low, never too high.

Every request is counted exactly once, whatever becomes of an answer of the store: a call that
failed is sent again under the same number, and the script knows the numbers that it has written.
Two things can make it twice: a store that was emptied between the two, and one that was out of
reach for over an hour.

While the store is down nothing is lost and memory grows slowly: by an entry for each outcome a
minute, and by one for each pair of key and outcome in five minutes; the clients are bounded.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeAlias

from django_redis import get_redis_connection
from redis.exceptions import RedisError

from apikeys.background import FlushedInBackground
from hello_project.outcomes import REFUSED
from throttling.measurements import measurements

logger = logging.getLogger(__name__)

SCRIPT: Final = Path(__file__).with_suffix(".lua").read_text()

FLUSH_SECONDS: Final = 0.9
"""What an operator changes is to take effect within a second, and the flush notices it."""
LAST_TRIES: Final = 5
LAST_TRIES_APART: Final = 0.1
COUNTS_A_CALL: Final = 500
CLIENTS_BETWEEN_FLUSHES: Final = 10_000
CLIENTS_KEPT: Final = 1_000
NUMBER_LIFETIME: Final = 3600


@dataclass(frozen=True, eq=False, slots=True)
class Series:
    """Counts of one kind, under one key of the store a period."""

    name: str
    lifetime: int
    kind: str = "hash"
    """The store's type of value, "hash" or "zset"."""

    def key(self, period: int) -> str:
        return f"{{traffic}}:{self.name}:{period}"


OUTCOMES_BY_MINUTE: Final = Series("minute", 2 * 3600)
OUTCOMES_BY_HOUR: Final = Series("hour", 31 * 86_400)
KEYS_BY_HOUR: Final = Series("keys:hour", 26 * 3600)
KEYS_BY_FIVE_MINUTES: Final = Series("keys:minutes", 70 * 60)
BUSIEST_BY_HOUR: Final = Series("busiest", 26 * 3600, "zset")
USAGE: Final = Series("usage", 32 * 86_400)
OUTCOMES_IN_ALL: Final = Series("total", 400 * 86_400)
LIMITER_IN_ALL: Final = Series("limiter", 400 * 86_400)
EVER: Final = 0
"""The period of what is counted in all."""
CLIENTS_BY_HOUR: Final = Series("refused", 26 * 3600, "zset")

Counts: TypeAlias = list[tuple[Series, int, str, int]]
"""Series, period, field and what to add to it; all of one series and period in a row."""


class Traffic(FlushedInBackground):
    """`clock` gives seconds since 1970."""

    _outcomes: dict[tuple[int, str], int]
    _keys: dict[tuple[int, str, str], int]
    _clients: dict[tuple[int, str], int]
    _taken: deque[Counts]
    """What is still to be written, a call each. The first may have been sent already."""
    _number: int
    """Of the first."""
    _is_down: bool

    def __init__(
        self,
        flush_seconds: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.time,
        clients_between_flushes: int = CLIENTS_BETWEEN_FLUSHES,
    ) -> None:
        self._clock = clock
        self._clients_between_flushes = clients_between_flushes
        super().__init__(flush_seconds)

    def note(self, outcome: str, key_id: str | None, client: str | None) -> None:
        """Count a request. `client` matters when a rate limit refused it."""
        minute = int(self._clock()) // 60
        with self._lock:
            self._outcomes[minute, outcome] += 1
            if key_id is not None:
                self._keys[minute // 5, key_id, outcome] += 1
            if client is not None and outcome.startswith(REFUSED):
                self._note_refused(minute // 60, client)
        self.ensure_flushes()

    def _note_refused(self, hour: int, client: str) -> None:
        known = self._clients.get((hour, client), 0)
        if known or len(self._clients) < self._clients_between_flushes:
            self._clients[hour, client] = known + 1

    def write(self) -> None:
        """While the store is down, what was gathered stays."""
        try:
            self._send_all()
            self._taken.extend(self._take())
            if self._taken:
                self._send_all()
        except RedisError as error:
            if not self._is_down:
                logger.warning("The store did not take the counts (%s); keeping them.", error)
            self._is_down = True
        else:
            if self._is_down:
                logger.warning("The store takes the counts again.")
            self._is_down = False

    def clear(self) -> None:
        with self._flushing:
            self._taken = deque()
            self._number = 1
            self._number_key = "{traffic}:flushed:" + secrets.token_hex(8)
            self._is_down = False
            with self._lock:
                self._forget()

    def stop(self) -> None:
        """The last flush, tried again for half a second if the store is slow or away."""
        super().stop()
        for _ in range(LAST_TRIES):
            if not self._unwritten():
                return
            time.sleep(LAST_TRIES_APART)
            self.flush()
        if lost := self._unwritten():
            logger.error("The counts of %d requests are lost with this process.", lost)

    def _forget(self) -> None:
        self._outcomes = defaultdict(int)
        self._keys = defaultdict(int)
        self._clients = {}

    def _take(self) -> list[Counts]:
        """What was gathered, now to be written, split into calls."""
        with self._lock:
            outcomes, keys, clients = self._outcomes, self._keys, self._clients
            self._forget()
        counts = _sums(outcomes, keys, clients, measurements.take())
        starts = range(0, len(counts), COUNTS_A_CALL)
        return [counts[start : start + COUNTS_A_CALL] for start in starts]

    def _send_all(self) -> None:
        while self._taken:
            self._send(self._taken[0])
            self._taken.popleft()
            self._number += 1

    def _send(self, counts: Counts) -> None:
        """Raises RedisError: they are written, or not, or will be when the store gets to it."""
        keys = [self._number_key]
        arguments: list[str | int] = [self._number, NUMBER_LIFETIME, CLIENTS_KEPT]
        for (series, period), group in groupby(counts, key=itemgetter(0, 1)):
            fields = [part for _, _, field, count in group for part in (field, count)]
            keys.append(series.key(period))
            arguments += [series.kind, series.lifetime, len(fields) // 2, *fields]
        get_redis_connection("default").register_script(SCRIPT)(keys, arguments)

    def _unwritten(self) -> int:
        """How many requests are counted in this process only."""
        with self._flushing, self._lock:
            taken = [
                count
                for counts in self._taken
                for series, _, _, count in counts
                if series is OUTCOMES_BY_MINUTE
            ]
            return sum(taken) + sum(self._outcomes.values())


def _sums(
    outcomes: Mapping[tuple[int, str], int],
    keys: Mapping[tuple[int, str, str], int],
    clients: Mapping[tuple[int, str], int],
    measured: Mapping[str, int],
) -> Counts:
    sums: dict[tuple[Series, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (minute, outcome), count in outcomes.items():
        sums[OUTCOMES_BY_MINUTE, minute][outcome] += count
        sums[OUTCOMES_BY_HOUR, minute // 60][outcome] += count
        sums[OUTCOMES_IN_ALL, EVER][outcome] += count
    for (five_minutes, key_id, outcome), count in keys.items():
        hour, field = five_minutes // 12, f"{key_id} {outcome}"
        sums[KEYS_BY_FIVE_MINUTES, five_minutes][field] += count
        sums[KEYS_BY_HOUR, hour][field] += count
        sums[BUSIEST_BY_HOUR, hour][key_id] += count
        sums[USAGE, EVER][f"{hour // 24} {field}"] += count
    for (hour, client), count in clients.items():
        sums[CLIENTS_BY_HOUR, hour][client] += count
    for name, count in measured.items():
        sums[LIMITER_IN_ALL, EVER][name] += count
    return [(*of, field, count) for of, fields in sums.items() for field, count in fields.items()]


traffic = Traffic()
