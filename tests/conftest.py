from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django_redis import get_redis_connection
from redis import Redis
from rest_framework.test import APIClient

from apikeys.last_used import last_used
from apikeys.models import ApiKey
from apikeys.records import records
from hello_project.embedded import EmbeddedStore
from hello_project.traffic import traffic
from hello_project.usage import usage
from tests import servers
from throttling.matches import gathered as matches
from throttling.measurements import measurements
from throttling.network_rules import rules_of_process, watcher
from throttling.refusals import refusals
from throttling.throttles import breaker, local_counter

CommandsSent = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture(scope="session", autouse=True)
def store_of_the_site() -> Iterator[None]:
    """The embedded store, where the settings look for it, unless TEST_REDIS_URL names another."""
    embedded = EmbeddedStore(settings.DATA_DIR) if settings.STORE_IS_EMBEDDED else None
    if embedded:
        embedded.start()
    for gathered in (last_used, traffic, usage):
        gathered.flush_seconds = 3600  # Nothing writes beside a test that does not ask for it.
    watcher.look_seconds = rules_of_process.trusted_seconds = 3600
    yield
    for memory in (last_used, traffic, measurements):
        memory.clear()
    if embedded:
        embedded.stop()
    shutil.rmtree(settings.DATA_DIR, ignore_errors=True)


@pytest.fixture(autouse=True)
def store(store_of_the_site: None) -> Redis:
    """The site's store, empty, and nothing remembered of the test before."""
    connection: Redis = get_redis_connection("default")
    connection.flushdb()
    for memory in (records, refusals, local_counter, last_used, traffic, measurements, matches):
        memory.clear()
    breaker.answered()
    rules_of_process.take([], None, time.monotonic())
    return connection


@pytest.fixture(scope="session", params=["valkey", "redis7"])
def server_of_each_kind(request: pytest.FixtureRequest) -> Iterator[Redis]:
    """A Valkey 9 and a Redis 7 of the tests' own."""
    with getattr(servers, request.param)() as client:
        yield client


@pytest.fixture
def each_store(server_of_each_kind: Redis) -> Redis:
    server_of_each_kind.flushall()
    return server_of_each_kind


@pytest.fixture
def issued(transactional_db: None) -> tuple[ApiKey, str]:
    """A key and its plaintext, committed: servers in other processes see it."""
    return ApiKey.objects.issue(name="tests")


@pytest.fixture
def commands_sent(store: Redis) -> CommandsSent:
    """What clients send to the store within the block; what a script calls there is left out."""

    @contextmanager
    def collect() -> Iterator[list[str]]:
        sent: list[str] = []
        # A client of its own, so that the site's keeps the connection that it has.
        with Redis.from_url(settings.REDIS_URL) as watcher, watcher.monitor() as monitor:
            yield sent
            store.echo("that is all")
            while True:
                command = monitor.next_command()
                if command["command"] == "ECHO that is all":
                    break
                if command["client_type"] != "lua":
                    sent.append(command["command"])

    return collect


@pytest.fixture
def api() -> APIClient:
    return APIClient()


@pytest.fixture
def server(issued: tuple[ApiKey, str], tmp_path: Path) -> Iterator[servers.Server]:
    """Four workers that take X-Forwarded-For from the tests."""
    with servers.gunicorn(tmp_path, TRUSTED_PROXIES="127.0.0.1") as running:
        yield running


os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(settings.DATA_DIR / "hypothesis"))
