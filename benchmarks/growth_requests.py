"""What a request costs with many clients and many keys."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

import growth_counters
import growth_sites
import growth_stores
from comparison import Cell, Instance, Unexpected
from growth_sites import Case, Keys, Site
from report import Progress
from servers import Servers, Store
from targets import THIS

from throttling.limiter import RateLimit

RATE: Final = "1000000000/1h"
"""Refuses nobody, and a counter once made lives for longer than the benchmark."""
MOST_A_SECOND: Final = 12_000
"""Of requests, more than are ever answered: no list of them is sent twice in a run."""
CLIENTS_A_SECOND: Final = 150_000
KEYS_A_SECOND: Final = 10_000
WARMED_A_SECOND: Final = 1_000
"""For the time that is left."""
LONGEST_GATHERED: Final = 65
"""Seconds. After them, all is written that a worker had gathered; apikeys.last_used takes longest.
"""
EVERY_CALL: Final = 0.99


@dataclass(frozen=True)
class Sizes:
    """Ascending. First the clients grow, with the fewest keys, then the keys, with all clients."""

    clients: Sequence[int]
    keys: Sequence[int]

    def by_clients(self) -> list[Case]:
        return [Case(clients, self.keys[0]) for clients in self.clients]

    def by_keys(self) -> list[Case]:
        return [Case(self.clients[-1], keys) for keys in self.keys]

    def cases(self) -> list[Case]:
        return [*self.by_clients(), *self.by_keys()[1:]]


@dataclass(frozen=True)
class Cost:
    """Of one case: medians over the rounds; `time`, `cpu`, `cpu_in_all` and `resident` are ratios
    to another case, those of `time` and `cpu` taken in each round.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    server_us: float
    store_us: float
    server_in_all_us: float | None
    """Of rounds and of the time between them, in which it also writes what it has gathered; None
    when the rounds took less than some minutes."""
    time: float
    cpu: float
    cpu_in_all: float | None
    resident_mb: float
    """Of the larger worker, after the last round."""
    resident: float


@dataclass
class InAll:
    """A server's processor seconds since its start, when as many rounds were over, and at the end.

    Not from the first round on: first it writes what it has gathered while it was warmed up.
    """

    begun: float
    rounds: int
    begun_at: float
    ended: float = 0.0


def time_us(cell: Cell) -> float:
    """Of the wall a request, all connections together."""
    return 1e6 / cell.load.rate


def cpu_us(cell: Cell) -> float:
    """Of the processors a request, in the server and the store."""
    return cell.server_us + cell.store_us


