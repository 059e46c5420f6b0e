"""The limiter as a slow, obvious model: every admitted hit in a list. Shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property


@dataclass
class Answer:
    allowed: bool
    remaining: int
    retry_after_ms: int
    reset_after_ms: int


@dataclass
class Reference:
    limit: int
    window_ms: int
    admitted: list[tuple[int, int]] = field(default_factory=list)  # (slot, cost)

    @cached_property
    def slot_ms(self) -> int:
        return (self.window_ms + 99) // 100

    @cached_property
    def slots(self) -> int:
        return (self.window_ms + self.slot_ms - 1) // self.slot_ms

    def hit(self, now_ms: int, cost: int) -> Answer:
        # A clock that went back: a slot of the future counts as current.
        slot = max([now_ms // self.slot_ms] + [slot for slot, _ in self.admitted])
        allowed = self.used(slot) + cost <= self.limit
        retry_after = 0
        if allowed:
            self.admitted.append((slot, cost))
        else:
            fits = slot
            while self.used(fits) + cost > self.limit:
                fits += 1
            retry_after = fits * self.slot_ms - now_ms
        remaining = self.limit - self.used(slot)
        return Answer(allowed, remaining, retry_after, self.reset_after(slot, now_ms))

    def used(self, slot: int) -> int:
        return sum(cost for at, cost in self.admitted if slot - self.slots <= at <= slot)

    def reset_after(self, slot: int, now_ms: int) -> int:
        counted = [at for at, _ in self.admitted if slot - self.slots <= at <= slot]
        if not counted:
            return 0
        return (min(counted) + self.slots + 1) * self.slot_ms - now_ms
