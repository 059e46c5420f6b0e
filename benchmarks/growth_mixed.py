"""Requests of every kind against one site, for minutes, and what its workers hold meanwhile."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import linear_regression, median
from typing import Final

import growth_sites
import growth_stores
import wrk
from growth_counters import address
from growth_sites import Case, Keys, Site
from report import Progress
from servers import PROJECT, Servers, run

from apikeys import keys

CASE: Final = Case(clients=1_000_000, keys=100_000)
RATE: Final = "3/10s"
BUSY_CLIENTS: Final = 50
"""That ask far too often."""
RUN_SECONDS: Final = 10
MOST_A_RUN: Final = 40_000
SAMPLE_SECONDS: Final = 5
COMMAND_SECONDS: Final = 30
WARMING_SECONDS: Final = 200
"""About; for the time that is left."""


@dataclass
class Memory:
    """What each worker held: seconds since the load began, and MB."""

    samples: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def minute(self, worker: int, number: int) -> float:
        """The median of a minute; the first is 0."""
        return median(mb for at, mb in self.samples[worker] if int(at) // 60 == number)

    def most(self, worker: int) -> float:
        return max(mb for _, mb in self.samples[worker])

    def slope(self, worker: int, since: int) -> float:
        """MB an hour, from a minute on."""
        later = [(at, mb) for at, mb in self.samples[worker] if at >= since * 60]
        at, mb = zip(*later, strict=True)
        return linear_regression(at, mb).slope * 3600


@dataclass(frozen=True)
class Mixed:
    memory: Memory
    statuses: Counter[int]
    socket_errors: int
    commands: int
    failures: Sequence[str]
    """Of the commands."""
    warnings: Sequence[str]
    store: str


class Load:
    """One wrk after the other, each with requests of its own; commands beside them."""

    def __init__(self, site: Site) -> None:
        self.memory = Memory()
        self.statuses: Counter[int] = Counter()
        self.socket_errors = 0
        self.commands = 0
        self.failures: list[str] = []
        self._site = site
        self._issued: deque[str] = deque()
        self._revoked: list[str] = []
        self._begun = time.monotonic()
        self._ended = threading.Event()

    def run(self, minutes: float, progress: Progress) -> None:
        end = time.monotonic() + minutes * 60
        self._begun = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            beside = [
                pool.submit(self._repeat, SAMPLE_SECONDS, self._sample),
                pool.submit(self._repeat, COMMAND_SECONDS, self._issue_or_revoke),
            ]
            try:
                while (left := end - time.monotonic()) >= 1:
                    seconds = min(RUN_SECONDS, int(left))
                    progress.step("mixed load", seconds)
                    self._load(seconds)
            finally:
                self._ended.set()
            for one in beside:
                one.result()

    def _load(self, seconds: int) -> None:
        requests = [self._request() for _ in range(MOST_A_RUN)]
        load = wrk.run(self._site.server.port, requests, seconds, count_statuses=True)
        self.statuses.update(load.statuses)
        self.socket_errors += load.socket_errors

    def _request(self) -> str:
        [make] = random.choices(list(KINDS), list(KINDS.values()))
        return make(self)

    def _repeat(self, seconds: float, do: Callable[[], None]) -> None:
        while not self._ended.wait(seconds):
            do()

    def _sample(self) -> None:
        at = time.monotonic() - self._begun
        for worker in self._site.workers():
            self.memory.samples[worker].append((at, growth_sites.resident_mb(worker)))

    def _issue_or_revoke(self) -> None:
        """By turns, so that each key issued is used before it is revoked, and after."""
        if not self._issued:
            self._issued += self._manage("issue_key", "mixed load").split()
        else:
            self._manage("revoke_key", self._issued[0])
            self._revoked.append(self._issued.popleft())

    def _manage(self, *words: str) -> str:
        self.commands += 1
        command = [sys.executable, "manage.py", *words]
        try:
            return run(command, cwd=PROJECT, environment=self._site.environment)
        except SystemExit as failed:
            self.failures.append(str(failed).strip().rpartition("\n")[2])
            return ""

    def good(self) -> str:
        return self._site.request(random.randint(1, CASE.clients), random.choice(self._site.keys))

    def too_many(self) -> str:
        return self._site.request(random.randint(1, BUSY_CLIENTS), random.choice(self._site.keys))

    def issued(self) -> str:
        return self._with_key(self._issued[0] if self._issued else self._site.keys[0])

    def revoked(self) -> str:
        return self._with_key(random.choice(self._revoked or self._site.keys))

    def unknown(self) -> str:
        """Of the right form, so that the database is asked."""
        return self._with_key(str(keys.generate("live", keys.generate_id())))

    def mistyped(self) -> str:
        return self._with_key(random.choice(self._site.keys)[:-1] + "_")

    def without_key(self) -> str:
        return self._get("/", {})

    def elsewhere(self) -> str:
        return self._get(f"/{random.randint(1, 10**9)}", {})

    def _with_key(self, key: str) -> str:
        return self._get("/", {"X-API-Key": key})

    def _get(self, path: str, headers: dict[str, str]) -> str:
        client = address(random.randint(1, CASE.clients))
        host = f"127.0.0.1:{self._site.server.port}"
        return wrk.get(path, {"Host": host, "X-Forwarded-For": client} | headers)


KINDS: Final[dict[Callable[[Load], str], int]] = {
    Load.good: 55,
    Load.too_many: 20,
    Load.issued: 2,
    Load.revoked: 3,
    Load.unknown: 5,
    Load.mistyped: 5,
    Load.without_key: 5,
    Load.elsewhere: 5,
}
"""How many of a hundred requests."""


def run_for(minutes: float) -> Mixed:
    """Raises comparison.Unexpected."""
    progress = Progress(minutes * 60 + WARMING_SECONDS)
    with Servers() as running, growth_stores.usual()(running.folder / "store") as store:
        progress.step("making the keys", WARMING_SECONDS * 0.05)
        made = Keys.make(running.folder / "keys", CASE.keys, store)
        site = growth_sites.start(running, store, CASE, made, RATE)
        running.wait(site.server)
        progress.step("warming up", WARMING_SECONDS * 0.95)
        site.warm()
        load = Load(site)
        load.run(minutes, progress)
        Progress.end()
        return Mixed(
            load.memory,
            load.statuses,
            load.socket_errors,
            load.commands,
            load.failures,
            growth_sites.warnings(site.server),
            store.version,
        )
