"""What a client costs in the store's memory, everything included."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import growth_counters
import growth_stores
from growth_counters import AT_A_TIME
from report import Progress

from throttling.limiter import RateLimit, SlidingWindowCounter

if TYPE_CHECKING:
    from redis import Redis

SMALL: Final = RateLimit.parse("3/10s")
LARGE: Final = RateLimit.parse("1000/60s")
FEWEST: Final = 0.1
"""Of the clients. With fewer, what the store takes for itself would count."""
_SECONDS_A_MILLION: Final = 13
_ORIGINAL: Final = "the counter that is copied"


@dataclass(frozen=True)
class Window:
    """A way to use up a limit, and how to give as many clients a counter so used."""

    name: str
    rate: RateLimit
    fill: Callable[[Redis, int], Iterator[int]]


@dataclass(frozen=True)
class Bytes:
    """Of the store's used_memory a client, over what it takes when empty."""

    store: str
    window: str
    value: int
    """The length of the counter's value."""
    at_all: float
    """With all clients."""
    at_most: float
    """With that number of clients, from a tenth of them on, with which each takes the most."""


def measure(folder: Path, clients: int, progress: Progress) -> list[Bytes]:
    measured = []
    for kind, start in growth_stores.kinds().items():
        for number, window in enumerate(WINDOWS):
            progress.step(f"memory: {kind}, {window.name}", _seconds(clients))
            with start(folder / f"{kind}-{number}") as store:
                client = growth_stores.client(store)
                measured.append(_measure(client, store.version, window, clients))
    return measured


def seconds(clients: int) -> float:
    """About how long `measure` takes."""
    return _seconds(clients) * len(WINDOWS) * len(growth_stores.kinds())


def _seconds(clients: int) -> float:
    return 0.2 + clients / 1e6 * _SECONDS_A_MILLION


def _measure(store: Redis, version: str, window: Window, clients: int) -> Bytes:
    for _ in window.fill(store, AT_A_TIME):
        pass  # Now the scripts are loaded, and the connection has its buffers.
    # Valkey frees later unless told to wait, and redis-py's flushall has no word for that.
    store.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
    empty = _used(store)
    each = {n: (_used(store) - empty) / n for n in window.fill(store, clients)}
    store.delete(_ORIGINAL)
    if store.dbsize() != clients:
        raise RuntimeError(f"{store.dbsize()} counters for {clients} clients")
    key = SlidingWindowCounter(window.rate, store).key(growth_counters.identifier(1))
    at_most = max(size for filled, size in each.items() if filled >= clients * FEWEST)
    return Bytes(version, window.name, store.strlen(key), each[clients], at_most)


def _used(store: Redis) -> int:
    return int(store.info("memory")["used_memory"])


def _by_hits(rate: RateLimit, slots: Sequence[int]) -> Callable[[Redis, int], Iterator[int]]:
    """A hit in each of the slots, counted from the first hit's."""

    def fill(store: Redis, clients: int) -> Iterator[int]:
        now = time.time_ns() // 1_000_000
        moments = [now + slot * rate.slot_ms for slot in slots]
        return growth_counters.fill(store, rate, clients, moments)

    return fill


def _by_copies(rate: RateLimit) -> Callable[[Redis, int], Iterator[int]]:
    """A hundred hits on each of a million counters take too long: one is filled, and copied."""

    def fill(store: Redis, clients: int) -> Iterator[int]:
        now = time.time_ns() // 1_000_000
        moments = range(now, now + rate.window_ms, rate.slot_ms)
        cost = rate.limit // rate.slots
        store.rename(growth_counters.use(store, rate, "original", moments, cost), _ORIGINAL)
        return growth_counters.copy(store, rate, clients, _ORIGINAL)

    return fill


WINDOWS: Final = [
    Window(f"{SMALL}, 3 slots", SMALL, _by_hits(SMALL, range(3))),
    Window(f"{SMALL}, 1 slot", SMALL, _by_hits(SMALL, [0, 0, 0])),
    Window(f"{LARGE}, 100 slots", LARGE, _by_copies(LARGE)),
]
