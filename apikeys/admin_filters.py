"""The filters beside the list of keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from apikeys import models
from apikeys.models import ApiKey

TEMPLATE: Final = "admin/apikeys/apikey/filter.html"


class EnvironmentFilter(admin.ChoicesFieldListFilter):
    template = TEMPLATE


class StatusFilter(admin.SimpleListFilter):
    """Expires soon and overlapping are each found whatever else a usable key is."""

    template = TEMPLATE
    title = "status"
    parameter_name = "status"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        return [(status.value, status.label) for status in ApiKey.Status]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        expired, soon = Q(expires_at__lte=now), Q(expires_at__lte=now + models.SOON)
        usable = queryset.filter(revoked_at=None).exclude(expired)
        match self.value():
            case ApiKey.Status.REVOKED:
                return queryset.exclude(revoked_at=None)
            case ApiKey.Status.EXPIRED:
                return queryset.filter(expired, revoked_at=None)
            case ApiKey.Status.EXPIRES_SOON:
                return usable.filter(soon)
            case ApiKey.Status.OVERLAPPING:
                return usable.filter(previous_until__gt=now)
            case ApiKey.Status.ACTIVE:
                return usable.exclude(expires_at__lte=now + models.SOON).exclude(
                    previous_until__gt=now
                )
        return queryset


class UseFilter(admin.SimpleListFilter):
    """A key never used counts as not used since it was issued."""

    template = TEMPLATE
    title = "use"
    parameter_name = "use"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        return [
            ("day", "Used in the last day"),
            ("not-30d", "Not used for 30 days"),
            ("not-90d", "Not used for 90 days"),
            ("never", "Never used"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        match self.value():
            case "day":
                return queryset.filter(last_used_at__gt=now - timedelta(days=1))
            case "not-30d":
                return queryset.filter(_not_used_since(now - timedelta(days=30)))
            case "not-90d":
                return queryset.filter(_not_used_since(now - timedelta(days=90)))
            case "never":
                return queryset.filter(last_used_at=None)
        return queryset


def _not_used_since(moment: Any) -> Q:
    return Q(last_used_at__lte=moment) | Q(last_used_at=None, created_at__lte=moment)
