"""One run of the growth benchmark, from the first store to the last round."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import growth_bytes
import growth_limits
import growth_requests
from growth_bytes import Bytes
from growth_limits import Limits
from growth_requests import Growth, Sizes
from report import Progress
from servers import Servers


@dataclass(frozen=True)
class Plan:
    sizes: Sizes
    limit_rounds: int
    clients_in_memory: int
    seconds: int
    """Of load on each case in each round."""
    minutes: float
    """No round of requests is begun that would end later than this, but for the first."""


FULL: Final = Plan(
    Sizes(clients=[1, 1_000, 100_000, 1_000_000], keys=[10, 10_000, 100_000]),
    limit_rounds=50,
    clients_in_memory=1_000_000,
    seconds=3,
    minutes=14.5,
)
QUICK: Final = Plan(
    Sizes(clients=[1, 1_000, 100_000], keys=[10, 1_000, 10_000]),
    limit_rounds=10,
    clients_in_memory=100_000,
    seconds=2,
    minutes=2.6,
)


@dataclass(frozen=True)
class Measured:
    plan: Plan
    growth: Growth
    limits: Mapping[str, Limits]
    """By the store's kind."""
    memory: Sequence[Bytes]
    usual_store: str
    """That of the requests."""


def run(plan: Plan) -> Measured:
    end = time.monotonic() + plan.minutes * 60
    progress = Progress(plan.minutes * 60)
    with Servers() as running:
        limits = growth_limits.measure(running.folder, plan.limit_rounds, progress)
        memory = growth_bytes.measure(running.folder, plan.clients_in_memory, progress)
        with growth_requests.started(plan.sizes, running, progress) as growth:
            rounds = Progress(max(end - time.monotonic(), 1))
            while True:
                begun = time.monotonic()
                growth.run_round(plan.seconds, rounds)
                if 2 * time.monotonic() - begun > end:
                    break
            growth.end()
            version = growth.sites[0].store.version
    Progress.end()
    return Measured(plan, growth, limits, memory, version)
