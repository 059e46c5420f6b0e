"""What a call of the limiter costs under each limit, with windows as full as they get."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import growth_counters
import growth_stores
from report import Progress

from throttling.limiter import RateLimit, SlidingWindowCounter

if TYPE_CHECKING:
    from redis import Redis

LIMITS: Final = [
    RateLimit.parse(notation)
    for notation in ("3/10s", "100/1m", "1000/60s", "10000/1h", "100000/1h")
]
CLIENTS: Final = 100
HITS: Final = ("first of its slot", "second of its slot")
"""Both are admitted, and the window is full after the second or nearly so."""
EARLIER_SLOTS: Final = 99
_ROUND_SECONDS: Final = 0.12


@dataclass(frozen=True)
class Call:
    """Microseconds, medians over the rounds; the ratios to the smallest limit in each round."""

    server_us: float
    client_us: float
    server: float
    client: float


@dataclass(frozen=True)
class Time:
    server_us: float
    client_us: float


class Limits:
    def __init__(self, version: str) -> None:
        self.version = version
        self.values: dict[RateLimit, int] = {}
        """The length of the counter's value."""
        self._times: dict[tuple[RateLimit, str], list[Time]] = defaultdict(list)

    def run_round(self, store: Redis) -> None:
        for rate in random.sample(LIMITS, len(LIMITS)):
            keys = _full(store, rate)
            counter = SlidingWindowCounter(rate, store)
            for hit in HITS:
                self._times[rate, hit].append(_measure(store, counter))
            self.values[rate] = store.strlen(keys[0])

    def forget(self) -> None:
        self._times.clear()

    def call(self, rate: RateLimit, hit: str) -> Call:
        times, base = self._times[rate, hit], self._times[LIMITS[0], hit]
        pairs = list(zip(times, base, strict=True))
        return Call(
            server_us=median(one.server_us for one in times),
            client_us=median(one.client_us for one in times),
            server=median(one.server_us / other.server_us for one, other in pairs),
            client=median(one.client_us / other.client_us for one, other in pairs),
        )


def measure(folder: Path, rounds: int, progress: Progress) -> Mapping[str, Limits]:
    """By the store's kind."""
    with ExitStack() as stack:
        stores = {
            kind: stack.enter_context(start(folder / f"limits-{kind}"))
            for kind, start in growth_stores.kinds().items()
        }
        measured = {kind: Limits(store.version) for kind, store in stores.items()}
        clients = {kind: growth_stores.client(store) for kind, store in stores.items()}
        with _apart(store.server.process.pid for store in stores.values()):
            for number in range(rounds + 1):
                progress.step("limits", _ROUND_SECONDS * len(stores))
                for kind, limits in measured.items():
                    limits.run_round(clients[kind])
                    if not number:
                        limits.forget()  # It warms up.
        return measured


@contextmanager
def _apart(stores: Iterable[int]) -> Iterator[None]:
    """We on one core and the stores on the others, if there are others.

    Left to the scheduler, a call takes 30 µs while both are on one core and 70 µs while they are
    not, which is more than any limit makes of it.
    """
    cores = os.sched_getaffinity(0)
    ours = {min(cores)}
    for store in stores:
        os.sched_setaffinity(store, cores - ours or ours)
    os.sched_setaffinity(0, ours)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def seconds(rounds: int) -> float:
    """About how long `measure` takes."""
    return (rounds + 1) * _ROUND_SECONDS * len(growth_stores.kinds())


def _identifier(number: int) -> str:
    return f"ip:203.0.113.{number}"


def _full(store: Redis, rate: RateLimit) -> list[str]:
    """Give each client a counter with room for two hits, and as many slots in use as can be."""
    store.flushall()
    earlier = min(EARLIER_SLOTS, rate.limit - len(HITS))
    now = time.time_ns() // 1_000_000
    moments = range(now - earlier * rate.slot_ms, now, rate.slot_ms)
    cost = (rate.limit - len(HITS)) // earlier
    original = growth_counters.use(store, rate, _identifier(0), moments, cost)
    counter = SlidingWindowCounter(rate, store)
    keys = [counter.key(_identifier(number)) for number in range(CLIENTS)]
    pipeline = store.pipeline(transaction=False)
    for key in keys[1:]:
        pipeline.copy(original, key)
    pipeline.execute()
    return keys


def _measure(store: Redis, counter: SlidingWindowCounter) -> Time:
    """A hit of each client, one at a time."""
    identifiers = [_identifier(number) for number in range(CLIENTS)]
    store.config_resetstat()
    begun = time.perf_counter()
    decisions = [counter.hit(identifier) for identifier in identifiers]
    elapsed = time.perf_counter() - begun
    stats = store.info("commandstats")["cmdstat_evalsha"]
    if stats["calls"] != CLIENTS or not all(decision.allowed for decision in decisions):
        raise RuntimeError(f"{counter.rate}: a hit was decided otherwise; nothing is measured.")
    return Time(stats["usec"] / CLIENTS, elapsed * 1e6 / CLIENTS)
