from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.cache import caches
from django.db.models import QuerySet
from django.test import override_settings
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from tests.throttling.reference import Reference
from throttling import throttles
from throttling.limiter import RateLimit, SlidingWindowCounter
from throttling.outage import Breaker, LocalCounter, share_of


@dataclass
class Seconds:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_after_three_failures_in_a_row_and_probes_once_a_second() -> None:
    clock = Seconds()
    breaker = Breaker(clock)
    for _ in range(2):
        breaker.failed(ConnectionError())
    breaker.answered()
    for _ in range(3):
        assert breaker.may_ask()
        breaker.failed(ConnectionError())
    assert breaker.is_open
    assert not breaker.may_ask()
    clock.now += 1.0
    assert [breaker.may_ask() for _ in range(3)] == [True, False, False]
    clock.now += 1.0
    assert breaker.may_ask()
    breaker.answered()
    assert [breaker.may_ask() for _ in range(3)] == [True, True, True]


def test_the_breaker_knows_since_when_it_is_open() -> None:
    breaker = Breaker()
    assert breaker.opened_at is None
    before = timezone.now()
    for _ in range(3):
        breaker.failed(ConnectionError())
    opened_at = breaker.opened_at
    assert opened_at is not None
    assert before <= opened_at <= timezone.now()
    breaker.failed(ConnectionError())
    assert breaker.opened_at == opened_at
    breaker.answered()
    assert breaker.opened_at is None


@pytest.mark.parametrize(("limit", "window_ms"), [(1, 50), (3, 10_000), (10, 2_000), (5, 333)])
def test_the_counter_in_the_process_decides_as_the_reference_does(
    limit: int, window_ms: int
) -> None:
    chance = random.Random(7)
    now = 1_700_000_000_000
    counter = LocalCounter(clock=lambda: now)
    reference = Reference(limit, window_ms)
    for _ in range(500):
        now += chance.randrange(window_ms // 2)
        decision = counter.hit("client", RateLimit(limit, window_ms / 1000))
        expected = reference.hit(now, 1)
        assert decision.allowed == expected.allowed
        assert decision.remaining == expected.remaining
        assert round(decision.retry_after * 1000) == expected.retry_after_ms
        assert round(decision.reset_after * 1000) == expected.reset_after_ms


def test_the_counter_in_the_process_is_bounded() -> None:
    counter = LocalCounter(capacity=2, clock=lambda: 0)
    rate = RateLimit(1, 10)
    assert [counter.hit(name, rate).allowed for name in "abca"] == [True, True, True, True]
    assert not counter.hit("c", rate).allowed


def test_the_shares_of_all_processes_are_the_limit_or_one_each() -> None:
    assert share_of(RateLimit(100, 60), 4) == RateLimit(25, 60)
    assert share_of(RateLimit(3, 10), 2) == RateLimit(1, 10)
    assert share_of(RateLimit(3, 10), 8) == RateLimit(1, 10)


@pytest.fixture
def dead_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection of the site goes to a socket that nobody listens on."""
    nobody = Redis(unix_socket_path="/nonexistent/redis.sock", retry=Retry(NoBackoff(), 0))
    client: Any = caches["default"]
    monkeypatch.setattr(client.client, "_clients", [nobody])
    throttles.limiter_for.cache_clear()
    yield
    throttles.limiter_for.cache_clear()


def statuses(api: APIClient, key: str, count: int) -> list[int]:
    return [api.get("/", headers={"X-API-Key": key}).status_code for _ in range(count)]


@pytest.mark.usefixtures("dead_store")
def test_without_the_store_the_process_admits_its_share(
    api: APIClient, issued: tuple[ApiKey, str], caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(WEB_CONCURRENCY=1):
        assert statuses(api, issued[1], 5) == [200, 200, 200, 429, 429]
    told = [record for record in caplog.records if record.name == "throttling.outage"]
    assert len(told) == 1


@pytest.mark.usefixtures("dead_store")
def test_deny_answers_503_with_retry_after(api: APIClient, issued: tuple[ApiKey, str]) -> None:
    with override_settings(STORE_FAILURE="deny"):
        answer = api.get("/", headers={"X-API-Key": issued[1]})
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.usefixtures("dead_store")
def test_allow_admits_but_still_authenticates(api: APIClient, issued: tuple[ApiKey, str]) -> None:
    with override_settings(STORE_FAILURE="allow"):
        assert statuses(api, issued[1], 5) == [200] * 5
        assert statuses(api, "wrong", 1) == [401]
        # Django's own update: ours would tell the store, which is not there.
        QuerySet.update(ApiKey.objects.filter(pk=issued[0].pk), revoked_at=timezone.now())
        assert statuses(api, issued[1], 1) == [401]


def test_the_fixture_above_really_cuts_the_store_off(dead_store: None) -> None:
    with pytest.raises(Exception, match="nonexistent"):
        SlidingWindowCounter(RateLimit(3, 10)).hit("client")
