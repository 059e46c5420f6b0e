"""The process's copy of the rules: when it is trusted, and what it does without its sources."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from textwrap import dedent
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.retry import Retry
from rest_framework.test import APIRequestFactory

from tests.servers import shared_environment, wait_for
from tests.throttling.test_throttles import BaseView, PlainView
from throttling import changes, matches, network_rules
from throttling.ahead import ask_ahead
from throttling.limiter import Decision
from throttling.models import NetworkRule
from throttling.network_rules import (
    META_NAME,
    ChangeNotAnnounced,
    Rule,
    RulesOfProcess,
    rules_of_process,
)
from throttling.networks import parse_network
from throttling.rates import RateLimit
from throttling.refusals import refusals
from throttling.throttles import AddressThrottle
from throttling.watcher import Watcher


def rule(network: str, action: str = "block", rate: str = "", **fields: Any) -> Rule:
    parsed = RateLimit.parse(rate) if rate else None
    return Rule(fields.get("pk", 1), network, action, parsed, fields.get("ends_at"))


def save(network: str, action: str = "block", **fields: Any) -> NetworkRule:
    saved: NetworkRule = NetworkRule.objects.create(network=network, action=action, **fields)
    return saved


def ask(view: type[Any], address: str = "203.0.113.7", **meta: Any) -> Any:
    request = APIRequestFactory().get("/", REMOTE_ADDR=address, **meta)
    response = view.as_view()(request)
    return response.render() if hasattr(response, "render") else response


class Database:
    """Where a copy reads its rules; it may fail."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.is_down = False
        self.reads = 0

    def load(self) -> list[Rule]:
        self.reads += 1
        if self.is_down:
            raise OperationalError("gone")
        return list(self.rules)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach() -> Redis:
        raise StoreConnectionError

    monkeypatch.setattr(network_rules, "store", out_of_reach)


# The copy


def test_a_copy_reads_the_rules_before_the_first_decision(database: Database) -> None:
    database.rules = [rule("203.0.113.0/24")]
    copy = RulesOfProcess(database.load)
    assert not copy.is_empty
    assert copy.find("203.0.113.7") == database.rules[0]
    assert copy.find("198.51.100.7") is None
    assert database.reads == 1


def test_a_copy_is_trusted_for_a_second_and_read_anew_only_after_a_change(
    database: Database, clock: Clock, store: Redis
) -> None:
    copy = RulesOfProcess(database.load, clock=clock)
    assert copy.find("203.0.113.7") is None
    database.rules = [rule("203.0.113.0/24")]
    changes.announce(store)
    clock.now += 0.999
    assert copy.find("203.0.113.7") is None
    clock.now += 0.001
    assert copy.find("203.0.113.7") is not None
    for _ in range(20):
        clock.now += 1
        copy.find("203.0.113.7")
    assert database.reads == 2


def test_a_change_nobody_announced_is_found_after_a_minute(
    database: Database, clock: Clock
) -> None:
    copy = RulesOfProcess(database.load, clock=clock)
    copy.look()
    database.rules = [rule("203.0.113.0/24")]
    clock.now += 59
    assert copy.find("203.0.113.7") is None
    clock.now += 1
    assert copy.find("203.0.113.7") is not None


def test_a_look_confirms_what_is_remembered_of_refusals(database: Database, store: Redis) -> None:
    refusal = Decision(False, 0, 60.0, 60.0)
    copy = RulesOfProcess(database.load)
    copy.look()
    asked_at = time.monotonic() - 1.5
    refusals.remember("client", refusal, asked_at)
    copy.look()
    assert refusals.recall("client", time.monotonic()) is not None
    changes.announce(store)
    copy.look()
    assert refusals.recall("client", time.monotonic()) is None


def test_a_rule_ends_at_its_moment_though_nobody_changed_anything(database: Database) -> None:
    ends_at = timezone.now() + timedelta(milliseconds=30)
    database.rules = [rule("203.0.113.7/32", "exempt", ends_at=ends_at), rule("203.0.113.0/24")]
    copy = RulesOfProcess(database.load)
    copy.look()
    assert copy.find("203.0.113.7") == database.rules[0]
    wait_for(lambda: timezone.now() >= ends_at)
    copy.look()
    assert copy.find("203.0.113.7") == database.rules[1]
    assert database.reads == 1


