"""Network rules through the whole site, in this process and in four workers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from redis import Redis
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from hello_project.traffic import OUTCOMES_IN_ALL, traffic
from tests.conftest import CommandsSent
from tests.servers import Server, wait_for
from tests.traffic import all_at_once, get
from throttling import matches
from throttling.models import NetworkRule
from throttling.network_rules import Rule, rules_of_process
from throttling.rates import RateLimit

CLIENT = "203.0.113.7"
Issued = tuple[ApiKey, str]


def rule_here(action: str, rate: str = "") -> None:
    parsed = RateLimit.parse(rate) if rate else None
    rules_of_process.take([Rule(1, "203.0.113.0/24", action, parsed, None)], None, time.monotonic())


def ask(api: APIClient, key: str = "", path: str = "/") -> Any:
    headers = {"X-API-Key": key} if key else {}
    return api.get(path, headers=headers, REMOTE_ADDR=CLIENT)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/get-auth-token",
        "/rate-limit",
        "/verify",
        "/verify/a/path",
        "/nowhere",
        "/openapi.json",
    ],
)
def test_a_blocked_network_is_forbidden_everywhere_and_asks_nothing(
    path: str, api: APIClient, issued: Issued, commands_sent: CommandsSent, store: Redis
) -> None:
    assert ask(api, issued[1], path).status_code in (200, 204, 404)
    rule_here("block")
    with commands_sent() as sent:
        answer = ask(api, issued[1], path)
    assert (answer.status_code, sent) == (403, [])
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {
        "title": "Forbidden",
        "status": 403,
        "detail": "This network is blocked.",
    }
    traffic.flush()
    assert store.hget(OUTCOMES_IN_ALL.key(0), "forbidden") == b"1"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_and_metrics_are_not_affected(path: str, api: APIClient, db: None) -> None:
    before = ask(api, path=path).status_code
    rule_here("block")
    assert ask(api, path=path).status_code == before
    assert before != 403 or path == "/metrics"


def test_a_blocked_operator_sees_a_page_that_says_so(admin_client: Client) -> None:
    rule_here("block")
    answer = admin_client.get("/admin/", REMOTE_ADDR=CLIENT)
    assert answer.status_code == 403
    assert "This network is blocked" in answer.content.decode()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert admin_client.get("/admin/", REMOTE_ADDR="198.51.100.7").status_code == 200


def test_an_exempt_network_takes_one_round_trip_for_the_keys_number(
    api: APIClient, issued: Issued, commands_sent: CommandsSent, django_assert_num_queries: Any
) -> None:
    rule_here("exempt")
    assert [ask(api, issued[1]).status_code for _ in range(5)] == [200] * 5
    with commands_sent() as sent, django_assert_num_queries(0):
        answer = ask(api, issued[1])
    assert sent == ["GET apikeys:generation"]
    assert "RateLimit" not in answer.headers


@pytest.mark.django_db(transaction=True)
def test_an_exempt_network_can_ask_what_is_left(api: APIClient) -> None:
    rule_here("exempt")
    _, plaintext = ApiKey.objects.issue(name="limited", rate="1/1m")
    assert ask(api, plaintext, "/rate-limit").json()["policies"][0]["policy"] == "key"
    assert [ask(api, plaintext).status_code for _ in range(2)] == [200, 429]
    assert ask(api, ApiKey.objects.issue(name="free")[1], "/rate-limit").json() == {"policies": []}
    assert ask(api, path="/rate-limit").status_code == 401


def test_a_rate_of_its_own_holds_for_enquiries_ten_times(api: APIClient, issued: Issued) -> None:
    rule_here("rate", "2/1m")
    answer = ask(api, issued[1], "/rate-limit")
    assert [policy["limit"] for policy in answer.json()["policies"]] == [2]
    assert '"rate-limit";q=20;w=60' in answer.headers["RateLimit-Policy"]
    assert [ask(api, issued[1]).status_code for _ in range(3)] == [200, 200, 429]


# Four workers


def statuses(server: Server, key: str, count: int = 40) -> Counter[int]:
    """Of requests at once, over as many connections, so that every worker has some."""
    return Counter(asyncio.run(all_at_once(server.port, [get(key, CLIENT)] * count)))


def change(*arguments: str) -> float:
    """When the operator had the answer."""
    call_command("network_rule", *arguments)
    return time.monotonic()


def test_a_block_and_its_end_hold_in_all_workers_within_a_second(
    server: Server, issued: Issued, store: Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    change("add", "203.0.113.0/24", "--exempt")
    wait_for(lambda: set(statuses(server, issued[1])) == {200}, seconds=5)
    for rounds in range(3):
        changed_at = change("add", CLIENT, "--block")
        time.sleep(max(0.0, changed_at + 1.0 - time.monotonic()))
        assert set(statuses(server, issued[1])) == {403}, rounds
        changed_at = change("remove", CLIENT)
        time.sleep(max(0.0, changed_at + 1.0 - time.monotonic()))
        assert set(statuses(server, issued[1])) == {200}, rounds
    [exempt] = NetworkRule.objects.all()
    wait_for(lambda: matches.read(store, [exempt.pk])[exempt.pk].count >= 160, seconds=5)


def test_the_first_request_of_a_server_knows_the_rules(
    issued: Issued, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    change("add", CLIENT, "--block")
    assert statuses(server, issued[1]) == {403: 40}
