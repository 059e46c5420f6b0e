"""The promises across processes: four gunicorn workers over one database and one store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from redis import Redis

from apikeys.models import ApiKey
from tests.servers import Server, gunicorn, wait_for
from tests.traffic import Connection, all_at_once, get
from throttling.limiter import RateLimit, SlidingWindowCounter


@pytest.fixture
def generous_server(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    with gunicorn(tmp_path, TRUSTED_PROXIES="127.0.0.1", IP_RATE_LIMIT="1000000/1s") as running:
        yield running


def test_of_200_simultaneous_requests_exactly_3_are_admitted_each_time(
    server: Server, issued: tuple[ApiKey, str]
) -> None:
    for trial in range(20):
        request = get(issued[1], f"198.51.100.{trial}")
        statuses = asyncio.run(all_at_once(server.port, [request] * 200))
        assert sorted(statuses) == [200] * 3 + [429] * 197, trial


def test_the_fourth_guess_is_refused_like_a_fourth_right_key(
    server: Server, issued: tuple[ApiKey, str]
) -> None:
    wrong = ApiKey(name="never saved").make_secret()
    guesses = [get(guess, "198.51.100.1") for guess in (wrong, "nonsense", wrong, issued[1])]

    async def one_after_the_other() -> list[int]:
        return [(await all_at_once(server.port, [guess]))[0] for guess in guesses]

    assert asyncio.run(one_after_the_other()) == [401, 401, 401, 429]


@pytest.mark.parametrize("way", ["command", "admin"])
def test_no_request_that_starts_after_a_revocation_is_accepted(
    generous_server: Server, way: str, admin_client: Client
) -> None:
    """100 trials each way: 8 clients hammer 4 workers with the key that is being revoked."""
    for _ in range(100):
        key, plaintext = ApiKey.objects.issue(name="doomed")
        requests = [get(plaintext, f"198.51.100.{client}") for client in range(8)]
        with hammering(generous_server.port, requests) as outcomes:
            wait_for_more(outcomes, 30)
            if way == "command":
                call_command("revoke_key", key.pk, stderr=StringIO())
            else:
                page = admin_client.post("/admin/apikeys/apikey/revoke/", {"id": [key.pk]})
                assert page.status_code == 302
            answered = time.monotonic()
            wait_for_more(outcomes, 30)
        before = {status for started, status in outcomes if started < answered}
        after = [status for started, status in outcomes if started >= answered]
        assert 200 in before
        assert len(after) >= 10
        assert set(after) == {401}


@pytest.fixture
def one_a_minute(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    rate = {"IP_RATE_LIMIT": "1/60s"}
    with gunicorn(tmp_path, workers=2, TRUSTED_PROXIES="127.0.0.1", **rate) as running:
        yield running


def test_a_flood_of_refusals_asks_nothing_of_the_store(
    one_a_minute: Server, issued: tuple[ApiKey, str], store: Redis
) -> None:
    """Beside the flush of the counts, with which each process asks whether its refusals hold."""
    flood = [get(issued[1], "198.51.100.1")] * 8
    with hammering(one_a_minute.port, flood) as outcomes:
        wait_for(lambda: flushes(store) >= 4)  # Both processes know, and that it still holds.
        began = len(outcomes)
        commands = commands_until(lambda: len(outcomes) > began + 3_000)
    assert [status for _, status in outcomes].count(200) == 1
    others = [line for line in commands if "{traffic}:" not in line]
    assert len(others) < len(commands)
    assert set(others) <= {"GET throttling:changes"}


def flushes(store: Redis) -> int:
    numbers = store.mget(store.keys("{traffic}:flushed:*") or ["none"])
    return sum(int(number or 0) for number in numbers)


def commands_until(enough: Callable[[], bool]) -> list[str]:
    """What the store is asked meanwhile; a second without anything fails the test."""
    client: Any = Redis.from_url(settings.REDIS_URL, socket_timeout=2)
    commands = []
    with client.monitor() as monitor:
        while not enough():
            commands.append(monitor.next_command()["command"])
    return commands


def test_a_reset_takes_effect_on_a_flood_within_a_second(
    one_a_minute: Server, issued: tuple[ApiKey, str], store: Redis
) -> None:
    flood = [get(issued[1], "198.51.100.1")] * 4
    with hammering(one_a_minute.port, flood) as outcomes:
        wait_for(lambda: flushes(store) >= 4)
        reset_at = time.monotonic()
        SlidingWindowCounter(RateLimit.parse("1/60s")).reset("ip:198.51.100.1")
        wait_for(lambda: [status for _, status in outcomes].count(200) == 2, seconds=5)
        assert time.monotonic() - reset_at < 1.5  # The machine is as busy as the flood makes it.


def wait_for_more(outcomes: list[tuple[float, int]], count: int) -> None:
    enough = len(outcomes) + count
    wait_for(lambda: len(outcomes) >= enough)


@contextmanager
def hammering(port: int, requests: list[bytes]) -> Iterator[list[tuple[float, int]]]:
    """One client for each request sends it over and over; (moment of the start, status)."""
    outcomes: list[tuple[float, int]] = []
    stop = threading.Event()

    async def hammer(request: bytes) -> None:
        connection = await Connection.open(port)
        while not stop.is_set():
            started = time.monotonic()
            outcomes.append((started, await connection.ask(request)))
        connection.writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(hammer(request) for request in requests))

    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(asyncio.run, all_of_them())
        try:
            yield outcomes
        finally:
            stop.set()
        done.result()
