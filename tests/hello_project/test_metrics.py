"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, override_settings
from django.utils import timezone
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from redis import Redis
from redis.exceptions import ConnectionError as StoreGone
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from hello_project import metrics
from hello_project.traffic import traffic
from tests.hello_project.raw import request, send
from tests.servers import Server
from throttling.addresses import parse_networks
from throttling.measurements import BOUNDS, measurements
from throttling.throttles import breaker

Issued = tuple[ApiKey, str]
TOKEN = "a token of at least 32 characters".replace(" ", "-")


@pytest.fixture
def open_to_the_tests() -> Iterator[None]:
    with override_settings(METRICS_NETWORKS=parse_networks("127.0.0.1")):
        yield


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def value(found: dict[str, Metric], family: str, sample: str, **labels: str) -> float:
    [only] = [
        each.value
        for each in found[family].samples
        if each.name == sample and each.labels == labels
    ]
    return only


def read(client: Client) -> dict[str, Metric]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return families(answer.content.decode())


def test_each_outcome_is_counted_under_its_policy(
    api: APIClient, issued: Issued, open_to_the_tests: None
) -> None:
    for _ in range(5):
        api.get("/", headers={"X-API-Key": issued[1]})
    api.get("/", REMOTE_ADDR="192.0.2.1")
    api.get("/nothing")
    traffic.flush()
    found = read(api)
    expected = {
        ("admitted", ""): 3,
        ("refused", "ip"): 2,
        ("unauthenticated", ""): 1,
        ("invalid", ""): 1,
        ("refused", "key"): 0,
        ("refused", "rate-limit"): 0,
        ("forbidden", ""): 0,
        ("error", ""): 0,
    }
    for (outcome, policy), count in expected.items():
        labels = {"outcome": outcome, "policy": policy}
        assert value(found, "hello_requests", "hello_requests_total", **labels) == count
    assert len(found["hello_requests"].samples) == len(expected)


def test_the_scripts_round_trips_are_a_histogram(
    api: APIClient, open_to_the_tests: None, db: None
) -> None:
    name = "hello_limiter_script_duration_seconds"
    for seconds in (0.000_05, 0.000_1, 0.000_11, 0.003, 7):
        measurements.answered(seconds)
    traffic.flush()
    found = read(api)
    counts = {
        bound: value(found, name, f"{name}_bucket", le=str(bound)) for bound in (*BOUNDS, "+Inf")
    }
    assert counts[0.000_1] == 2
    assert counts[0.000_25] == counts[0.002_5] == 3
    assert counts[0.005] == counts[0.1] == 4
    assert counts["+Inf"] == value(found, name, f"{name}_count") == 5
    assert value(found, name, f"{name}_sum") == pytest.approx(7.00326, abs=1e-5)


def test_a_hit_is_a_round_trip_and_a_remembered_refusal_is_none(
    api: APIClient, issued: Issued, open_to_the_tests: None
) -> None:
    for _ in range(6):
        api.get("/", headers={"X-API-Key": issued[1]})
    traffic.flush()
    name = "hello_limiter_script_duration_seconds"
    assert value(read(api), name, f"{name}_count") == 4


def test_keys_are_counted_by_their_status(
    api: APIClient, issued: Issued, open_to_the_tests: None
) -> None:
    past = timezone.now() - timedelta(seconds=1)
    for number, expires_at in enumerate([None, past, past, timezone.now() + timedelta(days=1)]):
        key, _ = ApiKey.objects.issue(name=f"key {number}", expires_at=expires_at)
        if number < 2:
            key.revoke()
    found = read(api)
    counts = {
        status: value(found, "hello_api_keys", "hello_api_keys", status=status)
        for status in ("active", "expired", "revoked")
    }
    assert counts == {"active": 2, "expired": 1, "revoked": 2}


