"""The sliding-window counter: never more than the limit in any window, decided in the store.

docs/limiter.md explains the algorithm and why it is exact.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django_redis import get_redis_connection
from redis.exceptions import NoScriptError

from throttling.rates import InvalidRateLimit, RateLimit

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
    `connection` is a Redis client, by default that of Django's default cache. `clock` gives
    milliseconds since the epoch, by default the store's own clock does.
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
            self._connection = get_redis_connection("default")
        return self._connection

    def key(self, identifier: str) -> str:
        """The store's key; the braces keep all of an identifier's keys on one Cluster node."""
        return f"rl:{{{identifier}}}{self.rate.limit}/{self.rate.window_ms}"

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
        """Forget what the identifier has used under this rate limit."""
        self.connection.delete(self.key(identifier))

    def _call(
        self, identifier: str, keys: Sequence[str], cost: int
    ) -> tuple[Decision, list[bytes | None]]:
        rate = self.rate
        packed = _HIT.pack(rate.limit, rate.slot_ms, rate.slots, cost)
        arguments: list[str | bytes | int] = [self.key(identifier), packed]
        if self._clock is not None:
            arguments.append(self._clock())
        connection: Any = self.connection  # redis-py leaves execute_command untyped.
        # transaction=False: one write and one read, without MULTI and EXEC.
        pipeline = connection.pipeline(transaction=False)
        pipeline.execute_command("EVALSHA", SCRIPT_SHA, 1, *arguments, NEVER_DECODE=True)
        for key in keys:
            pipeline.get(key)
        reply, *values = pipeline.execute(raise_on_error=False)
        if isinstance(reply, NoScriptError):
            # Refused before it ran, so nothing was counted; EVAL stores the script as well.
            reply = connection.execute_command("EVAL", SCRIPT, 1, *arguments, NEVER_DECODE=True)
        for answer in (reply, *values):
            if isinstance(answer, Exception):
                raise answer
        remaining, retry_after, reset_after = _REPLY.unpack(reply)
        return Decision(not retry_after, remaining, retry_after / 1000, reset_after / 1000), values
