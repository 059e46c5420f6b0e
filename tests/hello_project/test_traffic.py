from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any, cast

import pytest
from django.conf import settings
from django.core.cache import caches
from django.utils import timezone
from django_redis import get_redis_connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from apikeys.models import ApiKey
from hello_project import reports
from hello_project.embedded import EmbeddedStore
from hello_project.outcomes import Outcome, outcome_of, refused_by
from hello_project.traffic import (
    BUSIEST_BY_HOUR,
    CLIENTS_BY_HOUR,
    COUNTS_A_CALL,
    EVER,
    KEYS_BY_FIVE_MINUTES,
    KEYS_BY_HOUR,
    OUTCOMES_BY_HOUR,
    OUTCOMES_BY_MINUTE,
    SCRIPT,
    USAGE,
    Series,
    Traffic,
)
from tests.servers import Server, gunicorn, shared_environment, wait_for
from tests.traffic import get
from throttling.measurements import measurements

KEY = "abcdefghijkl"
MINUTE = 29_000_000
HOUR, DAY = MINUTE // 60, MINUTE // 60 // 24


@dataclass
class Clock:
    now: float = MINUTE * 60.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted(clock: Clock) -> Iterator[Traffic]:
    """Flushed by the test and by nothing else."""
    traffic = Traffic(flush_seconds=3600, clock=clock)
    yield traffic
    traffic.clear()
    traffic.stop()


def kept(store: Redis, series: Series, period: int) -> dict[str, int]:
    found: Any
    if series.kind == "zset":
        found = store.zrange(series.key(period), 0, -1, withscores=True)
    else:
        found = store.hgetall(series.key(period))
    return {field.decode(): int(count) for field, count in dict(found).items()}


@pytest.mark.parametrize(
    ("status", "key_id", "refused_policy", "outcome"),
    [
        (200, KEY, None, "admitted"),
        (204, None, None, "admitted"),
        (302, None, None, "admitted"),
        (400, KEY, None, "admitted"),
        (405, KEY, None, "admitted"),
        (429, KEY, None, "admitted"),
        (429, None, "ip", "refused:ip"),
        (429, KEY, "key", "refused:key"),
        (401, None, None, "unauthenticated"),
        (403, None, None, "forbidden"),
        (403, KEY, None, "forbidden"),
        (400, None, None, "invalid"),
        (404, None, None, "invalid"),
        (500, KEY, None, "error"),
        (503, None, "ip", "error"),
    ],
)
def test_a_request_has_one_outcome(
    status: int, key_id: str | None, refused_policy: str | None, outcome: str
) -> None:
    assert outcome_of(status, key_id, refused_policy) == outcome


