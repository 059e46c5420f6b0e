"""Clients, and their counters put into a store by the thousand."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import servers  # noqa: F401 - puts the project on the path

from throttling.limiter import SCRIPT, RateLimit, SlidingWindowCounter

if TYPE_CHECKING:
    from redis import Redis

AT_A_TIME: Final = 1_000
_SPREAD: Final = 2_654_435_761
_HIT: Final = struct.Struct(">IIBI")
"""ARGV[1] of throttling/sliding_window.lua."""

# The limiter's script itself, run for many counters in one call.
_FILL: Final = f"""
local function hit(KEYS, ARGV)
{SCRIPT}
end
for _, key in ipairs(KEYS) do
  for moment = 2, #ARGV do hit({{key}}, {{ARGV[1], ARGV[moment]}}) end
end
"""
_COPY: Final = "for n = 2, #KEYS do redis.call('COPY', KEYS[1], KEYS[n]) end"


def address(number: int) -> str:
    """A different IPv4 address for each number, spread over all of them."""
    return socket.inet_ntoa((number * _SPREAD % 2**32).to_bytes(4))


def identifier(number: int) -> str:
    """What the project limits that address by."""
    return f"ip:{address(number)}"


def use(store: Redis, rate: RateLimit, identifier: str, moments: Iterable[int], cost: int) -> str:
    """Let one client hit at each of the moments; gives its counter's key in the store."""
    for moment in moments:
        counter = SlidingWindowCounter(rate, store, clock=partial(int, moment))
        if not counter.hit(identifier, cost).allowed:
            raise RuntimeError(f"{rate}: a window could not be filled")
    return counter.key(identifier)


def fill(store: Redis, rate: RateLimit, clients: int, moments: Sequence[int]) -> Iterator[int]:
    """Let each client hit at each of the moments, in ms since 1970; gives how many have.

    By a caller's clock, for the hour that it adds to a counter's life and for nothing else.
    """
    script = store.register_script(_FILL)
    hit = _HIT.pack(rate.limit, rate.slot_ms, rate.slots, 1)
    return _in_parts(store, rate, clients, lambda keys: script(keys, [hit, *moments]))


def copy(store: Redis, rate: RateLimit, clients: int, original: str) -> Iterator[int]:
    """Give each client the counter `original`, a key of the store; gives how many have it."""
    script = store.register_script(_COPY)
    return _in_parts(store, rate, clients, lambda keys: script([original, *keys]))


def _in_parts(
    store: Redis, rate: RateLimit, clients: int, write: Callable[[list[str]], object]
) -> Iterator[int]:
    counter = SlidingWindowCounter(rate, store)
    numbers = iter(range(1, clients + 1))
    done = 0
    while part := [counter.key(identifier(n)) for n in islice(numbers, AT_A_TIME)]:
        write(part)
        done += len(part)
        yield done