@pytest.mark.usefixtures("store_is_down")
def test_without_the_store_the_database_is_read_every_three_seconds(
    database: Database, clock: Clock
) -> None:
    copy = RulesOfProcess(database.load, clock=clock)
    copy.look()
    database.rules = [rule("203.0.113.0/24")]
    clock.now += 2.9
    copy.look()
    assert copy.find("203.0.113.7") is None
    clock.now += 0.1
    copy.look()
    assert copy.find("203.0.113.7") is not None
    assert database.reads == 2


def test_without_the_database_the_rules_stay_and_it_is_logged_once(
    database: Database, clock: Clock, store: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    database.rules = [rule("203.0.113.0/24")]
    copy = RulesOfProcess(database.load, clock=clock)
    copy.look()
    database.is_down = True
    changes.announce(store)
    for _ in range(10):
        clock.now += 1
        copy.look()
    assert copy.find("203.0.113.7") is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert database.reads == 5
    database.is_down, database.rules = False, []
    clock.now += 3
    copy.look()
    assert copy.find("203.0.113.7") is None
    assert caplog.records[-1].message == "The network rules can be read again."


def test_a_request_does_not_wait_again_for_a_database_that_hangs(database: Database) -> None:
    copy = RulesOfProcess(database.load)
    with copy._looking:  # As the thread holds it while it waits for the database.
        begun = time.monotonic()
        for _ in range(50):
            assert copy.find("203.0.113.7") is None
        assert time.monotonic() - begun < 2 * network_rules.LONGEST_WAIT


@pytest.mark.django_db
def test_a_rule_with_a_rate_that_nobody_can_read_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    NetworkRule.objects.bulk_create(
        [
            NetworkRule(network="203.0.113.0/24", action="rate", rate="often"),
            NetworkRule(network="198.51.100.0/24", action="block"),
        ]
    )
    assert [found.network for found in network_rules._rows()] == ["198.51.100.0/24"]
    assert "The rule for 203.0.113.0/24 is passed over" in caplog.text


# What a rule does to a request


@pytest.mark.parametrize("view", [BaseView, PlainView])
def test_a_blocked_network_is_forbidden_without_asking_the_store(
    view: type[Any], store: Redis
) -> None:
    rules_of_process.take([rule("203.0.113.0/24")], None, time.monotonic())
    response = ask(view)
    assert response.status_code == 403
    assert response.data["detail"] == "This network is blocked."
    assert "RateLimit" not in response.headers
    assert store.keys("rl:*") == []
    assert ask(view, "198.51.100.7").status_code == 200


def test_a_blocked_client_is_not_asked_who_it_is() -> None:
    rules_of_process.take([rule("203.0.113.0/24")], None, time.monotonic())
    assert ask(BaseView, HTTP_X_NAME="bad").status_code == 403


def test_an_exempt_network_has_no_limit_by_address_but_keys_have_theirs() -> None:
    rules_of_process.take([rule("203.0.113.0/24", "exempt")], None, time.monotonic())
    assert [ask(BaseView).status_code for _ in range(5)] == [200] * 5
    assert "RateLimit" not in ask(BaseView).headers
    limited = [ask(BaseView, HTTP_X_NAME="key").status_code for _ in range(2)]
    assert limited == [200, 429]


def test_a_rate_of_its_own_takes_the_place_of_the_sites_for_each_address() -> None:
    rules_of_process.take([rule("203.0.113.0/24", "rate", "4/1m")], None, time.monotonic())
    for address in ("203.0.113.7", "203.0.113.8"):
        assert [ask(BaseView, address).status_code for _ in range(5)] == [200] * 4 + [429]
    assert ask(BaseView, "203.0.113.9").headers["RateLimit-Policy"] == '"ip";q=4;w=60'


def test_a_rule_may_be_longer_than_what_ipv6_clients_are_limited_by() -> None:
    rules = [rule("2001:db8::/32", "exempt"), rule("2001:db8::7/128")]
    rules_of_process.take(rules, None, time.monotonic())
    assert ask(BaseView, "2001:db8::7").status_code == 403
    assert [ask(BaseView, "2001:db8::8").status_code for _ in range(3)] == [200] * 3


def test_a_throttle_without_a_rate_limits_nobody_whatever_the_rules_say(store: Redis) -> None:
    class Unlimited(AddressThrottle):
        def get_rate(self, request: Any, view: Any) -> None:
            return None

    class View(BaseView):
        throttle_classes = [Unlimited]

    rules_of_process.take([rule("203.0.113.0/24", "rate", "1/1m")], None, time.monotonic())
    assert [ask(View).status_code for _ in range(3)] == [200] * 3


def test_asking_ahead_goes_by_the_rules_and_counts_no_match(store: Redis) -> None:
    class Three(AddressThrottle):
        rate = "3/10s"

    rules = [
        rule("203.0.113.0/24"),
        rule("198.51.100.0/24", "exempt"),
        rule("192.0.2.0/24", "rate", "1/1m"),
    ]
    rules_of_process.take(rules, None, time.monotonic())
    addresses = ["203.0.113.1", "198.51.100.1", "192.0.2.1", "192.0.2.1", "10.0.0.1"]
    additions = ask_ahead([(Three(), None, {"REMOTE_ADDR": address}) for address in addresses])
    asked = [next(iter(addition.values()), None) for addition in additions]
    decided = [each and (each.key, each.decision.allowed) for each in asked]
    assert decided == [
        None,
        None,
        ("rl:{ip:192.0.2.1}1/1m", True),
        ("rl:{ip:192.0.2.1}1/1m", False),
        ("rl:{ip:10.0.0.1}3/10s", True),
    ]
    assert not any(META_NAME in addition for addition in additions)
    matches.gathered.write(store)
    assert not store.exists(matches.STORE_KEY)


# Matches


def test_each_request_counts_one_match_of_the_rule_that_decided(store: Redis) -> None:
    rules = [rule("203.0.113.0/24", "exempt", pk=1), rule("203.0.113.7/32", pk=2)]
    rules_of_process.take(rules, None, time.monotonic())
    for address in ("203.0.113.7", "203.0.113.8", "203.0.113.8", "10.0.0.1"):
        ask(BaseView, address)
    matches.gathered.write(store)
    found = matches.read(store, [1, 2, 3])
    assert [found[number].count for number in (1, 2, 3)] == [2, 1, 0]
    assert found[3].last_at is None
    last = found[1].last_at
    assert last is not None
    assert timezone.now() - last < timedelta(seconds=60)


def test_matches_the_store_did_not_take_are_kept(store: Redis) -> None:
    gathered = matches.GatheredMatches()
    gathered.note(7)
    nobody = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))
    with pytest.raises(StoreConnectionError):
        gathered.write(nobody)
    gathered.note(7)
    gathered.write(store)
    gathered.write(store)
    assert matches.read(store, [7])[7].count == 2


