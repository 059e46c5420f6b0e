"""Who did what to a key, and when. Written with the change, in its transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.utils import timezone

COMMAND_LINE: Final = "command line"
"""Whoever acts without a login: commands, and code that names nobody."""
NAME_LENGTH: Final = 150
"""Of Django's own users."""


class KeyEvent(models.Model):
    class Action(models.TextChoices):
        ISSUED = "issued"
        EDITED = "edited"
        ROTATED = "rotated"
        OVERLAP_ENDED = "overlap ended"
        REVOKED = "revoked"

    key = models.ForeignKey("apikeys.ApiKey", on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    action = models.CharField(max_length=20, choices=Action.choices)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    by_name = models.CharField(max_length=NAME_LENGTH)
    """Stays when the user goes."""
    detail = models.CharField(max_length=400, blank=True)

    class Meta:
        default_permissions = ()
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.action} by {self.by_name}"


def record(
    key_ids: Iterable[str], action: KeyEvent.Action, by: User | None, detail: str = ""
) -> None:
    # A project's own users may have longer names.
    by_name = by.get_username()[:NAME_LENGTH] if by else COMMAND_LINE
    at = timezone.now()
    KeyEvent.objects.bulk_create(
        [
            KeyEvent(key_id=key_id, at=at, action=action, by=by, by_name=by_name, detail=detail)
            for key_id in key_ids
        ],
        batch_size=1000,
    )
