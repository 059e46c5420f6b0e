"""Rate limits and their notation: ``3/10s``, ``100/1m``, ``1000/h``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_UNIT_NAMES: Final = {
    "ms": "ms",
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_NOTATION: Final = re.compile(r"\s*([0-9]{1,10})\s*/\s*([0-9]{0,10})\s*([a-z]+)\s*", re.IGNORECASE)

MAX_LIMIT: Final = 2**32 - 1
"""The counter keeps a cost in four bytes."""
MAX_WINDOW_MS: Final = 366 * 86_400_000
SLOTS_PER_WINDOW: Final = 100


class InvalidRateLimit(ValueError):
    """The notation or the numbers of a rate limit are not usable; the message says what is."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` units of cost in any `window` seconds.

    The window is cut into at most 100 slots of whole milliseconds: `slot_ms` each, `slots` of them.
    """

    limit: int
    window: float
    window_ms: int = field(init=False, repr=False, compare=False)
    slot_ms: int = field(init=False, repr=False, compare=False)
    slots: int = field(init=False, repr=False, compare=False)
    shortest: str = field(init=False, repr=False, compare=False)
    """The notation with the largest unit, the same for equal rate limits."""
    _notation: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise InvalidRateLimit(f"A limit is from 1 to {MAX_LIMIT}, not {self.limit}.")
        window_ms = round(self.window * 1000)
        if not 1 <= window_ms <= MAX_WINDOW_MS:
            raise InvalidRateLimit(f"A window is from 1ms to 366d, not {self.window} seconds.")
        slot_ms = -(-window_ms // SLOTS_PER_WINDOW)
        unit = next(unit for unit in ("d", "h", "m", "s", "ms") if not window_ms % _UNIT_MS[unit])
        object.__setattr__(self, "window_ms", window_ms)
        object.__setattr__(self, "slot_ms", slot_ms)
        object.__setattr__(self, "slots", -(-window_ms // slot_ms))
        shortest = f"{self.limit}/{window_ms // _UNIT_MS[unit]}{unit}"
        object.__setattr__(self, "shortest", shortest)
        object.__setattr__(self, "_notation", shortest)

    def times(self, factor: int) -> RateLimit:
        """So many times as much in the same window, at most MAX_LIMIT."""
        return RateLimit(min(self.limit * factor, MAX_LIMIT), self.window)

    @classmethod
    def parse(cls, notation: str) -> RateLimit:
        """`notation` is a limit, a slash and a window: ``3/10s``, ``100/1m``, ``1000/h``, ``5/2d``.

        The unit is ms, s, m, h or d; DRF's words (``min``, ``hour``, …) are taken as well.
        Raises InvalidRateLimit.
        """
        match = _NOTATION.fullmatch(notation)
        unit = _UNIT_NAMES.get(match[3].lower()) if match else None
        if match is None or unit is None:
            raise InvalidRateLimit(
                f"{notation!r} is not a rate limit: write a limit, a slash and a window,"
                " such as 3/10s, 100/1m, 1000/h or 5/2d."
            )
        window_ms = int(match[2] or 1) * _UNIT_MS[unit]
        whole_seconds, rest_ms = divmod(window_ms, 1000)
        rate = cls(int(match[1]), window_ms / 1000 if rest_ms else whole_seconds)
        count = str(int(match[2])) if match[2] else ""
        object.__setattr__(rate, "_notation", f"{rate.limit}/{count}{unit}")
        return rate

    def __str__(self) -> str:
        return self._notation