def test_requests_are_summed_by_minute_hour_day_and_key(
    counted: Traffic, clock: Clock, store: Redis
) -> None:
    for _ in range(3):
        counted.note(Outcome.ADMITTED, KEY, "192.0.2.1")
    counted.note(refused_by("ip"), None, "192.0.2.1")
    counted.flush()
    clock.now += 60
    counted.note(Outcome.ADMITTED, KEY, "192.0.2.1")
    clock.now += 3600
    counted.note(refused_by("key"), KEY, "192.0.2.1")
    counted.flush()
    assert kept(store, OUTCOMES_BY_MINUTE, MINUTE) == {"admitted": 3, "refused:ip": 1}
    assert kept(store, OUTCOMES_BY_MINUTE, MINUTE + 1) == {"admitted": 1}
    assert kept(store, OUTCOMES_BY_MINUTE, MINUTE + 61) == {"refused:key": 1}
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"admitted": 4, "refused:ip": 1}
    assert kept(store, OUTCOMES_BY_HOUR, HOUR + 1) == {"refused:key": 1}
    assert kept(store, KEYS_BY_HOUR, HOUR) == {f"{KEY} admitted": 4}
    assert kept(store, KEYS_BY_HOUR, HOUR + 1) == {f"{KEY} refused:key": 1}
    assert kept(store, KEYS_BY_FIVE_MINUTES, MINUTE // 5) == {f"{KEY} admitted": 4}
    assert kept(store, BUSIEST_BY_HOUR, HOUR) == {KEY: 4}
    waiting = {f"{DAY} {KEY} admitted": 4, f"{DAY} {KEY} refused:key": 1}
    assert kept(store, USAGE, EVER) == waiting
    assert kept(store, CLIENTS_BY_HOUR, HOUR) == {"192.0.2.1": 1}
    assert kept(store, CLIENTS_BY_HOUR, HOUR + 1) == {"192.0.2.1": 1}


def test_each_key_of_the_store_is_named_as_documented_and_expires(
    counted: Traffic, store: Redis
) -> None:
    counted.note(refused_by("key"), KEY, "192.0.2.1")
    measurements.answered(0.001)
    counted.flush()
    number_key = counted._number_key
    assert number_key.startswith("{traffic}:flushed:")
    lifetimes = {
        f"{{traffic}}:minute:{MINUTE}": 2 * 3600,
        f"{{traffic}}:hour:{HOUR}": 31 * 86_400,
        f"{{traffic}}:keys:hour:{HOUR}": 26 * 3600,
        f"{{traffic}}:keys:minutes:{MINUTE // 5}": 70 * 60,
        f"{{traffic}}:busiest:{HOUR}": 26 * 3600,
        "{traffic}:usage:0": 32 * 86_400,
        f"{{traffic}}:refused:{HOUR}": 26 * 3600,
        "{traffic}:total:0": 400 * 86_400,
        "{traffic}:limiter:0": 400 * 86_400,
        number_key: 3600,
    }
    found: Any = store.scan_iter("*traffic*")
    assert {key.decode() for key in found} == set(lifetimes)
    for key, seconds in lifetimes.items():
        assert seconds - 10 <= store.ttl(key) <= seconds, key


def test_only_refused_clients_are_remembered(counted: Traffic, store: Redis) -> None:
    for outcome in Outcome:
        counted.note(outcome, None, "192.0.2.1")
    counted.note(refused_by("ip"), None, None)
    counted.flush()
    assert store.exists(CLIENTS_BY_HOUR.key(HOUR)) == 0


def test_clients_between_two_flushes_are_bounded_and_requests_are_not(
    clock: Clock, store: Redis
) -> None:
    counted = Traffic(3600, clock, clients_between_flushes=2)
    for client in "abcacbba":
        counted.note(refused_by("ip"), None, client)
    counted.flush()
    assert kept(store, CLIENTS_BY_HOUR, HOUR) == {"a": 3, "b": 3}
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"refused:ip": 8}
    counted.note(refused_by("ip"), None, "c")
    counted.flush()
    assert kept(store, CLIENTS_BY_HOUR, HOUR) == {"a": 3, "b": 3, "c": 1}
    counted.stop()


def test_the_store_keeps_the_thousand_clients_most_refused(counted: Traffic, store: Redis) -> None:
    for number in range(1_200):
        for _ in range(1 if number % 6 == 0 else 2):
            counted.note(refused_by("ip"), None, f"client {number}")
    counted.flush()
    clients = kept(store, CLIENTS_BY_HOUR, HOUR)
    assert len(clients) == 1_000
    assert set(clients.values()) == {2}


def test_a_flush_is_one_call_or_several_of_500_counts(counted: Traffic, store: Redis) -> None:
    counted.note(Outcome.ADMITTED, KEY, None)
    assert executed_by(counted.flush, store) == 1
    for number in range(COUNTS_A_CALL):
        counted.note(Outcome.ADMITTED, f"key {number}", None)
    # Each key is counted four times, and all of them once more by minute and by hour.
    assert executed_by(counted.flush, store) == 5
    assert executed_by(counted.flush, store) == 0
    assert sum(kept(store, USAGE, EVER).values()) == COUNTS_A_CALL + 1


def executed_by(flush: Callable[[], None], store: Redis) -> int:
    """How many calls of the script the store has executed meanwhile."""
    store.script_load(SCRIPT)
    store.config_resetstat()
    flush()
    statistics: Any = store.info("commandstats")
    return int(statistics.get("cmdstat_evalsha", {"calls": 0})["calls"])


class Yielding(str):
    """Whoever looks one up in a dictionary lets another thread run in the middle of it."""

    __slots__ = ()

    def __hash__(self) -> int:
        time.sleep(0)
        return super().__hash__()


def test_threads_that_count_at_once_lose_nothing(counted: Traffic, store: Redis) -> None:
    each, together = 500, threading.Barrier(9)

    def note() -> None:
        together.wait()
        for number in range(each):
            counted.note(Yielding(Outcome.ADMITTED), f"key {number % 7}", None)

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    together.wait()
    while any(thread.is_alive() for thread in threads):
        counted.flush()
    counted.flush()
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"admitted": 8 * each}
    assert sum(kept(store, USAGE, EVER).values()) == 8 * each


