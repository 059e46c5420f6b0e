from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connections, models, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from apikeys import generation, history, keys, networks
from apikeys.history import KeyEvent

if TYPE_CHECKING:
    TextField = models.TextField[str, str]
else:  # Django's own class cannot be subscripted.
    TextField = models.TextField

BETWEEN_WRITTEN_USES: Final = timedelta(minutes=1)
SET_FORWARD: Final = frozenset(
    {
        "digest",
        "previous_digest",
        "previous_until",
        "revoked_at",
        "revoked_reason",
        "last_used_at",
    }
)
"""Fields of a key that only `rotate`, `revoke` and `record_uses` write once it is issued."""
SOON: Final = timedelta(days=14)
"""A key that expires within this expires soon."""
IDS_A_STATEMENT: Final = 1_000
ROTATION_NOT_TOLD: Final = (
    "The new key is saved, but the store could not be told: processes that still reach it may go by"
    " their copy, refuse the new key and take the old one, until a change to any key finds the"
    " store: to revoke one that is revoked already will do. Do not rotate again for that, since it"
    " would end the old secret."
)
"""What to tell whoever has rotated a key when GenerationNotRaised came of it."""

__all__ = ["ApiKey", "KeyEvent"]


class KeyNotUsable(Exception):
    """A revoked or expired key is not given a new secret."""


def validate_rate(notation: str) -> None:
    """A key's own rate is in the notation of whatever throttles by it: API_KEY_RATE_VALIDATORS."""
    for path in getattr(settings, "API_KEY_RATE_VALIDATORS", ()):
        import_string(path)(notation)


class NetworksField(TextField):
    """Networks in any notation that apikeys.networks reads; kept in one."""

    def to_python(self, value: Any) -> Any:
        try:
            return networks.normalised(super().to_python(value) or "")
        except ValueError as error:
            raise ValidationError(str(error)) from error


def raise_generation_after_commit(*, must: bool = True) -> None:
    """With `must`, a store that cannot be told makes the commit raise GenerationNotRaised."""
    transaction.on_commit(generation.raise_number, robust=not must)


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """Every way to change rows raises the generation number, as `ApiKey.save` does."""

    def update(self, **values: Any) -> int:
        changed = super().update(**values)
        raise_generation_after_commit()
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        deleted = super().delete()
        raise_generation_after_commit()
        return deleted

    def bulk_create(self, objs: Iterable[ApiKey], *args: Any, **kwargs: Any) -> list[ApiKey]:
        created = super().bulk_create(objs, *args, **kwargs)
        raise_generation_after_commit(must=False)
        return created

    def revoke(self, ids: Iterable[str], reason: str = "", by: User | None = None) -> list[str]:
        """Refused everywhere from the next request on, once this returns outside a transaction.

        The ids of those that were not revoked before; the others keep their moment and reason. The
        number is raised even if there are none. Raises GenerationNotRaised.
        """
        wanted = sorted(set(ids))  # In one order, so that two who revoke the same do not deadlock.
        revoked: list[str] = []
        with transaction.atomic(using=self.db):
            for start in range(0, len(wanted), IDS_A_STATEMENT):
                some = wanted[start : start + IDS_A_STATEMENT]
                unrevoked = self.filter(pk__in=some, revoked_at=None).order_by("pk")
                found = list(unrevoked.select_for_update().values_list("pk", flat=True))
                models.QuerySet.update(
                    self.filter(pk__in=found), revoked_at=timezone.now(), revoked_reason=reason
                )
                history.record(found, KeyEvent.Action.REVOKED, by, reason)
                revoked += found
            raise_generation_after_commit()
        return revoked

    def count_by_status(self) -> dict[str, int]:
        now = timezone.now()
        is_expired = models.Q(revoked_at=None, expires_at__lte=now)
        counts = self.aggregate(
            all=models.Count("pk"),
            revoked=models.Count("pk", filter=models.Q(revoked_at__isnull=False)),
            expired=models.Count("pk", filter=is_expired),
        )
        active = counts.pop("all") - counts["revoked"] - counts["expired"]
        return {"active": active, **counts}

    def record_uses(self, moments: Mapping[str, datetime]) -> None:
        """When keys were used, by their ids. Written when it is a minute later than what is there.

        Not a change that any process has to hear of. By hand, because one UPDATE after the other
        through the ORM takes ten times as long, and many keys may have been used.
        """
        adapt = connections[self.db].ops.adapt_datetimefield_value
        with connections[self.db].cursor() as cursor:
            cursor.executemany(
                f"UPDATE {self.model._meta.db_table} SET last_used_at = %s"  # noqa: S608
                " WHERE id = %s AND (last_used_at IS NULL OR last_used_at <= %s)",
                [
                    (adapt(at), key_id, adapt(at - BETWEEN_WRITTEN_USES))
                    for key_id, at in moments.items()
                ],
            )


