"""The console with many keys and a month of usage: 100,000 on PostgreSQL, fewer on SQLite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from apikeys.models import ApiKey
from tests.hello_project import month_of_usage

KEYS: Final = 100_000 if connection.vendor == "postgresql" else 2_000
ALLOWED_SECONDS: Final = 0.3
ATTEMPTS: Final = 7
LIST: Final = "/admin/apikeys/apikey/"


@pytest.fixture
def many_keys(transactional_db: None, store: Redis) -> Iterator[list[str]]:
    """Their ids."""
    yield month_of_usage.load(KEYS, timezone.now())
    month_of_usage.forget()


def fastest(ask: Callable[[], Any]) -> float:
    """Of several, since the machine has other things to do; the first ones warm up."""
    seconds = []
    for _ in range(ATTEMPTS):
        begun = time.perf_counter()
        answer = ask()
        seconds.append(time.perf_counter() - begun)
        assert answer.status_code == 200
    return min(seconds)


def test_list_search_and_traffic_are_quick_whatever_there_is(
    many_keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    User.objects.create_superuser("ann", password="password")
    client = Client()
    client.force_login(User.objects.get())
    middle = many_keys[len(many_keys) // 2]
    pages = {
        "list": LIST,
        "last page of the list": f"{LIST}?p={KEYS // 100}",
        "search by name": f"{LIST}?q=key+{KEYS // 2}",
        "search by key id": f"{LIST}?q={middle}",
        "filter by status": f"{LIST}?status=active",
        "filter by use": f"{LIST}?use=never",
        "a key": f"{LIST}{middle}/change/",
        "traffic": "/admin/",
        "traffic, refreshed": "/admin/traffic/",
    }
    took, queries = {}, {}
    for name, path in pages.items():
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert client.get(path).status_code == 200
        queries[name] = len(captured)
        took[name] = fastest(lambda path=path: client.get(path))  # type: ignore[misc]
    with capsys.disabled():
        for name in pages:
            print(f"\n  {name}: {took[name] * 1000:.0f} ms, {queries[name]} queries", end="")
    assert {name: count for name, count in queries.items() if count > 9} == {}
    assert {name: seconds for name, seconds in took.items() if seconds > ALLOWED_SECONDS} == {}
    ApiKey.objects.exclude(pk=middle).delete()
    _few_keys_take_as_many_queries(client, pages, queries)


def _few_keys_take_as_many_queries(
    client: Client, pages: dict[str, str], queries: dict[str, int]
) -> None:
    for name in ("list", "search by key id", "a key", "traffic, refreshed"):
        with CaptureQueriesContext(connection) as captured:
            assert client.get(pages[name]).status_code == 200
        assert len(captured) <= queries[name], name
