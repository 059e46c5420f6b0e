"""The servers of the peers, and what is measured of them."""

from __future__ import annotations

import os
import random
import secrets
import socket
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import wrk
from report import Progress
from servers import Server, Servers, Store, machine_seconds
from targets import ADMITTED, REFERENCE, REFUSED, Target

CLIENTS: Final = 2_000
CORES: Final = os.cpu_count() or 1
LEAST_REFUSED: Final = 0.99
LONGEST_PRIMING: Final = 30
PRIMING_WEIGHT: Final = 2
CLIENTS_USED: Final = [f"198.18.{number // 250}.{number % 250 + 1}" for number in range(CLIENTS)]
"""Addresses of the network that RFC 2544 sets aside for benchmarks."""


@dataclass(frozen=True)
class Case:
    name: str
    clients: int
    rate: str

    def takes(self, instance: Instance) -> bool:
        """The reference stands beside each case; other targets without a limit refuse nothing."""
        return instance.rate == self.rate or instance.target is REFERENCE


CASES: Final = [
    Case("admitted, 1 client", 1, ADMITTED),
    Case(f"admitted, {CLIENTS:,} clients", CLIENTS, ADMITTED),
    Case("refused, 1 client", 1, REFUSED),
    Case(f"refused, {CLIENTS:,} clients", CLIENTS, REFUSED),
]


@dataclass(frozen=True)
class Cell:
    """One target in one case in one round. `ratio` is its requests/s to the reference's there."""

    load: wrk.Load
    server_us: float
    """Processor time a request, of the server and its workers."""
    store_us: float
    foreign_share: float
    """Of the machine's processor time, what went to others than server, store, client and us."""
    ratio: float = 1.0


class Unexpected(Exception):
    """A server answered otherwise than the case expects; the message says how."""


@dataclass(frozen=True)
class Instance:
    """A target's server at one rate, and each client's request to it."""

    target: Target
    rate: str
    server: Server
    requests: Sequence[str]

    @property
    def status(self) -> int:
        return 429 if self.target.is_limited and self.rate == REFUSED else 200

    def prime(self) -> None:
        """Warm the server up and use up what its clients may; look at each answer's status.

        Raises Unexpected.
        """
        following = deque(self.requests)
        for _ in range(LONGEST_PRIMING):
            load = wrk.run(self.server.port, following, 1, count_statuses=True)
            following.rotate(-load.requests)
            if set(load.statuses) - {200, self.status} or not load.statuses:
                raise Unexpected(f"answered {dict(load.statuses)}")
            if load.statuses.get(self.status, 0) > load.requests * LEAST_REFUSED:
                return
        raise Unexpected(f"still answered {dict(load.statuses)} after {LONGEST_PRIMING} s")

    def measure(self, clients: int, seconds: int, store: Store) -> Cell:
        before = self._clocks(store)
        load = wrk.run(self.server.port, self.requests[:clients], seconds)
        after = self._clocks(store)
        spent = [b - a for a, b in zip(before, after, strict=True)]
        served, stored, ours, machine, elapsed = spent
        requests = max(load.requests, 1)
        return Cell(
            load,
            server_us=served * 1e6 / requests,
            store_us=stored * 1e6 / requests,
            foreign_share=max(machine - served - stored - ours, 0) / elapsed / CORES,
        )

    def _clocks(self, store: Store) -> tuple[float, ...]:
        """Seconds so far: of the server, the store, client and us, the machine, the wall."""
        return (
            self.server.cpu_seconds(),
            store.server.cpu_seconds(),
            sum(os.times()[:4]),
            machine_seconds(),
            time.monotonic(),
        )

    def check(self, load: wrk.Load) -> None:
        """Raises Unexpected."""
        refused = self.status == 429
        expected = load.refusals if refused else load.requests - load.refusals
        if not load.requests or expected < load.requests * (LEAST_REFUSED if refused else 1):
            raise Unexpected(f"{expected} of {load.requests} answers were {self.status}")
        if load.socket_errors:
            raise Unexpected(f"{load.socket_errors} socket errors")
        if (status := self._ask()) != self.status:
            raise Unexpected(f"answered {status} after the run, not {self.status}")

    def _ask(self) -> int:
        address = ("127.0.0.1", self.server.port)
        try:
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(self.requests[0].encode())
                return int(connection.makefile("rb").readline().split()[1])
        except (OSError, IndexError) as error:
            raise Unexpected("did not answer after the run") from error