# Announcing


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved.save(),
        lambda saved: saved.delete(),
        lambda saved: NetworkRule.objects.filter(pk=saved.pk).update(note="why"),
        lambda saved: NetworkRule.objects.all().delete(),
        lambda saved: NetworkRule.objects.bulk_create(
            [NetworkRule(network="::/0", action="block")]
        ),
        lambda saved: NetworkRule.objects.bulk_update([saved], ["note"]),
        lambda saved: NetworkRule.objects.put(
            [NetworkRule(network=f"10.0.{number}.0/24", action="block") for number in range(250)]
        ),
    ],
)
def test_every_way_to_change_rules_announces_it_once(change: Any, store: Redis) -> None:
    saved = save("203.0.113.0/24")
    before = changes.read(store)
    change(saved)
    assert changes.read(store) == before + 1


@pytest.mark.django_db(transaction=True)
def test_a_rule_counts_in_this_process_from_the_next_request_on(store: Redis) -> None:
    assert ask(BaseView).status_code == 200
    saved = save("203.0.113.0/24")
    assert ask(BaseView).status_code == 403
    matches.gathered.write(store)
    assert store.hlen(matches.STORE_KEY) == 2
    saved.delete()
    assert ask(BaseView).status_code == 200
    assert not store.exists(matches.STORE_KEY)