def test_without_the_store_and_the_database_it_says_so(
    api: APIClient, db: None, open_to_the_tests: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read(api)
    for name in ("hello_store_up", "hello_database_up"):
        assert value(found, name, name) == 1
    assert value(found, "hello_limiter_breaker_open", "hello_limiter_breaker_open") == 0

    def gone(*_: object) -> Any:
        raise StoreGone

    def down(*_: object) -> Any:
        raise OperationalError

    monkeypatch.setattr(metrics, "get_redis_connection", lambda _: Redis(port=1))
    monkeypatch.setattr(ApiKey.objects, "count_by_status", down)
    for _ in range(3):
        breaker.failed(StoreGone())
    found = read(api)
    breaker.answered()
    for name in ("hello_store_up", "hello_database_up"):
        assert value(found, name, name) == 0
    assert value(found, "hello_limiter_breaker_open", "hello_limiter_breaker_open") == 1
    assert set(found) == {"hello_store_up", "hello_database_up", "hello_limiter_breaker_open"}


def test_an_outage_is_told_of_afterwards(
    api: APIClient, issued: Issued, open_to_the_tests: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise StoreGone

    with monkeypatch.context() as outage:
        outage.setattr("throttling.throttles.hit_together", gone)
        for number in range(7):
            headers = {"X-API-Key": issued[1]}
            assert api.get("/", headers=headers, REMOTE_ADDR=f"10.0.0.{number}").status_code == 200
    traffic.flush()
    found = read(api)
    for name, count in {"store_failures": 3, "breaker_openings": 1}.items():
        family = f"hello_limiter_{name}"
        assert value(found, family, f"{family}_total") == count
    family = "hello_limiter_decisions_without_store"
    assert value(found, family, f"{family}_total") == 7


def test_it_is_closed_unless_opened(api: APIClient, db: None) -> None:
    refused = api.get("/metrics")
    assert refused.status_code == 403
    assert refused["Content-Type"] == "application/problem+json"
    assert "METRICS_TOKEN" in refused.json()["detail"]
    assert api.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 403


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer ünicode", 401),
        (f"Basic {TOKEN}", 401),
        ("", 401),
    ],
)
def test_a_token_opens_it(api: APIClient, db: None, authorization: str, status: int) -> None:
    with override_settings(METRICS_TOKEN=TOKEN):
        answer = api.get("/metrics", headers={"Authorization": authorization})
    assert answer.status_code == status
    if status == 401:
        assert answer["WWW-Authenticate"] == 'Bearer realm="metrics"'


def test_a_network_opens_it_for_whom_a_trusted_proxy_names(api: APIClient, db: None) -> None:
    headers = {"X-Forwarded-For": "10.1.2.3"}
    with override_settings(METRICS_NETWORKS=parse_networks("10.0.0.0/8, 2001:db8::/32")):
        assert api.get("/metrics", headers=headers).status_code == 403
        assert api.get("/metrics", REMOTE_ADDR="::ffff:10.0.0.9").status_code == 200
        assert api.get("/metrics", REMOTE_ADDR="2001:db8::7").status_code == 200
        with override_settings(TRUSTED_PROXIES=parse_networks("127.0.0.1")):
            assert api.get("/metrics", headers=headers).status_code == 200
            headers["X-Forwarded-For"] = "192.0.2.1"
            assert api.get("/metrics", headers=headers).status_code == 403


def test_it_is_read_only(api: APIClient, db: None, open_to_the_tests: None) -> None:
    refused = Client(enforce_csrf_checks=True).post("/metrics")
    assert refused.status_code == 405
    assert refused["Allow"] == "GET, HEAD"
    assert api.head("/metrics").status_code == 200


def test_open_metrics_is_spoken_where_it_is_asked_for(
    api: APIClient, db: None, open_to_the_tests: None
) -> None:
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    answer = api.get("/metrics", headers=asked)
    assert answer["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    found = open_metrics(answer.content.decode())  # type: ignore[no-untyped-call]
    assert "hello_requests" in {family.name for family in found}
    assert api.get("/metrics")["Content-Type"].startswith("text/plain; version=")


def test_a_scrape_asks_by_an_address_and_is_no_request_to_the_api(server: Server) -> None:
    answer = send(server.port, request(b"GET /metrics HTTP/1.1", host=b"10.0.0.7:8000"))
    assert answer.status == 403
    assert traffic._outcomes == {}