def start(running: Servers, store: Store, targets: Sequence[Target]) -> list[Instance]:
    """Each target at each of its rates, on a server of its own; returns when all accept."""
    databases = range(0, 2 * len(targets), 2)
    fleets = [_Fleet(running, store, *one) for one in zip(targets, databases, strict=True)]
    for fleet in fleets:
        fleet.start()
    with ThreadPoolExecutor(2) as pool:  # While the servers start.
        keys = list(pool.map(_Fleet.make_key, fleets))
    for fleet in fleets:
        for server in fleet.servers.values():
            running.wait(server)
    return [
        instance
        for fleet, key in zip(fleets, keys, strict=True)
        for instance in fleet.instances(key)
    ]


class _Fleet:
    """One target's servers: they share its folder and its key, and each has a database of its own.

    The first one's has the number `database`, in the store.
    """

    def __init__(self, running: Servers, store: Store, target: Target, database: int) -> None:
        self.servers: dict[str, Server] = {}
        self._running, self._store, self._target = running, store, target
        self._database = database
        self._folder = running.folder / target.slug
        self._folder.mkdir()
        self._key = secrets.token_urlsafe(32)

    def start(self) -> None:
        rates = (ADMITTED, REFUSED) if self._target.is_limited else (ADMITTED,)
        for offset, rate in enumerate(rates):
            self.servers[rate] = self._running.start(
                self._target.name,
                self._target.command,
                cwd=self._target.cwd,
                environment=self._environment(rate, self._database + offset),
            )

    def make_key(self) -> str:
        if self._target.make_key is None:
            return self._key
        return self._target.make_key(self._environment(ADMITTED, self._database))

    def instances(self, key: str) -> Iterator[Instance]:
        for rate, server in self.servers.items():
            host = {"Host": f"127.0.0.1:{server.port}", **self._target.headers(key)}
            requests = [wrk.get("/", host | {"X-Forwarded-For": client}) for client in CLIENTS_USED]
            yield Instance(self._target, rate, server, requests)

    def _environment(self, rate: str, database: int) -> dict[str, str]:
        url = self._store.url(database)
        return self._target.environment(self._folder, self._key, rate, url)


class Comparison:
    """Measures instances, the reference's among them, in rounds."""

    def __init__(self, instances: Sequence[Instance], store: Store) -> None:
        self.cells: dict[tuple[Case, Target], list[Cell]] = defaultdict(list)
        """A cell for each round."""
        self.deviations: list[str] = []
        """Sentences on what was answered otherwise than expected."""
        self._instances = list(instances)
        self._store = store

    def prime(self, progress: Progress) -> None:
        """Leaves out a target that answers otherwise than expected."""
        for instance in list(self._instances):
            progress.step(f"priming {instance.target.name}", PRIMING_WEIGHT)
            try:
                instance.prime()
            except (Unexpected, wrk.NoConnection) as error:
                self._leave_out(instance, error)

    def run_round(self, seconds: int, progress: Progress) -> None:
        """Every target once in each case, in random order."""
        for case in CASES:
            chosen = [instance for instance in self._instances if case.takes(instance)]
            random.shuffle(chosen)
            cells = {}
            for instance in chosen:
                progress.step(f"{case.name}: {instance.target.name}", seconds)
                try:
                    cells[instance.target] = self._measure(instance, case, seconds)
                except wrk.NoConnection as error:
                    self._leave_out(instance, error)
            reference = cells[REFERENCE].load.rate
            for target, cell in cells.items():
                ratio = cell.load.rate / reference
                self.cells[case, target].append(replace(cell, ratio=ratio))

    def steps(self) -> int:
        """Measurements in a round."""
        return sum(case.takes(instance) for case in CASES for instance in self._instances)

    def _leave_out(self, instance: Instance, error: Exception) -> None:
        if instance.target is REFERENCE:
            sys.exit(f"{REFERENCE.name}, the reference: {error}")
        self.deviations.append(f"{instance.target.name} at {instance.rate}, left out: {error}")
        self._instances.remove(instance)

    def _measure(self, instance: Instance, case: Case, seconds: int) -> Cell:
        cell = instance.measure(case.clients, seconds, self._store)
        try:
            instance.check(cell.load)
        except Unexpected as unexpected:
            self.deviations.append(f"{instance.target.name}, {case.name}: {unexpected}")
        return cell