@pytest.mark.django_db
def test_a_rule_counts_in_a_test_that_commits_nothing_when_it_says_so(
    django_capture_on_commit_callbacks: Any,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        save("203.0.113.0/24")
    assert ask(BaseView).status_code == 403


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("store_is_down")
def test_a_change_that_the_store_cannot_be_told_is_saved_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ChangeNotAnnounced, match="The change is saved"):
        save("203.0.113.0/24")
    assert NetworkRule.objects.count() == 1
    assert "could not be announced" in caplog.text


@pytest.mark.django_db
def test_a_change_that_is_not_committed_is_not_announced(store: Redis) -> None:
    save("203.0.113.0/24")
    assert not store.exists(changes.STORE_KEY)


# The thread


def test_the_watcher_looks_again_and_again_and_goes_on_after_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError("a defect")

    ended: list[int] = []
    watcher = Watcher(look, lambda: ended.append(1), look_seconds=0.01)
    watcher.ensure_runs()
    watcher.ensure_runs()
    wait_for(lambda: len(looks) >= 3, seconds=5)
    watcher.stop()
    assert ended == [1]
    assert "The watcher failed." in caplog.text


def test_a_process_writes_its_matches_when_it_ends_and_ends_at_once(store: Redis) -> None:
    begun = time.monotonic()
    run(
        """
        rules_of_process.trusted_seconds = watcher.look_seconds = 3600
        blocked = [Rule(9, "203.0.113.0/24", "block", None, None)]
        rules_of_process.take(blocked, None, monotonic())
        rule_for(HttpRequest("203.0.113.7"))
        if not os.fork():
            assert not watcher._runs
            rules_of_process.take(blocked, None, monotonic())
            rule_for(HttpRequest("203.0.113.7"))
        else:
            os.wait()
        """
    )
    assert time.monotonic() - begun < 20
    assert matches.read(store, [9])[9].count == 2


def run(program: str) -> None:
    prelude = """
import os
from dataclasses import dataclass
from time import monotonic
import django
django.setup()
from throttling.network_rules import Rule, rule_for, rules_of_process, watcher
class HttpRequest:
    def __init__(self, address):
        self.META = {"REMOTE_ADDR": address}
"""
    subprocess.run(
        [sys.executable, "-c", prelude + dedent(program)],
        cwd=settings.BASE_DIR,
        env={**os.environ, **shared_environment()}
        | {"DJANGO_SETTINGS_MODULE": "hello_project.settings"},
        timeout=30,
        check=True,
    )


# The model


@pytest.mark.django_db
def test_a_network_is_kept_in_canonical_notation_and_once() -> None:
    made = NetworkRule(network="::ffff:203.0.113.7", action="block")
    made.full_clean()
    assert made.network == "203.0.113.7/32"
    made.save()
    again = NetworkRule(network="203.0.113.7", action="exempt")
    with pytest.raises(Exception, match="There is a rule for this network already"):
        again.full_clean()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("action", "rate", "said"),
    [
        ("rate", "", "Write the rate"),
        ("rate", "often", "is not a rate limit"),
        ("block", "3/10s", "Leave this blank"),
        ("exempt", "3/10s", "Leave this blank"),
    ],
)
def test_a_rate_goes_with_its_action_only(action: str, rate: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        NetworkRule(network="203.0.113.7", action=action, rate=rate).full_clean()


@pytest.mark.django_db
def test_the_rules_that_contain_an_address_come_longest_prefix_first() -> None:
    for network in ("203.0.0.0/16", "203.0.113.7/32", "203.0.113.0/24", "198.51.100.0/24"):
        save(network)
    found = NetworkRule.objects.containing(parse_network("203.0.113.7"))
    assert [each.network for each in found] == ["203.0.113.7/32", "203.0.113.0/24", "203.0.0.0/16"]