# mypy takes no base class that a call returns.
class ApiKeyManager(models.Manager.from_queryset(ApiKeyQuerySet)):  # type: ignore[misc]
    def issue(  # noqa: PLR0913 - a key's fields, each by name
        self,
        *,
        name: str,
        owner: str = "",
        environment: str = "live",
        rate: str = "",
        networks: str = "",
        expires_at: datetime | None = None,
        by: User | None = None,
    ) -> tuple[ApiKey, str]:
        """The saved key, and its plaintext for the one time that it is shown.

        Raises ValidationError.
        """
        key = ApiKey(
            name=name,
            owner=owner,
            environment=environment,
            rate=rate,
            networks=networks,
            expires_at=expires_at,
            created_by=by,
        )
        plaintext = key.make_secret()
        key.full_clean()
        key.save(force_insert=True)
        return key, plaintext


class ApiKey(models.Model):
    """A key as it is stored: never its secret, only the secret's SHA-256."""

    class Environment(models.TextChoices):
        LIVE = "live"
        TEST = "test"

    class Status(models.TextChoices):
        ACTIVE = "active"
        EXPIRES_SOON = "expires_soon", "expires soon"
        OVERLAPPING = "overlapping"
        EXPIRED = "expired"
        REVOKED = "revoked"

    id = models.CharField(
        "key id", primary_key=True, max_length=12, default=keys.generate_id, editable=False
    )
    name = models.CharField(max_length=100)
    owner = models.CharField(
        max_length=200, blank=True, help_text="Who answers for this key: a person or a team."
    )
    environment = models.CharField(
        max_length=4, choices=Environment.choices, default=Environment.LIVE
    )
    digest = models.CharField(max_length=64, editable=False)
    previous_digest = models.CharField(
        max_length=64, blank=True, default="", db_default="", editable=False
    )
    """Of the secret before the last rotation: good until `previous_until`."""
    previous_until = models.DateTimeField(null=True, blank=True, editable=False)
    rate = models.CharField(
        "own rate",
        max_length=30,
        blank=True,
        validators=[validate_rate],
        help_text="For this key alone, such as 100/1m or 1000/h. Blank: none.",
    )
    networks = NetworksField(
        "allowed networks",
        blank=True,
        default="",
        db_default="",  # While a process of the version before this column goes on issuing.
        help_text="Addresses and CIDRs that the key may be used from, such as 203.0.113.7,"
        " 2001:db8::/32. Blank: any.",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Blank: never.")
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_reason = models.CharField(max_length=200, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()

    plaintext: str | None = None
    """Only on the instance that the admin has just issued, on its way to the page; no column."""

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at"]
        # Keys are never deleted, they are revoked. "add" is what issuing takes.
        default_permissions = ("view", "add", "change")
        permissions = [
            ("rotate_apikey", "Can rotate API key"),
            ("revoke_apikey", "Can revoke API key"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Nobody has a copy of a new key, and its plaintext must reach whoever asked for it.
        is_known = not self._state.adding
        if is_known:
            kwargs.setdefault("update_fields", self._fields_saved_again())
        with transaction.atomic():
            super().save(*args, **kwargs)
            if not is_known:
                history.record([self.pk], KeyEvent.Action.ISSUED, self.created_by)
            raise_generation_after_commit(must=is_known)

    def _fields_saved_again(self) -> list[str]:
        """All but what is only ever set forward: saving an older copy undoes no revocation."""
        names = [field.name for field in self._meta.concrete_fields if not field.primary_key]
        return [name for name in names if name not in SET_FORWARD]

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        raise_generation_after_commit()
        return deleted

    @property
    def status(self) -> Status:
        """The first that holds of: revoked, expired, expires soon, overlapping, active."""
        now = timezone.now()
        if self.revoked_at:
            return self.Status.REVOKED
        if self.expires_at and self.expires_at <= now:
            return self.Status.EXPIRED
        if self.expires_at and self.expires_at <= now + SOON:
            return self.Status.EXPIRES_SOON
        return self.Status.OVERLAPPING if self.is_overlapping else self.Status.ACTIVE

    @property
    def is_usable(self) -> bool:
        return self.status not in (self.Status.REVOKED, self.Status.EXPIRED)

    @property
    def is_overlapping(self) -> bool:
        """Whether the secret before the last rotation is still good."""
        is_revoked = self.revoked_at is not None
        return not is_revoked and bool(self.previous_until and self.previous_until > timezone.now())

    def make_secret(self) -> str:
        """Give this unsaved key its digest; the plaintext is returned and kept nowhere."""
        key = keys.generate(self.environment, self.id)
        self.digest = key.digest
        return str(key)

    def rotate(self, overlap: timedelta, by: User | None = None) -> str:
        """A new secret, whose plaintext is returned; the one before is good for `overlap` more.

        With no overlap it is refused everywhere from the next request on, once this returns outside
        a transaction. A key has one secret before: an older one that was still good ends now.
        Raises KeyNotUsable, and GenerationNotRaised: inside a transaction only when that commits,
        and by then the caller has the plaintext; without one it is lost.
        """
        with transaction.atomic():
            key = ApiKey.objects.select_for_update().get(pk=self.pk)
            if not key.is_usable:
                raise KeyNotUsable(f"{key} is {key.status.label.lower()}: it takes no new secret.")
            previous = key.digest
            plaintext: str = key.make_secret()
            until = timezone.now() + overlap if overlap > timedelta() else None
            ApiKey.objects.filter(pk=self.pk).update(
                digest=key.digest,
                previous_digest=previous if until else "",
                previous_until=until,
            )
            detail = f"The old secret works until {until:%Y-%m-%d %H:%M:%S} UTC." if until else ""
            history.record([self.pk], KeyEvent.Action.ROTATED, by, detail)
        self.refresh_from_db(fields=["digest", "previous_digest", "previous_until"])
        return plaintext

    def end_overlap(self, by: User | None = None) -> bool:
        """Refuse the secret before the last rotation from the next request on.

        Whether it was still good. Raises GenerationNotRaised.
        """
        with transaction.atomic():
            overlapping = ApiKey.objects.filter(pk=self.pk, previous_until__gt=timezone.now())
            ended = bool(overlapping.update(previous_digest="", previous_until=None))
            if ended:
                history.record([self.pk], KeyEvent.Action.OVERLAP_ENDED, by)
        self.refresh_from_db(fields=["previous_digest", "previous_until"])
        return ended

    def record_edit(self, by: User | None, fields: Iterable[str]) -> None:
        """To be called in the transaction that changed these fields."""
        own = {field.name: field.verbose_name for field in self._meta.fields}
        names = [str(own[name]) for name in fields]
        if names:
            history.record([self.pk], KeyEvent.Action.EDITED, by, ", ".join(names))

    def revoke(self, reason: str = "", by: User | None = None) -> None:
        """As ApiKeyQuerySet.revoke, of this key."""
        ApiKey.objects.revoke([self.pk], reason, by)
        self.refresh_from_db(fields=["revoked_at", "revoked_reason"])
