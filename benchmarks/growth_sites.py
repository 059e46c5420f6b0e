"""The project under gunicorn, with so many clients and keys."""

from __future__ import annotations

import random
import shutil
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import wrk
from comparison import Unexpected
from growth_counters import address
from servers import PROJECT, START_SECONDS, Server, Servers, Store, run
from targets import THIS, WORKERS

from hello_project.gunicorn_worker import REQUESTS_A_CONNECTION

_PROBE: Final = wrk.get("/livez", {"Host": "127.0.0.1"}).encode()


@dataclass(frozen=True)
class Case:
    """So many clients with a counter in the store, and so many keys in the database."""

    clients: int
    keys: int


@dataclass(frozen=True)
class Keys:
    """A database and the keys in it."""

    database: Path
    plaintexts: Sequence[str]

    @classmethod
    def make(cls, folder: Path, count: int, store: Store) -> Keys:
        folder.mkdir()
        command = [sys.executable, str(PROJECT / "benchmarks" / "growth_keys.py"), str(count)]
        environment = THIS.environment(folder, "", "3/10s", store.url(15))
        output = run(command, cwd=PROJECT, environment=environment)
        return cls(folder / "db.sqlite3", output.split())


@dataclass(frozen=True)
class Site:
    case: Case
    keys: Sequence[str]
    store: Store
    server: Server
    environment: Mapping[str, str]
    """That of the server, for commands that run beside it."""

    def request(self, client: int, key: str, *, is_last: bool = False) -> str:
        headers = {
            "Host": f"127.0.0.1:{self.server.port}",
            "Authorization": f"Bearer {key}",
            "X-Forwarded-For": address(client),
        }
        return wrk.get("/", headers | ({"Connection": "close"} if is_last else {}))

    def requests(self, count: int) -> list[str]:
        """Each by a client and with a key at random."""
        clients = random.choices(range(1, self.case.clients + 1), k=count)
        keys = random.choices(self.keys, k=count)
        return [self.request(*both) for both in zip(clients, keys, strict=True)]

    def workers(self) -> list[int]:
        """Waits until all are there: gunicorn listens before it has any."""
        deadline = time.monotonic() + START_SECONDS
        while len(found := _children_of(self.server.process.pid)) != WORKERS:
            if time.monotonic() > deadline:
                sys.exit(f"{self.server.name} has {len(found)} workers, not {WORKERS}.")
            time.sleep(0.05)
        return found

    def warm(self) -> None:
        """Let each worker answer each key once. Raises Unexpected."""
        queues = {worker: deque(enumerate(self.keys)) for worker in self.workers()}
        with ThreadPoolExecutor(len(queues)) as pool:
            for one in [pool.submit(self._empty, queues) for _ in queues]:
                one.result()

    def _empty(self, queues: Mapping[int, deque[tuple[int, str]]]) -> None:
        """Over connection after connection, each to whichever worker takes it."""
        while any(queues.values()):
            with socket.create_connection(("127.0.0.1", self.server.port), 30) as connection:
                connection.sendall(_PROBE)
                connection.recv(65_536)
                queue = queues[_peer_of(connection, list(queues))]
                # The probe is the first of the connection's requests.
                part = _taken(queue, REQUESTS_A_CONNECTION - 1)
                if not part:
                    time.sleep(0.01)  # The other worker is busy; its turn comes.
                    continue
                self._send(connection, part)

    def _send(self, connection: socket.socket, part: Sequence[tuple[int, str]]) -> None:
        requests = [
            self.request(number % self.case.clients + 1, key, is_last=(number, key) == part[-1])
            for number, key in part
        ]
        connection.sendall("".join(requests).encode())
        answers = b""
        while arrived := connection.recv(65_536):
            answers += arrived
        if (good := answers.count(b"HTTP/1.1 200 ")) != len(part):
            raise Unexpected(f"{good} of {len(part)} answers were 200 while warming up")


def start(running: Servers, store: Store, case: Case, keys: Keys, rate: str) -> Site:
    """Over the store's database 0 and a copy of the keys' database. `Servers.wait` comes next."""
    folder = running.folder / f"site-{case.clients}-{case.keys}"
    folder.mkdir()
    shutil.copy(keys.database, folder)
    environment = THIS.environment(folder, "", rate, store.url(0))
    server = running.start(THIS.name, THIS.command, cwd=THIS.cwd, environment=environment)
    return Site(case, keys.plaintexts, store, server, environment)


def _children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It ended meanwhile.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return sorted(found)


def resident_mb(pid: int) -> float:
    """VmRSS in units of 1,000,000 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


def warnings(server: Server) -> list[str]:
    """The lines of a server's log that are warnings or worse."""
    lines = server.log.read_text(errors="replace").splitlines()
    return [line for line in lines if any(level in line for level in (" WARNING ", " ERROR "))]


def _taken(queue: deque[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    taken: list[tuple[int, str]] = []
    with suppress(IndexError):  # Another thread takes from it too.
        while len(taken) < most:
            taken.append(queue.popleft())
    return taken


def _peer_of(connection: socket.socket, workers: Sequence[int]) -> int:
    """The worker at the other end. Raises Unexpected."""
    theirs, ours = _hex(connection.getpeername()), _hex(connection.getsockname())
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1:3] == [theirs, ours]:
            for worker in workers:
                if _holds(worker, f"socket:[{fields[9]}]"):
                    return worker
    raise Unexpected("a connection that no worker holds")


def _hex(ends: tuple[str, int]) -> str:
    """As /proc/net/tcp writes an address, in the machine's byte order, and a port."""
    host = int.from_bytes(socket.inet_aton(ends[0]), sys.byteorder)
    return f"{host:08X}:{ends[1]:04X}"


def _holds(pid: int, name: str) -> bool:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # It was closed meanwhile.
            if str(link.readlink()) == name:
                return True
    return False
