"""Asking what is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import override_settings
from redis import Redis
from redis.exceptions import ConnectionError as StoreGone
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from tests.hello_project.raw import request, send
from tests.servers import Server
from throttling.limiter import SlidingWindowCounter
from throttling.throttles import breaker

Issued = tuple[ApiKey, str]


def enquire(api: APIClient, key: str, **headers: str) -> Any:
    return api.get("/rate-limit", headers={"X-API-Key": key} | headers)


def test_it_tells_the_callers_limits_and_what_is_left(api: APIClient, issued: Issued) -> None:
    whole = {"policy": "ip", "limit": 3, "window": 10, "remaining": 3, "reset_after": 0.0}
    assert enquire(api, issued[1]).json() == {"policies": [whole]}
    api.get("/", headers={"X-API-Key": issued[1]})
    answer = enquire(api, issued[1])
    [policy] = answer.json()["policies"]
    assert (policy["remaining"], policy["limit"], policy["window"]) == (2, 3, 10)
    assert 9 < policy["reset_after"] <= 10.1
    assert answer["RateLimit-Policy"] == '"ip";q=3;w=10, "rate-limit";q=30;w=10'
    assert answer["RateLimit"].startswith('"ip";r=2;t=')


def test_a_key_with_a_rate_of_its_own_has_two(api: APIClient, transactional_db: None) -> None:
    _, plaintext = ApiKey.objects.issue(name="own", rate="100/1m")
    api.get("/", headers={"X-API-Key": plaintext})
    by_name = {each["policy"]: each for each in enquire(api, plaintext).json()["policies"]}
    assert by_name["ip"]["remaining"] == 2
    assert (by_name["key"]["limit"], by_name["key"]["window"]) == (100, 60)
    assert by_name["key"]["remaining"] == 99


def test_it_uses_up_nothing_and_answers_when_nothing_is_left(
    api: APIClient, issued: Issued
) -> None:
    for _ in range(10):
        assert enquire(api, issued[1]).json()["policies"][0]["remaining"] == 3
    for _ in range(4):
        last = api.get("/", headers={"X-API-Key": issued[1]})
    assert last.status_code == 429
    answer = enquire(api, issued[1])
    assert answer.status_code == 200
    assert answer.json()["policies"][0]["remaining"] == 0


def test_guessing_here_is_limited_as_anywhere(api: APIClient, issued: Issued) -> None:
    guess = ApiKey(pk=issued[0].pk).make_secret()
    statuses = [enquire(api, guess).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]
    assert api.get("/", headers={"X-API-Key": issued[1]}).status_code == 429
    assert [api.get("/rate-limit").status_code for _ in range(2)] == [429, 429]


def test_a_refusal_to_guess_tells_which_limit_it_was(api: APIClient, issued: Issued) -> None:
    for _ in range(4):
        refused = enquire(api, "nonsense")
    assert refused.status_code == 429
    assert refused.json()["violated-policies"] == ["ip"]
    assert refused["Retry-After"] in ("10", "11")


def test_it_has_a_limit_of_its_own(server: Server, issued: Issued) -> None:
    asked = b"GET /rate-limit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    asked += b"X-Forwarded-For: 203.0.113.4\r\nX-API-Key: " + issued[1].encode() + b"\r\n\r\n"
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: send(server.port, asked), range(100)))
    assert sorted(answer.status for answer in answers) == [200] * 30 + [429] * 70
    refused = next(answer for answer in answers if answer.status == 429)
    assert b'"violated-policies": ["rate-limit"]' in refused.body


def test_a_revoked_key_is_refused_here_too(api: APIClient, issued: Issued) -> None:
    issued[0].revoke()
    assert enquire(api, issued[1]).status_code == 401


@pytest.mark.parametrize("policy", ["local", "deny", "allow"])
def test_without_the_store_nobody_knows(
    api: APIClient, issued: Issued, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    def gone(*_: object) -> None:
        raise StoreGone

    monkeypatch.setattr(SlidingWindowCounter, "_call", gone)
    monkeypatch.setattr("throttling.throttles.hit_together", gone)
    with override_settings(STORE_FAILURE=policy):
        answer = enquire(api, issued[1])
        assert answer.status_code == 503
        assert answer["Content-Type"] == "application/problem+json"
        assert answer["Retry-After"] == "1"
        unauthenticated = api.get("/rate-limit").status_code
        assert unauthenticated == (503 if policy == "deny" else 401)
    breaker.answered()


def test_it_is_asked_ahead_like_the_others(server: Server, issued: Issued, store: Redis) -> None:
    key = b"X-API-Key: " + issued[1].encode()
    for _ in range(5):
        assert send(server.port, request(b"GET /rate-limit HTTP/1.1", key)).status == 200
    assert not [name for name in store.keys("rl:*") if b"{ip:" in name]
