"""The console's first page, and the traffic on the pages for keys."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from apikeys.models import ApiKey
from hello_project import reports, store_state
from hello_project.models import KeyUsage
from hello_project.traffic import traffic
from throttling.models import NetworkRule

FIRST, PARTS = "/admin/", "/admin/traffic/"
LIST = "/admin/apikeys/apikey/"
OUTCOMES = (
    "admitted",
    "refused:ip",
    "refused:key",
    "refused:rate-limit",
    "unauthenticated",
    "forbidden",
    "invalid",
    "error",
)
AWAY = "The store does not answer"

LogIn = Callable[..., Client]

pytestmark = pytest.mark.django_db


@pytest.fixture
def log_in() -> LogIn:
    """A client of a new member of staff with these permissions."""

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user("viewer", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def owner() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("owner"))
    return client


@pytest.fixture
def key() -> ApiKey:
    return ApiKey.objects.issue(name="billing")[0]


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whoever asks the store meets a socket that nobody listens on; a 1 for each who did."""
    asked: list[int] = []
    nobody = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))

    def connect(alias: str) -> Redis:
        asked.append(1)
        return nobody

    for module in (reports, store_state):
        monkeypatch.setattr(module, "get_redis_connection", connect)
    return asked


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A 1 for each time that something is sent to the store."""
    sent: list[int] = []
    send: Any = AbstractConnection.send_packed_command

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(1)
        return send(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    return sent


def count(outcome: str, times: int = 1, key_id: str | None = None, client: str = "") -> None:
    for _ in range(times):
        traffic.note(outcome, key_id, client or None)
    traffic.flush()


def text_of(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def legend(page: str, chart: str) -> dict[str, str]:
    """The totals beside a chart, by their labels."""
    figure = page.partition(f'id="{chart}">')[2].partition("</figure>")[0]
    return dict(re.findall(r"<span>([^<]*)</span> <strong>([^<]*)</strong>", figure))


def part(page: str, name: str) -> str:
    return page.partition(f'id="part-{name}"')[2].partition("</section>")[0]


def test_the_first_page_counts_each_outcome_in_the_last_hour_and_month(owner: Client) -> None:
    for number, outcome in enumerate(OUTCOMES, start=1):
        count(outcome, number)
    page = text_of(owner.get(FIRST))
    assert "<title>Traffic | Keys and limits</title>" in page
    expected = {
        "Requests": "36",
        "Admitted": "1",
        "Refused by address": "6",
        "Refused by key": "3",
        "Unauthenticated": "5",
        "Forbidden": "6",
        "Invalid": "7",
        "Errors": "8",
    }
    assert legend(page, "minutes") == legend(page, "hours") == expected


def test_who_may_not_see_the_traffic_gets_the_plain_first_page(log_in: LogIn) -> None:
    client = log_in("view_apikey")
    answer = client.get(FIRST)
    assert "Recent actions" in text_of(answer)
    assert "Traffic" not in text_of(answer)
    assert client.get(PARTS).status_code == 403


def test_who_is_not_logged_in_is_sent_to_the_login() -> None:
    answer = Client().get(PARTS)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={PARTS}")


def test_who_may_see_only_the_traffic_is_offered_nothing_else(log_in: LogIn, key: ApiKey) -> None:
    count("admitted", key_id=key.pk)
    count("refused:ip", client="203.0.113.7")
    page = text_of(log_in("view_keyusage").get(FIRST))
    assert "billing" in page
    assert "203.0.113.7" in page
    assert "/admin/apikeys/" not in page
    assert "/admin/throttling/" not in page


def test_keys_are_ranked_by_their_requests_and_lead_to_their_pages(owner: Client) -> None:
    names = ["rare", "<b>often</b>"]
    rare, often = (ApiKey.objects.issue(name=name)[0] for name in names)
    count("admitted", 1, rare.pk)
    count("admitted", 3, often.pk)
    count("admitted", 2, "OfNobody0000")
    shown = part(owner.get(FIRST).content.decode(), "busiest")
    assert re.findall(r'<code class="traffic-id">(\w+)</code>', shown) == [
        often.pk,
        "OfNobody0000",
        rare.pk,
    ]
    assert f'href="{LIST}{often.pk}/change/">&lt;b&gt;often&lt;/b&gt;</a>' in shown
    assert f"{LIST}OfNobody0000" not in shown


@pytest.mark.parametrize(
    ("client", "network"),
    [("203.0.113.7", "203.0.113.7/32"), ("2001:db8:1:2::/64", "2001:db8:1:2::/64")],
)
def test_a_refused_client_can_be_blocked_or_given_a_rate(
    owner: Client, client: str, network: str
) -> None:
    count("refused:ip", 2, client=client)
    shown = html.unescape(part(owner.get(FIRST).content.decode(), "refused"))
    links = re.findall(r'href="([^"]*)" aria-label="([^"]*)"', shown)
    assert [label for _, label in links] == [f"Block {client}", f"Give it a rate: {client}"]
    for (url, _), action in zip(links, ("block", "rate"), strict=True):
        assert url == f"/admin/throttling/networkrule/add/?network={network}&action={action}"
        form = text_of(owner.get(url))
        assert f'value="{network}"' in form
        assert re.search(rf'value="{action}"[^>]* checked', form)


def test_a_client_under_a_rule_leads_to_that_rule(owner: Client) -> None:
    for client in ("203.0.113.7", "198.51.100.9", "192.0.2.1", "unknown"):
        count("refused:ip", client=client)
    wide = NetworkRule.objects.create(network="203.0.113.0/24", action="rate", rate="100/1m")
    NetworkRule.objects.create(network="203.0.0.0/16", action="block")
    NetworkRule.objects.create(network="198.51.100.9/32", action="block")
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    NetworkRule.objects.create(network="192.0.2.1/32", action="block", ends_at=ended)
    shown = part(text_of(owner.get(FIRST)), "refused")
    rows = {row.partition("</code>")[0]: row for row in shown.split("<code>")[1:]}
    assert f"/networkrule/{wide.pk}/change/" in rows["203.0.113.7"]
    assert "203.0.113.0/24: 100/1m" in rows["203.0.113.7"]
    assert "Block" in rows["203.0.113.7"]
    assert "198.51.100.9/32: block" in rows["198.51.100.9"]
    assert "Block" not in rows["198.51.100.9"]
    assert "Block" in rows["192.0.2.1"]
    assert "Block" not in rows["unknown"]


def test_keys_are_counted_by_status_and_lead_to_those_in_the_list(owner: Client) -> None:
    now = timezone.now()
    ApiKey.objects.issue(name="active")
    ApiKey.objects.issue(name="soon", expires_at=now + timedelta(days=3))
    expired, _ = ApiKey.objects.issue(name="expired", expires_at=now + timedelta(days=1))
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=now - timedelta(days=1))
    overlapping, _ = ApiKey.objects.issue(name="overlapping")
    overlapping.rotate(timedelta(hours=1))
    both, _ = ApiKey.objects.issue(name="both", expires_at=now + timedelta(days=3))
    both.rotate(timedelta(hours=1))
    revoked, _ = ApiKey.objects.issue(name="revoked")
    revoked.revoke()
    shown = part(text_of(owner.get(FIRST)), "keys")
    found = re.findall(r'href="([^"]*)">([^<]*)</a></span> <strong>(\d+)</strong>', shown)
    assert [(label, number) for _, label, number in found] == [
        ("Active", "1"),
        ("Expires soon", "2"),
        ("Overlapping", "2"),
        ("Expired", "1"),
        ("Revoked", "1"),
    ]
    for url, _, number in found:
        assert len(owner.get(url).context["cl"].result_list) == int(number)


def test_a_first_visit_says_what_to_do_and_later_ones_do_not(owner: Client, key: ApiKey) -> None:
    key.delete()
    page = text_of(owner.get(FIRST))
    assert f'<a href="{LIST}add/">Issue a key.</a>' in page
    assert "curl -H 'Authorization: Bearer YOUR_KEY' http://testserver/" in page
    assert page.count(">No requests</text>") == 4
    issued, _ = ApiKey.objects.issue(name="first")
    assert "Done: there is 1." in text_of(owner.get(FIRST))
    count("admitted", key_id=issued.pk)
    assert "What to do first" not in text_of(owner.get(FIRST))


def test_the_pages_cost_is_the_same_for_one_as_for_many(
    owner: Client, round_trips: list[int]
) -> None:
    def cost(path: str) -> tuple[int, int]:
        owner.get(path)
        round_trips.clear()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert owner.get(path).status_code == 200
        return len(queries), len(round_trips)

    def request() -> None:
        key, _ = ApiKey.objects.issue(name="key")
        count("admitted", key_id=key.pk)
        count("refused:ip", client=f"203.0.113.{ApiKey.objects.count()}")
        NetworkRule.objects.create(network=f"203.0.113.{ApiKey.objects.count()}/32", action="block")

    request()
    page = f"{LIST}{ApiKey.objects.get().pk}/change/"
    before = {path: cost(path) for path in (FIRST, PARTS, LIST, page)}
    for _ in range(9):
        request()
    assert {path: cost(path) for path in (FIRST, PARTS, LIST, page)} == before
    # The session, the user and whether a second factor is asked for; and names, rules, statuses.
    queries, trips = before[FIRST]
    assert queries <= 6
    assert trips == 5
    assert before[PARTS][1] == 4


def test_without_the_store_the_page_says_so_asks_once_and_shows_the_rest(
    owner: Client, key: ApiKey, no_store: list[int]
) -> None:
    page = text_of(owner.get(FIRST))
    assert page.count(AWAY) == 4
    assert '<span class="store-away">no</span>' in page
    assert ">Active</a></span> <strong>1</strong>" in page
    assert "What to do first" not in page
    assert len(no_store) == 1
    assert owner.get(PARTS).status_code == 200


def test_the_list_shows_each_keys_last_day(owner: Client, key: ApiKey) -> None:
    count("admitted", 1_200, key.pk)
    count("refused:key", 30, key.pk)
    count("forbidden", 4, key.pk)
    ApiKey.objects.issue(name="idle")
    page = text_of(owner.get(LIST))
    assert "<title>By hour: 1,234 requests, 34 of them refused.</title>" in page
    assert '1,234 <span class="key-refused">34 refused</span>' in page
    assert page.count("no requests") == 1


def test_the_list_without_the_store_says_that_the_traffic_is_not_known(
    owner: Client, key: ApiKey, no_store: list[int]
) -> None:
    page = text_of(owner.get(LIST))
    assert AWAY in page
    assert '<td class="field-last_24_hours">not known</td>' in page


def test_the_keys_page_has_its_last_hour_day_and_month(owner: Client, key: ApiKey) -> None:
    count("admitted", 5, key.pk)
    count("refused:key", 2, key.pk)
    page = text_of(owner.get(f"{LIST}{key.pk}/change/"))
    expected = {
        "Requests": "7",
        "Admitted": "5",
        "Refused by key": "2",
        "Forbidden": "0",
        "Errors": "0",
    }
    for chart in ("key-hour", "key-day", "key-month"):
        assert legend(page, chart) == expected


def test_the_keys_page_without_the_store_has_what_the_database_has(
    owner: Client, key: ApiKey, no_store: list[int]
) -> None:
    KeyUsage.objects.create(key_id=key.pk, day=datetime.now(UTC).date(), admitted=41)
    page = text_of(owner.get(f"{LIST}{key.pk}/change/"))
    assert AWAY in page
    assert legend(page, "key-hour") == {}
    assert legend(page, "key-month")["Admitted"] == "41"


def test_who_may_not_see_the_traffic_sees_none_of_a_keys(log_in: LogIn, key: ApiKey) -> None:
    client = log_in("view_apikey")
    assert "last_24_hours" not in text_of(client.get(LIST))
    assert "The last hour" not in text_of(client.get(f"{LIST}{key.pk}/change/"))


def test_key_operators_may_see_the_traffic_and_set_network_rules() -> None:
    def theirs() -> set[str]:
        group = Group.objects.get(name="key operators")
        found = group.permissions.exclude(content_type__app_label="apikeys")
        return {permission.codename for permission in found}

    expected = {f"{action}_networkrule" for action in ("view", "add", "change", "delete")}
    assert theirs() == expected | {"view_keyusage"}


@pytest.mark.django_db(transaction=True)
def test_what_key_operators_were_given_can_be_taken_back() -> None:
    before, after = (
        ("hello_project", "0001_usage"),
        ("hello_project", "0002_traffic_for_key_operators"),
    )
    try:
        MigrationExecutor(connection).migrate([before])
        group, _ = Group.objects.get_or_create(name="key operators")
        assert not group.permissions.filter(codename="view_keyusage").exists()
    finally:
        MigrationExecutor(connection).migrate([after])
    assert group.permissions.filter(codename="view_keyusage").exists()


def test_a_browser_finds_the_sites_icon() -> None:
    answer = Client().get("/favicon.ico")
    assert answer.status_code == 302
    icon = Client().get(answer["Location"])
    assert icon["Content-Type"] == "image/svg+xml"
    icon.close()
