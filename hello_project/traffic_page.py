"""What the console's first page shows: the traffic, who makes it, the store and the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from redis.exceptions import RedisError

from apikeys import models as key_models
from apikeys.models import ApiKey
from hello_project import charts, reports, store_state, traffic_charts
from hello_project.reports import Point
from throttling.models import NetworkRule
from throttling.networks import containing, parse_network

PERMISSION: Final = "hello_project.view_keyusage"
SHOWN: Final = 10
"""Keys, and clients."""


def may_see(request: HttpRequest) -> bool:
    return _user(request).has_perm(PERMISSION)


def context(request: HttpRequest, *, month: bool = True) -> dict[str, Any]:
    """For the page's parts, at most six round trips and five queries; `month`: that chart as well.

    The first thing that the store does not answer is the last that it is asked.
    """
    now = timezone.now()
    traffic = _traffic(request, now, month=month)
    statuses = _statuses(request)
    keys = sum(status.count for status in statuses)
    return {
        "now": now,
        "store": store_state.read(ask=traffic is not None),
        "statuses": statuses,
        "keys": keys,
        "month_is_shown": month,
        "is_new": keys == 0 or (traffic is not None and month and traffic["is_empty"]),
        "traffic": traffic,
    }


def _traffic(request: HttpRequest, now: datetime, *, month: bool) -> dict[str, Any] | None:
    """None when the store does not answer."""
    try:
        minutes = reports.outcomes_by_minute(now)
        hours = reports.outcomes_by_hour(now) if month else []
        busiest = reports.busiest_keys(now, SHOWN)
        refused = reports.most_refused(now, SHOWN)
    except RedisError:
        return None
    return {
        "minutes": _figure(
            "minutes", "Requests by the minute, the last hour", minutes, charts.MINUTE
        ),
        "hours": _figure("hours", "Requests by the hour, the last 30 days", hours, charts.HOUR),
        "busiest": _busiest(request, busiest),
        "refused": _refused(request, refused),
        "is_empty": not any(point.total for point in (*minutes, *hours)),
    }


def _figure(id_: str, title: str, points: Sequence[Point], period: Any) -> SafeString:
    return traffic_charts.figure(traffic_charts.chart_of(id_, title, points, period))


# Keys


@dataclass(frozen=True, slots=True)
class BusyKey:
    id: str
    name: str
    requests: int
    url: str
    """Empty for who may not look at keys."""
    bar: SafeString

    @property
    def text(self) -> str:
        return charts.count_text(self.requests)


def _busiest(request: HttpRequest, busiest: Sequence[tuple[str, int]]) -> list[BusyKey]:
    names = dict(ApiKey.objects.filter(pk__in=[pk for pk, _ in busiest]).values_list("pk", "name"))
    may_look = _may(request, "apikeys.view_apikey", "apikeys.change_apikey")
    return [
        BusyKey(
            key_id,
            names.get(key_id, ""),
            requests,
            _key_url(key_id) if may_look and key_id in names else "",
            _bar(requests, busiest[0][1]),
        )
        for key_id, requests in busiest
    ]


def _key_url(key_id: str) -> str:
    return reverse("admin:apikeys_apikey_change", args=[key_id])


@dataclass(frozen=True, slots=True)
class StatusCount:
    name: str
    label: str
    count: int
    url: str
    """Of the list with only these; empty for who may not look at keys."""

    @property
    def text(self) -> str:
        return f"{self.count:,}"


def _statuses(request: HttpRequest) -> list[StatusCount]:
    """Each key once: by what ApiKey.status says."""
    now = timezone.now()
    is_expired, is_soon = Q(expires_at__lte=now), Q(expires_at__lte=now + key_models.SOON)
    overlapping = Q(previous_until__gt=now)
    unrevoked = Q(revoked_at=None)
    is_lasting = Q(expires_at=None) | Q(expires_at__gt=now + key_models.SOON)
    never_overlapped = Q(previous_until=None) | Q(previous_until__lte=now)
    conditions = {
        ApiKey.Status.ACTIVE: unrevoked & is_lasting & never_overlapped,
        ApiKey.Status.EXPIRES_SOON: unrevoked & is_soon & Q(expires_at__gt=now),
        ApiKey.Status.OVERLAPPING: unrevoked & overlapping & (Q(expires_at=None) | ~is_expired),
        ApiKey.Status.EXPIRED: unrevoked & is_expired,
        ApiKey.Status.REVOKED: Q(revoked_at__isnull=False),
    }
    counts = ApiKey.objects.aggregate(
        **{status.value: Count("pk", filter=condition) for status, condition in conditions.items()}
    )
    url = ""
    if _may(request, "apikeys.view_apikey", "apikeys.change_apikey"):
        url = reverse("admin:apikeys_apikey_changelist")
    return [
        StatusCount(
            status.value.replace("_", "-"),
            str(status.label),
            counts[status.value],
            f"{url}?status={status.value}" if url else "",
        )
        for status in conditions
    ]


# Clients


@dataclass(frozen=True, slots=True)
class RefusedClient:
    client: str
    refusals: int
    bar: SafeString
    rule: NetworkRule | None
    """The one that decides on it."""
    rule_url: str
    add_url: str
    """Of the form for a rule, filled in but for the action; empty where that is not offered."""

    @property
    def text(self) -> str:
        return charts.count_text(self.refusals)

    @property
    def rule_in_words(self) -> str:
        """Such as "203.0.113.0/24: 100/1m"."""
        rule = self.rule
        return f"{rule.network}: {rule.rate or rule.get_action_display()}" if rule else ""


def _refused(request: HttpRequest, refused: Sequence[tuple[str, int]]) -> list[RefusedClient]:
    rules = _rules(request, [client for client, _ in refused])
    may_add = _may(request, "throttling.add_networkrule")
    found = []
    for client, count in refused:
        network, rule = _network(client), rules.get(client)
        is_decided = rule is not None and (
            rule.network == network or rule.action == NetworkRule.Action.BLOCK
        )
        add_url = ""
        if may_add and network and not is_decided:
            query = urlencode({"network": network}, safe="/:")
            add_url = f"{reverse('admin:throttling_networkrule_add')}?{query}"
        rule_url = reverse("admin:throttling_networkrule_change", args=[rule.pk]) if rule else ""
        bar = _bar(count, refused[0][1])
        found.append(RefusedClient(client, count, bar, rule, rule_url, add_url))
    return found


def _network(client: str) -> str:
    """Empty for one that has no address, such as a unix socket's peer."""
    try:
        return str(parse_network(client))
    except ValueError:
        return ""


def _rules(request: HttpRequest, clients: Sequence[str]) -> dict[str, NetworkRule]:
    """What decides on each client now; nothing for who may not look at rules. One query."""
    if not _may(request, "throttling.view_networkrule", "throttling.change_networkrule"):
        return {}
    around = {client: containing(parse_network(client)) for client in clients if _network(client)}
    networks = {network for found in around.values() for network in found}
    in_force = NetworkRule.objects.in_force(timezone.now()).filter(network__in=networks)
    rules = {rule.network: rule for rule in in_force}
    return {
        client: next(rules[network] for network in found if network in rules)
        for client, found in around.items()
        if any(network in rules for network in found)
    }


def _may(request: HttpRequest, *permissions: str) -> bool:
    return any(_user(request).has_perm(permission) for permission in permissions)


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)


def _bar(count: int, most: int) -> SafeString:
    return mark_safe(charts.bar(count, most))  # noqa: S308 - numbers only
