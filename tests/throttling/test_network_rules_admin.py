"""The admin's pages for network rules, as a browser meets them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from redis import Redis
from redis.exceptions import ConnectionError as StoreConnectionError

from throttling import admin, matches, network_rules
from throttling.models import NetworkRule

pytestmark = pytest.mark.django_db

LIST = "/admin/throttling/networkrule/"
ADD = f"{LIST}add/"
HERE = "203.0.113.7"
LogIn = Callable[..., Client]


@pytest.fixture
def log_in() -> LogIn:
    """A client at HERE, of a member of staff with these permissions on network rules."""

    def log_in(*actions: str) -> Client:
        user = User.objects.create_user("-".join(actions), is_staff=True)
        codenames = [f"{action}_networkrule" for action in actions]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client(REMOTE_ADDR=HERE)
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    return log_in("view", "add", "change", "delete")


def save(network: str, action: str = "block", **fields: Any) -> NetworkRule:
    saved: NetworkRule = NetworkRule.objects.create(network=network, action=action, **fields)
    return saved


def sent(network: str, action: str = "block", **fields: str) -> dict[str, str]:
    """The form as a browser sends it."""
    unchanged = {"rate": "", "note": "", "end": "never", "ends_at_0": "", "ends_at_1": ""}
    return unchanged | {"network": network, "action": action} | fields


def page_of(rule: NetworkRule, what: str = "change") -> str:
    return f"{LIST}{rule.pk}/{what}/"


def text_of(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def networks_listed(answer: Any) -> list[str]:
    return [rule.network for rule in answer.context["cl"].result_list]


# The list


def test_the_list_shows_what_each_rule_does_and_how_often_it_matched(
    operator: Client, store: Redis
) -> None:
    ends_at = timezone.now() + timedelta(hours=3, minutes=1)
    rule = save("198.51.100.0/24", "rate", rate="100/1m", note="partner", ends_at=ends_at)
    save("10.0.0.0/8", "exempt", ends_at=timezone.now() - timedelta(days=2))
    for _ in range(1234):
        matches.gathered.note(rule.pk)
    matches.gathered.write(store)
    shown = text_of(operator.get(LIST))
    for text in ('<span class="rule-rate">rate 100/1m</span>', "partner", "1,234<br><time"):
        assert text in shown
    assert re.search(r"in 3\shours</time>", shown)
    assert re.search(r"ended 2\sdays ago</time>", shown)
    assert "just now</time>" in shown


def test_without_the_store_the_list_says_that_matches_are_not_known(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach() -> Redis:
        raise StoreConnectionError

    save("198.51.100.0/24")
    monkeypatch.setattr(admin, "store", out_of_reach)
    shown = text_of(operator.get(LIST))
    assert "The store does not answer: matches are not known now." in shown
    assert '<td class="field-match_count">?</td>' in shown


def test_the_list_takes_the_same_queries_for_ten_rules_and_for_a_hundred(
    operator: Client, django_assert_num_queries: Any
) -> None:
    for number in range(100):
        save(f"10.0.{number}.0/24")
        if number in (9, 99):
            with django_assert_num_queries(7):
                operator.get(LIST)


def test_an_address_finds_the_rules_that_contain_it_the_one_that_decides_first(
    operator: Client,
) -> None:
    for network in ("0.0.0.0/0", "198.51.100.7/32", "198.51.100.0/24", "198.51.101.0/24"):
        save(network, note="by 198.51.100.7" if network == "198.51.101.0/24" else "")
    found = networks_listed(operator.get(LIST, {"q": "198.51.100.7"}))
    assert found == ["198.51.100.7/32", "198.51.100.0/24", "0.0.0.0/0"]
    assert networks_listed(operator.get(LIST, {"q": "198.51.101"})) == ["198.51.101.0/24"]
    assert networks_listed(operator.get(LIST, {"q": "BY 198"})) == ["198.51.101.0/24"]


def test_the_list_is_filtered_by_action_and_by_whether_a_rule_has_ended(operator: Client) -> None:
    save("10.0.0.0/8", "exempt")
    save("198.51.100.0/24", ends_at=timezone.now() - timedelta(days=1))
    save("198.51.101.0/24", ends_at=timezone.now() + timedelta(days=1))
    assert networks_listed(operator.get(LIST, {"action": "exempt"})) == ["10.0.0.0/8"]
    assert networks_listed(operator.get(LIST, {"in_force": "no"})) == ["198.51.100.0/24"]
    assert networks_listed(operator.get(LIST, {"in_force": "yes"})) == [
        "198.51.101.0/24",
        "10.0.0.0/8",
    ]


# The form


@pytest.mark.parametrize(
    ("end", "after"),
    [("never", None), ("hour", {"hours": 1}), ("day", {"days": 1}), ("month", {"days": 30})],
)
def test_a_rule_is_added_with_an_end_from_the_presets(
    operator: Client, end: str, after: dict[str, int] | None
) -> None:
    begun = timezone.now()
    fields = sent("198.51.100.0/24", note="scanner", end=end, ends_at_0="2020-01-01")
    assert operator.post(ADD, fields).status_code == 302
    [rule] = NetworkRule.objects.all()
    assert (rule.network, rule.note) == ("198.51.100.0/24", "scanner")
    assert rule.created_by is not None
    if after is None:
        assert rule.ends_at is None
    else:
        assert rule.ends_at is not None
        assert timedelta(0) <= rule.ends_at - begun - timedelta(**after) < timedelta(minutes=1)
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (sent("198.51.100.7/24"), "write 198.51.100.0/24 for the network, or 198.51.100.7 for"),
        (sent("nowhere"), "is not a network"),
        (sent("198.51.100.7", "rate"), "Write the rate, such as 100/1m."),
        (sent("198.51.100.7", "rate", rate="often"), "is not a rate limit"),
        (sent("198.51.100.7", end="own"), "Write the moment, or choose another end."),
        (
            sent("198.51.100.7", end="own", ends_at_0="2020-01-01", ends_at_1="10:00"),
            "This moment is past: choose a later one.",
        ),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(
    operator: Client, fields: dict[str, str], said: str
) -> None:
    answer = operator.post(ADD, fields)
    assert answer.status_code == 200
    assert said in text_of(answer)
    assert not NetworkRule.objects.exists()


def test_a_link_fills_in_the_form(operator: Client) -> None:
    shown = text_of(operator.get(ADD, {"network": "198.51.100.7/32", "action": "block"}))
    assert re.search(r'<input[^>]*name="network" value="198.51.100.7/32"', shown)
    assert re.search(r'<input[^>]*name="action" value="block"[^>]*checked', shown)
    assert re.search(r'<input[^>]*name="end" value="never"[^>]*checked', shown)
    assert f"Your own address is {HERE}." in shown
    assert not re.search(r"<[^>]* style=|<script>|<style", shown)


def test_a_rule_with_an_end_is_edited_without_losing_it_also_when_it_has_ended(
    operator: Client,
) -> None:
    ends_at = timezone.now() - timedelta(days=1)
    rule = save("198.51.100.0/24", ends_at=ends_at)
    shown = text_of(operator.get(page_of(rule)))
    assert re.search(r'<input[^>]*name="end" value="own"[^>]*checked', shown)
    moment = {"ends_at_0": f"{ends_at:%Y-%m-%d}", "ends_at_1": f"{ends_at:%H:%M:%S}"}
    fields = sent("198.51.100.0/24", end="own", note="renamed", **moment)
    assert operator.post(page_of(rule), fields).status_code == 302
    rule.refresh_from_db()
    assert (rule.note, rule.ends_at) == ("renamed", ends_at.replace(microsecond=0))


# Locking oneself out


def test_a_rule_that_would_block_the_operator_is_saved_at_the_second_attempt_only(
    operator: Client,
) -> None:
    answer = operator.post(ADD, sent("203.0.0.0/16"))
    shown = text_of(answer)
    assert f"This would block your own address, {HERE}, from the whole site" in shown
    assert '<input type="checkbox" name="lock_out"' in shown
    assert not NetworkRule.objects.exists()
    assert operator.post(ADD, sent("203.0.0.0/16", lock_out="on")).status_code == 302
    assert NetworkRule.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        sent("203.0.113.0/24"),
        sent("203.0.113.7", "exempt", end="hour"),
        sent("203.0.113.8", "exempt"),
    ],
)
def test_changing_what_shields_the_operator_from_a_block_warns(
    operator: Client, fields: dict[str, str]
) -> None:
    save("203.0.0.0/16")
    shield = save("203.0.113.0/24", "exempt")
    answer = operator.post(page_of(shield), fields)
    has_shield_for_an_hour = fields["end"] == "hour"
    said = re.search(
        r"This would block your own address, \S+,( from .* on)? from the whole", text_of(answer)
    )
    assert said is not None
    assert bool(said[1]) is has_shield_for_an_hour
    shield.refresh_from_db()
    assert (shield.network, shield.action) == ("203.0.113.0/24", "exempt")


def test_what_does_not_lock_the_operator_out_warns_of_nothing(operator: Client) -> None:
    save("203.0.113.0/24", "exempt")
    for fields in (sent("203.0.0.0/16"), sent("198.51.100.0/24"), sent("203.0.113.8")):
        assert operator.post(ADD, fields).status_code == 302, fields


def test_deleting_what_shields_the_operator_warns_and_waits_for_a_tick(operator: Client) -> None:
    save("203.0.0.0/16")
    shield = save("203.0.113.0/24", "exempt")
    page = page_of(shield, "delete")
    assert "This would block your own address" in text_of(operator.get(page))
    assert "This would block your own address" in text_of(operator.post(page, {"post": "yes"}))
    assert NetworkRule.objects.count() == 2
    assert operator.post(page, {"post": "yes", "lock_out": "on"}).status_code == 302
    assert NetworkRule.objects.count() == 1


def test_deleting_several_warns_likewise(operator: Client) -> None:
    save("203.0.0.0/16")
    chosen = [save("203.0.113.0/24", "exempt").pk, save("10.0.0.0/8").pk]
    asked = {"action": "delete_selected", "_selected_action": chosen}
    assert "This would block your own address" in text_of(operator.post(LIST, asked))
    confirmed = asked | {"post": "yes"}
    assert "This would block your own address" in text_of(operator.post(LIST, confirmed))
    assert NetworkRule.objects.count() == 3
    assert operator.post(LIST, confirmed | {"lock_out": "on"}).status_code == 302
    assert NetworkRule.objects.count() == 1


def test_all_rules_of_a_search_can_be_deleted_at_once_however_many(operator: Client) -> None:
    NetworkRule.objects.put(
        [
            NetworkRule(network=f"10.0.{number // 256}.{number % 256}/32", action="block", note="x")
            for number in range(1500)
        ]
    )
    save("198.51.100.0/24")
    first = NetworkRule.objects.filter(note="x")[0].pk
    asked = {"action": "delete_selected", "_selected_action": [first], "select_across": "1"}
    shown = text_of(operator.post(f"{LIST}?q=x", asked))
    assert "Delete these 1500 rules?" in shown
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', shown))
    assert operator.post(f"{LIST}?q=x", fields).status_code == 302
    assert [rule.network for rule in NetworkRule.objects.all()] == ["198.51.100.0/24"]


# Permissions, and a store that cannot be told


def test_each_permission_opens_its_page_only(log_in: LogIn) -> None:
    rule = save("198.51.100.0/24")
    pages = [LIST, ADD, page_of(rule), page_of(rule, "delete")]
    expected = {
        "view": [200, 403, 200, 403],
        "add": [200, 200, 403, 403],
        "change": [200, 403, 200, 403],
        "delete": [200, 403, 403, 200],
    }
    for action, statuses in expected.items():
        client = log_in(action)
        seen = [client.get(page).status_code for page in pages]
        assert seen[1:] == statuses[1:], action
    viewer = log_in("view", "none")
    assert viewer.post(page_of(rule), sent("10.0.0.0/8")).status_code == 403
    assert "lock_out" not in text_of(viewer.get(page_of(rule)))


@pytest.mark.django_db(transaction=True)
def test_a_change_that_the_store_cannot_be_told_is_said(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach() -> Redis:
        raise StoreConnectionError

    rule = save("10.0.0.0/8")
    monkeypatch.setattr(network_rules, "store", out_of_reach)
    asked = {"action": "delete_selected", "_selected_action": [rule.pk], "post": "yes"}
    for page, fields in (
        (ADD, sent("198.51.100.0/24")),
        (page_of(rule), sent("10.0.0.0/8", note="renamed")),
        (LIST, asked),
    ):
        answer = operator.post(page, fields, follow=True)
        assert "The change is saved, but the store could not be told" in text_of(answer)
        assert "successfully" not in text_of(answer)
    assert [rule.network for rule in NetworkRule.objects.all()] == ["198.51.100.0/24"]