class Growth:
    def __init__(self, sizes: Sizes, sites: Sequence[Site]) -> None:
        self.sizes = sizes
        self.cells: dict[Case, list[Cell]] = defaultdict(list)
        """One for each round."""
        self.resident_mb: dict[Case, list[float]] = {}
        """Of each worker."""
        self._in_all: dict[Case, InAll] = {}
        self._written_by = 0.0
        self.deviations: list[str] = []
        self.sites = list(sites)

    def warm(self, progress: Progress) -> None:
        """Each worker loads each key, and answers some requests more."""
        for site in self.sites:
            progress.step(f"warming up: {name(site.case)}", warming_seconds(site.case))
            site.warm()
            self._measure(site, 1)
        self._written_by = time.monotonic() + LONGEST_GATHERED

    def run_round(self, seconds: int, progress: Progress) -> None:
        if not self._in_all and time.monotonic() > self._written_by:
            for site in self.sites:
                rounds = len(self.cells[site.case])
                self._in_all[site.case] = InAll(site.server.cpu_seconds(), rounds, time.monotonic())
        for site in random.sample(self.sites, len(self.sites)):
            progress.step(f"requests: {name(site.case)}", seconds)
            self.cells[site.case].append(self._measure(site, seconds))

    def end(self) -> None:
        for site in self.sites:
            in_all = self._in_all.get(site.case)
            if in_all and time.monotonic() - in_all.begun_at < LONGEST_GATHERED:
                del self._in_all[site.case]  # Too short for all that is written to be in it.
            elif in_all:
                in_all.ended = site.server.cpu_seconds()
            self.resident_mb[site.case] = [growth_sites.resident_mb(w) for w in site.workers()]
            if lines := growth_sites.warnings(site.server):
                self.deviations.append(
                    f"{name(site.case)}: {len(lines)} warnings, the last: {lines[-1]}"
                )

    def ratios(self, case: Case, to: Case, value: Callable[[Cell], float]) -> list[float]:
        """One for each round."""
        both = zip(self.cells[case], self.cells[to], strict=True)
        return [value(one) / value(other) for one, other in both]

    def cost(self, case: Case, to: Case) -> Cost:
        cells = self.cells[case]
        store_us = median(cell.store_us for cell in cells)
        server_in_all_us, base_us = self._server_in_all_us(case), self._server_in_all_us(to)
        cpu_in_all = None
        if server_in_all_us and base_us:
            base_us += median(cell.store_us for cell in self.cells[to])
            cpu_in_all = (server_in_all_us + store_us) / base_us
        resident = max(self.resident_mb[case])
        return Cost(
            rate=median(cell.load.rate for cell in cells),
            p50_ms=median(cell.load.p50_ms for cell in cells),
            p99_ms=median(cell.load.p99_ms for cell in cells),
            server_us=median(cell.server_us for cell in cells),
            store_us=store_us,
            server_in_all_us=server_in_all_us,
            time=median(self.ratios(case, to, time_us)),
            cpu=median(self.ratios(case, to, cpu_us)),
            cpu_in_all=cpu_in_all,
            resident_mb=resident,
            resident=resident / max(self.resident_mb[to]),
        )

    def _server_in_all_us(self, case: Case) -> float | None:
        in_all = self._in_all.get(case)
        requests = sum(c.load.requests for c in self.cells[case][in_all.rounds :]) if in_all else 0
        return (in_all.ended - in_all.begun) * 1e6 / requests if in_all and requests else None

    def _measure(self, site: Site, seconds: int) -> Cell:
        requests = site.requests(MOST_A_SECOND * seconds)
        instance = Instance(THIS, RATE, site.server, requests)
        before = _hits(site.store)
        cell = instance.measure(len(requests), seconds, site.store)
        hits = _hits(site.store) - before
        try:
            instance.check(cell.load)
            if hits < cell.load.requests * EVERY_CALL:
                raise Unexpected(f"{hits} calls of the script for {cell.load.requests} requests")
        except Unexpected as unexpected:
            self.deviations.append(f"{name(site.case)}: {unexpected}")
        return cell


@contextmanager
def started(sizes: Sizes, running: Servers, progress: Progress) -> Iterator[Growth]:
    """A store for each number of clients, filled, and a site for each case, warm."""
    with ExitStack() as stack:
        stores = {
            clients: stack.enter_context(growth_stores.usual()(running.folder / f"store-{clients}"))
            for clients in sizes.clients
        }
        for clients, store in stores.items():
            progress.step(f"{clients:,} clients", clients / CLIENTS_A_SECOND)
            _fill(store, clients)
        keys = _make_keys(sizes, running, stores[sizes.clients[0]], progress)
        start = partial(growth_sites.start, running, rate=RATE)
        sites = [start(stores[case.clients], case, keys[case.keys]) for case in sizes.cases()]
        for site in sites:
            running.wait(site.server)
        growth = Growth(sizes, sites)
        growth.warm(progress)
        yield growth


def _fill(store: Store, clients: int) -> None:
    client = growth_stores.client(store)
    now = time.time_ns() // 1_000_000
    for _ in growth_counters.fill(client, RateLimit.parse(RATE), clients, [now]):
        pass
    if client.dbsize() != clients:
        raise RuntimeError(f"{client.dbsize()} counters for {clients} clients")


def _make_keys(sizes: Sizes, running: Servers, store: Store, progress: Progress) -> dict[int, Keys]:
    made = {}
    for count in sizes.keys:
        progress.step(_count(count, "key"), count / KEYS_A_SECOND)
        made[count] = Keys.make(running.folder / f"keys-{count}", count, store)
    return made


def _hits(store: Store) -> int:
    """Calls of the script so far."""
    stats = growth_stores.client(store).info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def warming_seconds(case: Case) -> float:
    return 2 + 2 * case.keys / WARMED_A_SECOND


def name(case: Case) -> str:
    return f"{_count(case.clients, 'client')}, {_count(case.keys, 'key')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
