"""How the admin's pages show a moment and a key's status."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from apikeys.models import ApiKey

register = template.Library()

_UNITS: Final = (
    ("year", timedelta(days=365)),
    ("month", timedelta(days=30)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
)


def in_words(at: datetime, now: datetime) -> str:
    """Such as "3 minutes ago" and "in 36 hours": rounded in the largest unit that fits twice."""
    for name, unit in _UNITS:
        if abs(at - now) >= (unit if name == "minute" else 2 * unit):
            count = round(abs(at - now) / unit)
            length = f"{count} {name}{'' if count == 1 else 's'}"
            return f"{length} ago" if at < now else f"in {length}"
    return "just now" if at <= now else "within a minute"


@register.filter
def relative(at: datetime | None) -> str:
    """The moment in words, and in full where the mouse rests; "never" for none."""
    if at is None:
        return "never"
    local = timezone.localtime(at)
    return format_html(
        '<time datetime="{}" title="{} {}">{}</time>',
        at.isoformat(timespec="seconds"),
        date_format(local, "DATETIME_FORMAT"),
        local.tzname() or "",
        in_words(at, timezone.now()),
    )


@register.filter
def statuses(key: ApiKey) -> SafeString:
    """The key's status in words, an overlap beside it, and the moment that goes with each."""
    Status = ApiKey.Status  # noqa: N806 - a class
    shown = [key.status]
    if key.is_usable and key.is_overlapping and Status.OVERLAPPING not in shown:
        shown.append(Status.OVERLAPPING)
    return format_html_join(
        " ",
        '<span class="key-status"><span class="key-{}">{}</span>{}</span>',
        ((_class(status), capfirst(status.label), _moment(key, status)) for status in shown),
    )


def _class(status: ApiKey.Status) -> str:
    return status.value.replace("_", "-")


def _moment(key: ApiKey, status: ApiKey.Status) -> str:
    at, words = {
        ApiKey.Status.REVOKED: (key.revoked_at, "{}"),
        ApiKey.Status.EXPIRED: (key.expires_at, "{}"),
        ApiKey.Status.EXPIRES_SOON: (key.expires_at, "{}"),
        ApiKey.Status.OVERLAPPING: (key.previous_until, "ends {}"),
    }.get(status, (None, ""))
    if at is None:
        return ""
    return format_html(' <span class="key-moment">' + words + "</span>", relative(at))
