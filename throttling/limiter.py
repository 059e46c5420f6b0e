"""The sliding-window counter: never more than the limit in any window, decided in the store.

docs/limiter.md explains the algorithm and why it is exact.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from django.conf import settings
from django_redis import get_redis_connection
from redis.exceptions import NoScriptError

from throttling import changes, round_trips
from throttling.rates import InvalidRateLimit, RateLimit
from throttling.round_trips import RoundTrips, packed

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["Decision", "InvalidRateLimit", "RateLimit", "SlidingWindowCounter"]

SCRIPT: Final = Path(__file__).with_name("sliding_window.lua").read_text()
SCRIPT_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
# What the script takes and what it replies; sliding_window.lua describes both.
_HIT: Final = struct.Struct(">IIBI")
_REPLY: Final = struct.Struct(">IQQ")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the limiter said of one hit. Times are in seconds, to the millisecond.

    `retry_after` is the time until the same cost fits if nobody else hits, 0.0 when allowed;
    `reset_after` the time until additional quota comes back, 0.0 when nothing is used.
    """

    allowed: bool
    remaining: int
    retry_after: float
    reset_after: float


class SlidingWindowCounter:
    """Counts the hits of any number of identifiers under one rate limit.

    Two counters of the same rate limit over the same store count the same identifiers together.
    `connection` is a Redis client, by default that of the cache that STORE_CACHE names ("default").
    `clock` gives milliseconds since the epoch, by default the store's own clock does.
    """

    def __init__(
        self,
        rate: RateLimit,
        connection: Redis | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.rate = rate
        self._connection = connection
        self._clock = clock

    @property
    def connection(self) -> Redis:
        if self._connection is None:
            self._connection = get_redis_connection(getattr(settings, "STORE_CACHE", "default"))
        return self._connection

    @cached_property
    def _round_trip(self) -> RoundTrips:
        return round_trips.over(self.connection.connection_pool)

    def key(self, identifier: str) -> str:
        """The store's key; the braces keep all of an identifier's keys on one Cluster node.

        Short: with an IPv4 address it fits into the 32 bytes that a store's allocator gives it.
        """
        return f"rl:{{{identifier}}}{self.rate.shortest}"

    def hit(self, identifier: str, cost: int = 1) -> Decision:
        """Count a hit of `cost` units if it fits. One round trip.

        Raises ValueError for a cost that could never fit, RedisError when the store fails.
        """
        return self.hit_and_read(identifier, (), cost)[0]

    def hit_and_read(
        self, identifier: str, keys: Sequence[str], cost: int = 1
    ) -> tuple[Decision, list[bytes | None]]:
        """`hit`, and the values of other keys of the store, in the same round trip."""
        if not 1 <= cost <= self.rate.limit:
            raise ValueError(f"A hit on {self.rate} costs from 1 to {self.rate.limit}, not {cost}.")
        return self._call(identifier, keys, cost)

    def peek(self, identifier: str) -> Decision:
        """What `hit(identifier)` would decide, counting nothing: `remaining` is before the hit."""
        now, _ = self._call(identifier, (), 0)
        allowed = now.remaining > 0
        # One unit fits again as soon as the oldest counted slot leaves.
        return Decision(
            allowed, now.remaining, 0.0 if allowed else now.reset_after, now.reset_after
        )

    def reset(self, identifier: str) -> None:
        """Forget what the identifier has used. Processes that remember a refusal take a second."""
        self.connection.delete(self.key(identifier))
        changes.announce(self.connection)

    def _call(
        self, identifier: str, keys: Sequence[str], cost: int
    ) -> tuple[Decision, list[bytes | None]]:
        replies = self._round_trip(self._evalsha(identifier, cost) + _reads(keys), 1 + len(keys))
        if isinstance(replies[0], NoScriptError):
            # Refused before it ran, so nothing was counted; EVAL stores the script as well.
            evaluate = packed(b"EVAL", SCRIPT.encode(), b"1", *self._arguments(identifier, cost))
            replies[:1] = self._round_trip(evaluate, 1)
        reply, *values = _unless_errors(replies)
        return _decision(reply), values

    def _evalsha(self, identifier: str, cost: int) -> bytes:
        return packed(b"EVALSHA", SCRIPT_SHA.encode(), b"1", *self._arguments(identifier, cost))

    def _arguments(self, identifier: str, cost: int) -> list[bytes]:
        rate = self.rate
        arguments = [
            self.key(identifier).encode(),
            _HIT.pack(rate.limit, rate.slot_ms, rate.slots, cost),
        ]
        if self._clock is not None:
            arguments.append(b"%d" % self._clock())
        return arguments


Hit: TypeAlias = tuple[SlidingWindowCounter, str]
"""A counter, and the identifier whose hit it counts."""


def hit_together(
    hits: Sequence[Hit], keys: Sequence[str]
) -> tuple[list[Decision], list[bytes | None]]:
    """Hits of one unit each, on counters of one connection, in one round trip, and other keys read.

    Each is decided as if it were alone, in this order. Raises RedisError: NoScriptError when the
    store has to be given the script first and nothing was counted.
    """
    commands = b"".join([counter._evalsha(identifier, 1) for counter, identifier in hits])
    round_trip = hits[0][0]._round_trip
    replies = _unless_errors(round_trip(commands + _reads(keys), len(hits) + len(keys)))
    return [_decision(reply) for reply in replies[: len(hits)]], replies[len(hits) :]


def _reads(keys: Sequence[str]) -> bytes:
    return b"".join([packed(b"GET", key.encode()) for key in keys])


def _unless_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _decision(reply: bytes) -> Decision:
    remaining, retry_after, reset_after = _REPLY.unpack(reply)
    return Decision(not retry_after, remaining, retry_after / 1000, reset_after / 1000)
