"""The pages for keys, with their traffic: what apikeys knows nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from redis.exceptions import RedisError

from apikeys.admin import ApiKeyAdmin
from apikeys.models import ApiKey
from hello_project import charts, reports, traffic_charts, traffic_page
from hello_project.reports import Point

admin.site.unregister(ApiKey)


class KeysWithTraffic(ChangeList):
    """The page's keys, with what the store says of their last 24 hours: one round trip."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not traffic_page.may_see(request):
            return
        keys = list(self.result_list)
        try:
            points = reports.keys_by_hour([key.pk for key in keys], timezone.now())
        except RedisError:
            points = {}
            messages.warning(request, "The store does not answer: the traffic is not known now.")
        for key in keys:
            key.last_day = points.get(key.pk)
        self.result_list = keys  # Django goes through it, no more.


@admin.register(ApiKey)
class ApiKeyWithTrafficAdmin(ApiKeyAdmin):
    change_form_template = "hello_project/apikey_change_form.html"

    class Media:
        css = {"all": ["hello_project/console.css"]}

    def get_list_display(self, request: HttpRequest) -> Any:
        columns = list(super().get_list_display(request))
        return [*columns, "last_24_hours"] if traffic_page.may_see(request) else columns

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysWithTraffic

    @admin.display(description="last 24 hours")
    def last_24_hours(self, key: ApiKey) -> str:
        points: list[Point] | None = getattr(key, "last_day", None)
        if points is None:
            return "not known"
        requests = sum(point.total for point in points)
        if not requests:
            return format_html('<span class="key-no-traffic">{}</span>', "no requests")
        refused = sum(traffic_charts.refusals(point.counts) for point in points)
        return format_html(
            '<span class="key-traffic">{} <span class="key-counts">{}{}</span></span>',
            traffic_charts.sparkline(points),
            charts.count_text(requests),
            format_html(' <span class="key-refused">{} refused</span>', charts.count_text(refused))
            if refused
            else "",
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        key: ApiKey | None = context["original"]
        if key is not None and traffic_page.may_see(request):
            context |= {"traffic": _charts_of(key.pk, timezone.now())}
        return super().render_change_form(request, context, *args, **kwargs)


def _charts_of(key_id: str, now: datetime) -> list[SafeString]:
    """Of the last hour, day and 30 days; only the last of them when the store does not answer."""
    drawn = []
    with suppress(RedisError):
        drawn = [
            _figure("key-hour", "The last hour", reports.key_by_five_minutes(key_id, now), 5),
            _figure("key-day", "The last 24 hours", reports.key_by_hour(key_id, now), 60),
        ]
    by_day = reports.key_by_day(key_id, now)
    return [*drawn, _figure("key-month", "The last 30 days", by_day, 24 * 60)]


def _figure(id_: str, title: str, points: Sequence[Point], minutes: int) -> SafeString:
    period, series = minutes * charts.MINUTE, traffic_charts.OF_A_KEY
    chart = traffic_charts.chart_of(id_, title, points, period, series)
    return traffic_charts.figure(chart, small=True)
