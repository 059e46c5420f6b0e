"""The first limits of several requests, asked of the store together before each is answered.

Of what an admitted request costs, the round trip is the largest part (docs/performance.md). A
server that has several requests at hand can give them one between them. Each is decided all the
same as if it had come alone, and later than it arrived.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from django.http import HttpRequest
from rest_framework.request import Request

from throttling import network_rules
from throttling.limiter import Hit
from throttling.refusals import refusals
from throttling.throttles import ASKED_AHEAD, NetworkBlocked, SlidingWindowThrottle, ask

MOST_TOGETHER: Final = 32
"""More hits than this take several round trips, so that other servers' hits get in between."""


def ask_ahead(
    requests: Sequence[tuple[SlidingWindowThrottle, Any, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """What to add to the META of each request: what the store said to its throttle's hit.

    A request is a throttle, its view and a META with what the throttle looks at. Nothing is asked,
    and added, for one that is not limited, is refused by what is remembered, or is blocked.
    """
    additions: list[dict[str, Any]] = [{} for _ in requests]
    by_reads: dict[tuple[str, ...], list[tuple[Hit, dict[str, Any]]]] = defaultdict(list)
    for (throttle, view, meta), addition in zip(requests, additions, strict=True):
        hit = _hit_to_ask(throttle, view, meta)
        if hit is not None:
            by_reads[tuple(throttle.read_along.values())].append((hit, addition))
    for reads, asking in by_reads.items():
        for start in range(0, len(asking), MOST_TOGETHER):
            together = asking[start : start + MOST_TOGETHER]
            answers = ask([hit for hit, _ in together], reads)
            for (_, addition), asked in zip(together, answers, strict=True):
                addition[ASKED_AHEAD] = asked
    return additions


def _hit_to_ask(throttle: SlidingWindowThrottle, view: Any, meta: Mapping[str, Any]) -> Hit | None:
    expected = cast("Request", _Expected(meta))
    # Not yet counted as a match: that comes with the request.
    expected.META[network_rules.META_NAME] = network_rules.find(meta)
    try:
        limited = throttle.limited(expected, view)
    except NetworkBlocked:
        return None
    if limited is None:
        return None
    limiter, identifier = throttle.hit_on(*limited)
    is_refused = refusals.recall(limiter.key(identifier), time.monotonic()) is not None
    return None if is_refused else (limiter, identifier)


class _Expected(HttpRequest):
    """As much of a request as its META is known to hold; the rest of it is not there yet."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.META = dict(meta)
