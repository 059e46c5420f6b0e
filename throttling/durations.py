"""Durations as people type them: ``30d``, ``24h``, ``30m``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_NOTATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
MAX_DURATION: Final = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta:
    """Raises ValueError saying what to write."""
    match = _NOTATION.fullmatch(text.strip())
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < duration <= MAX_DURATION:
        raise ValueError(
            f"{text!r} is not a duration: write a number and a unit,"
            " such as 30d, 24h or 30m; at most 36500d."
        )
    return duration
