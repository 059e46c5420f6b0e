"""Several requests' limits, asked for in one round trip."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from tests.throttling.test_throttles import BaseView, TwoInTen
from throttling import round_trips
from throttling.ahead import MOST_TOGETHER, ask_ahead
from throttling.limiter import Decision
from throttling.throttles import ASKED_AHEAD, AddressThrottle, Asked, breaker


class Three(AddressThrottle):
    rate = "3/10s"
    read_along = {"tests.read": "read"}


class UnlimitedInside(AddressThrottle):
    rate = "1/10s"

    def get_identifier(self, request: Request, view: Any) -> str | None:  # type: ignore[override]
        return None if request.META["REMOTE_ADDR"].startswith("10.") else "outside"


def ask(*addresses: str, throttle: AddressThrottle | None = None) -> list[dict[str, Any]]:
    throttle = throttle or Three()
    return ask_ahead([(throttle, None, {"REMOTE_ADDR": address}) for address in addresses])


def allowed(additions: list[dict[str, Any]]) -> list[bool]:
    return [addition[ASKED_AHEAD].decision.allowed for addition in additions]


def reads_by(store: Redis) -> int:
    return int(store.info("stats")["total_reads_processed"])


def test_each_is_decided_as_if_it_were_alone_and_in_its_order(store: Redis) -> None:
    additions = ask("192.0.2.1", "192.0.2.2", *["192.0.2.1"] * 3)
    assert allowed(additions) == [True, True, True, True, False]
    remaining = [addition[ASKED_AHEAD].decision.remaining for addition in additions]
    assert remaining == [2, 2, 1, 0, 0]


def test_all_take_one_round_trip_with_what_is_read_along(store: Redis) -> None:
    store.set("read", "7")
    ask("192.0.2.1")  # Connects, and gives the store the script.
    before = reads_by(store)
    additions = ask(*(f"192.0.2.{number}" for number in range(MOST_TOGETHER)))
    assert reads_by(store) - before == 2  # The other is that of INFO.
    assert [addition[ASKED_AHEAD].values for addition in additions] == [[b"7"]] * MOST_TOGETHER


def test_more_than_may_go_together_take_more_round_trips(store: Redis) -> None:
    ask("192.0.2.1")
    before = reads_by(store)
    assert all(allowed(ask(*(f"192.0.2.{number}" for number in range(2 * MOST_TOGETHER + 1)))))
    assert reads_by(store) - before == 4


def test_a_store_without_the_script_is_given_it_and_counts_once(store: Redis) -> None:
    store.script_flush()
    assert allowed(ask(*["192.0.2.1"] * 4)) == [True, True, True, False]


def test_what_is_refused_by_memory_or_not_limited_is_not_asked_for(store: Redis) -> None:
    assert not all(allowed(ask(*["192.0.2.1"] * 4)))
    before = reads_by(store)
    assert ask("192.0.2.1") == [{}]
    assert ask("10.0.0.1", throttle=UnlimitedInside()) == [{}]
    assert reads_by(store) - before == 1


def test_a_store_that_does_not_answer_is_one_failure_and_said_to_all(
    store: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_answer(*_: Any) -> None:
        raise RedisError("gone")

    monkeypatch.setattr(round_trips.RoundTrips, "__call__", no_answer)
    for _ in range(2):
        additions = ask("192.0.2.1", "192.0.2.2", "192.0.2.3")
        assert [addition[ASKED_AHEAD].decision for addition in additions] == [None] * 3
    assert not breaker.is_open
    ask("192.0.2.1")
    assert breaker.is_open
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_view_goes_by_what_was_asked_ahead_and_asks_no_more(store: Redis) -> None:
    request = APIRequestFactory().get("/", REMOTE_ADDR="192.0.2.1")
    [addition] = ask_ahead([(TwoInTen(), None, request.META)])
    request.META.update(addition)
    before = reads_by(store)
    response = BaseView.as_view()(request)
    assert response.headers["RateLimit"] == '"ip";r=1;t=11'
    assert reads_by(store) - before == 1
    assert ASKED_AHEAD not in request.META


def test_one_that_was_admitted_stays_so_when_another_of_its_client_was_refused(
    store: Redis,
) -> None:
    additions = ask(*["192.0.2.1"] * 3, throttle=TwoInTen())
    assert allowed(additions) == [True, True, False]
    assert [status(addition[ASKED_AHEAD]) for addition in additions] == [200, 200, 429]


def status(asked: Asked) -> int:
    request = APIRequestFactory().get("/", REMOTE_ADDR="192.0.2.1")
    request.META[ASKED_AHEAD] = asked
    return int(BaseView.as_view()(request).status_code)


def test_what_was_asked_for_another_client_is_not_gone_by(store: Redis) -> None:
    refusal = Decision(False, 0, 9.0, 9.0)
    assert status(Asked("rl:{ip:192.0.2.2}2/10s", refusal, [])) == 200
    assert status(Asked("rl:{ip:192.0.2.1}2/10s", refusal, [])) == 429


def test_without_the_store_each_of_them_is_decided_by_the_process(store: Redis) -> None:
    unanswered = Asked("rl:{ip:192.0.2.1}2/10s", None, [])
    statuses = [status(unanswered) for _ in range(3)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