class Wire:
    """A way to the store on which flushes meet their `fates`, one each; the others arrive."""

    def __init__(self, store: Redis, path: Path) -> None:
        self.fates: deque[str] = deque()
        self.before_the_next: Callable[[], None] = lambda: None
        self.swallowed = b""
        self._store = store
        self._late: list[Callable[[], None]] = []
        self._connections: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends = [self._listener]
        self._beside(self._accept)

    def deliver_the_late(self) -> None:
        """Returns when the store has answered; nobody is there any more to hear it."""
        self.swallowed = b""
        self._late.pop()()
        wait_for(lambda: self.swallowed.endswith(b"\r\n"), seconds=5)

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):  # The other side has.
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _beside(self, target: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # Closed.
            while True:
                client, _ = self._listener.accept()
                connection: Any = self._store.connection_pool.make_connection()
                connection.connect()
                connection._sock.settimeout(None)
                self._connections.append(connection)  # Without it, its socket is closed.
                self._ends += [client, connection._sock]
                deaf = threading.Event()
                self._beside(self._send, client, connection._sock, deaf)
                self._beside(self._answer, connection._sock, client, deaf)

    def _send(self, client: socket.socket, store: socket.socket, deaf: threading.Event) -> None:
        while sent := client.recv(1_000_000):
            fate = "arrives"
            if b"EVALSHA\r\n" in sent:
                self.before_the_next()
                fate = self.fates.popleft() if self.fates else fate
            if fate != "arrives":
                deaf.set()
            if fate == "is late":
                self._late.append(partial(store.sendall, sent))
            elif fate != "is lost":
                store.sendall(sent)

    def _answer(self, store: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        while answer := store.recv(1_000_000):
            if deaf.is_set():
                self.swallowed += answer
            else:
                client.sendall(answer)


@pytest.fixture
def wire(store: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What this thread asks the store goes over it."""
    store.script_load(SCRIPT)
    with TemporaryDirectory(prefix="wire-") as folder:
        wire = Wire(store, Path(folder) / "socket")
        with asking_at(Path(folder) / "socket", monkeypatch):
            yield wire
        wire.close()


@contextmanager
def asking_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This thread finds its store there, and waits long enough for it on a busy machine."""
    retry, cache = Retry(NoBackoff(), 0), cast(Any, caches["default"])
    with (
        Redis(unix_socket_path=str(path), socket_timeout=0.2, retry=retry) as client,
        monkeypatch.context() as patch,
    ):
        patch.setattr(cache.client, "_clients", [client])
        yield


@pytest.mark.parametrize(("fate", "arrived"), [("loses its answer", 1), ("is lost", 0)])
def test_a_request_is_counted_once_whatever_the_fate_of_its_flush(
    counted: Traffic, wire: Wire, store: Redis, fate: str, arrived: int
) -> None:
    wire.fates.append(fate)
    counted.note(Outcome.ADMITTED, KEY, None)
    counted.flush()
    assert kept(store, OUTCOMES_BY_HOUR, HOUR).get("admitted", 0) == arrived
    counted.note(Outcome.ADMITTED, KEY, None)
    counted.flush()
    counted.flush()
    assert not wire.fates
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"admitted": 2}
    assert kept(store, USAGE, EVER) == {f"{DAY} {KEY} admitted": 2}


@pytest.mark.parametrize("moment", ["before it", "just before it", "after it"])
def test_a_flush_that_arrives_late_is_not_counted_beside_its_repetition(
    counted: Traffic, wire: Wire, store: Redis, moment: str
) -> None:
    wire.fates.append("is late")
    counted.note(Outcome.ADMITTED, KEY, None)
    counted.flush()
    assert store.exists(OUTCOMES_BY_HOUR.key(HOUR)) == 0
    if moment == "before it":
        wire.deliver_the_late()
    elif moment == "just before it":
        wire.before_the_next = wire.deliver_the_late
    counted.flush()
    if moment == "after it":
        wire.deliver_the_late()
        assert wire.swallowed == b":0\r\n"
    wire.before_the_next = lambda: None
    counted.flush()
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"admitted": 1}


@pytest.mark.parametrize("fate", ["loses its answer", "is lost"])
def test_a_flush_that_is_cut_off_in_the_middle_goes_on_there(
    counted: Traffic, wire: Wire, store: Redis, fate: str
) -> None:
    keys = [f"key {number}" for number in range(COUNTS_A_CALL)]
    wire.fates += ["arrives", fate]
    for key in keys:
        counted.note(Outcome.ADMITTED, key, None)
    counted.flush()
    assert len(kept(store, USAGE, EVER)) < len(keys)
    for key in keys:
        counted.note(Outcome.ADMITTED, key, None)
    counted.flush()
    assert kept(store, USAGE, EVER) == {f"{DAY} {key} admitted": 2 for key in keys}
    assert kept(store, OUTCOMES_BY_MINUTE, MINUTE) == {"admitted": 2 * len(keys)}


def test_while_the_store_is_down_counts_are_kept_and_it_is_said_once(
    counted: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with TemporaryDirectory(prefix="store-") as folder:
        embedded = EmbeddedStore(Path(folder))
        with asking_at(embedded.socket, monkeypatch):
            embedded.start()
            counted.note(Outcome.ADMITTED, KEY, None)
            counted.flush()
            embedded.stop()
            for _ in range(5):
                counted.note(Outcome.ADMITTED, KEY, None)
                counted.flush()
            assert len(caplog.messages) == 1
            assert caplog.messages[0].startswith("The store did not take the counts")
            embedded.start()
            counted.flush()
            assert caplog.messages[1:] == ["The store takes the counts again."]
            emptied: Redis = get_redis_connection("default")
            assert kept(emptied, OUTCOMES_BY_HOUR, HOUR) == {"admitted": 5}
            embedded.stop()


def test_while_the_store_is_down_the_clients_are_bounded_too(
    wire: Wire, clock: Clock, store: Redis
) -> None:
    counted = Traffic(3600, clock, clients_between_flushes=2)
    wire.fates += ["is lost"] * 3
    for two in ("ab", "cd", "ef"):
        for client in two:
            counted.note(refused_by("ip"), None, client)
        counted.flush()
    counted.flush()
    assert kept(store, CLIENTS_BY_HOUR, HOUR) == dict.fromkeys("abcd", 1)
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"refused:ip": 6}
    counted.stop()


def test_the_last_flush_is_tried_again(counted: Traffic, wire: Wire, store: Redis) -> None:
    wire.fates += ["loses its answer", "is lost", "is lost"]
    counted.note(Outcome.ADMITTED, KEY, None)
    counted.flush()
    counted.note(Outcome.ADMITTED, KEY, None)
    counted.stop()
    assert kept(store, OUTCOMES_BY_HOUR, HOUR) == {"admitted": 2}


def test_what_a_process_takes_with_it_is_logged(
    counted: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with asking_at(Path("/nonexistent/store.sock"), monkeypatch):
        counted.note(Outcome.ADMITTED, KEY, None)
        counted.flush()
        counted.note(Outcome.ADMITTED, KEY, None)
        counted.stop()
    assert caplog.messages[1:] == ["The counts of 2 requests are lost with this process."]


def test_a_process_that_ends_in_order_has_written_its_counts(store: Redis) -> None:
    run(
        """
        traffic.flush_seconds = 3600
        traffic.note("admitted", None, None)
        """
    )
    assert counts_by_outcome(store) == {"admitted": 1}


def test_a_child_of_multiprocessing_has_written_its_counts_when_it_ends(store: Redis) -> None:
    """Which is how granian's workers end: without what atexit knows."""
    run(
        """
        import multiprocessing
        traffic.flush_seconds = 3600
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=traffic.note, args=("admitted", None, None))
        child.start()
        child.join()
        """
    )
    assert counts_by_outcome(store) == {"admitted": 1}


def test_a_forked_child_writes_its_own_counts_and_not_its_parents(store: Redis) -> None:
    run(
        """
        import os
        traffic.flush_seconds = 3600
        traffic.note("admitted", None, None)
        child = os.fork()
        traffic.note("error", None, None)
        if child:
            os.waitpid(child, 0)
        """
    )
    assert counts_by_outcome(store) == {"admitted": 1, "error": 2}


def test_a_process_writes_once_a_second_without_being_asked(store: Redis) -> None:
    counted = Traffic(flush_seconds=0.01)
    counted.note(Outcome.ADMITTED, KEY, None)
    wait_for(lambda: counts_by_outcome(store) == {"admitted": 1}, seconds=5)
    counted.stop()
    assert Traffic().flush_seconds <= 1


def run(program: str) -> None:
    """In a process of its own, with the site's settings and the tests' store."""
    prelude = "import django\ndjango.setup()\nfrom hello_project.traffic import traffic\n"
    subprocess.run(
        [sys.executable, "-c", prelude + dedent(program)],
        cwd=settings.BASE_DIR,
        env={**os.environ, **shared_environment(), "DJANGO_SETTINGS_MODULE": SETTINGS},
        timeout=30,
        check=True,
    )


SETTINGS = "hello_project.settings"


def counts_by_outcome(store: Redis) -> dict[str, int]:
    """Of all hours: a test may see one end."""
    return summed(store, OUTCOMES_BY_HOUR)


def summed(store: Redis, series: Series) -> Counter[str]:
    keys: Any = store.scan_iter(f"{{traffic}}:{series.name}:*")
    total: Counter[str] = Counter()
    for key in keys:
        total.update(kept(store, series, int(key.rpartition(b":")[2])))
    return total


def test_a_reload_under_load_loses_no_count(
    transactional_db: None, store: Redis, tmp_path: Path
) -> None:
    """4 workers, 8 clients, a new connection for each request, and a SIGHUP on the way."""
    plain, limited = (ApiKey.objects.issue(name="tests", rate=rate) for rate in ("", "200/10s"))
    wrong = ApiKey(name="never saved").make_secret()
    keys = [plain[1]] * 4 + [limited[1]] * 2 + [wrong] * 2
    ids = {plain[1]: plain[0].pk, limited[1]: limited[0].pk}
    with gunicorn(tmp_path, TRUSTED_PROXIES="127.0.0.1", IP_RATE_LIMIT="300/10s") as server:
        answers = asyncio.run(answers_across_a_reload(server, keys))

    outcomes = Counter(outcome for _, _, outcome in answers)
    assert outcomes.total() >= REQUESTS
    assert set(outcomes) == {"admitted", "refused:ip", "refused:key", "unauthenticated"}
    assert summed(store, OUTCOMES_BY_HOUR) == outcomes
    assert summed(store, OUTCOMES_BY_MINUTE) == outcomes
    by_key = Counter(
        f"{ids[key]} {outcome}"
        for _, key, outcome in answers
        if outcome in ("admitted", "refused:key")
    )
    assert summed(store, KEYS_BY_HOUR) == summed(store, KEYS_BY_FIVE_MINUTES) == by_key
    totals = reports.totals_by_key(list(ids.values()), 2, timezone.now())
    assert {key_id: counts.total() for key_id, counts in totals.items()} == {
        key_id: sum(count for name, count in by_key.items() if name.startswith(key_id))
        for key_id in ids.values()
    }
    assert summed(store, CLIENTS_BY_HOUR) == Counter(
        client for client, _, outcome in answers if outcome.startswith("refused")
    )


REQUESTS = int(os.environ.get("TRAFFIC_REQUESTS", "6000"))

Answers = list[tuple[str, str, str]]
"""Client, key and outcome of each."""


async def answers_across_a_reload(server: Server, keys: list[str]) -> Answers:
    """One client a key; they go on until there are enough and no old worker is left."""
    answers: Answers = []
    reloaded = asyncio.Event()

    async def keep_asking(client: str, key: str) -> None:
        request = get(key, client)[:-2] + b"Connection: close\r\n\r\n"
        while len(answers) < REQUESTS or not reloaded.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            answers.append((client, key, outcome_in(await reader.read())))
            writer.close()

    async def reload() -> None:
        old = workers_of(server)
        while len(answers) < REQUESTS // 3:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGHUP)
        while old & workers_of(server):
            await asyncio.sleep(0.01)
        reloaded.set()

    clients = [keep_asking(f"198.51.100.{number}", key) for number, key in enumerate(keys)]
    await asyncio.gather(reload(), *clients)
    return answers


def workers_of(server: Server) -> set[str]:
    master = server.process.pid
    return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())


def outcome_in(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status == 429:
        return f"refused:{json.loads(body)['violated-policies'][0]}"
    return {200: "admitted", 401: "unauthenticated"}[status]
