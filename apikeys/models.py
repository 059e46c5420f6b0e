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

from apikeys import generation, keys, networks

if TYPE_CHECKING:
    TextField = models.TextField[str, str]
else:  # Django's own class cannot be subscripted.
    TextField = models.TextField

BETWEEN_WRITTEN_USES: Final = timedelta(minutes=1)
SET_FORWARD: Final = frozenset({"revoked_at", "revoked_reason", "last_used_at"})
"""Fields of a key that `revoke` and `record_uses` write, and `save` does not write again."""


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
        created_by: User | None = None,
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
            created_by=created_by,
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

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Nobody has a copy of a new key, and its plaintext must reach whoever asked for it.
        is_known = not self._state.adding
        if is_known:
            kwargs.setdefault("update_fields", self._fields_saved_again())
        super().save(*args, **kwargs)
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
        if self.revoked_at:
            return self.Status.REVOKED
        if self.expires_at and self.expires_at <= timezone.now():
            return self.Status.EXPIRED
        return self.Status.ACTIVE

    def make_secret(self) -> str:
        """Give this unsaved key its digest; the plaintext is returned and kept nowhere."""
        key = keys.generate(self.environment, self.id)
        self.digest = key.digest
        return str(key)

    def revoke(self, reason: str = "") -> None:
        """Refused everywhere from the next request on, once this returns outside a transaction.

        A key that is revoked already, by whomever, keeps its first moment and reason, but the
        number is raised again. Raises GenerationNotRaised.
        """
        unrevoked = ApiKey.objects.filter(pk=self.pk, revoked_at=None)
        unrevoked.update(revoked_at=timezone.now(), revoked_reason=reason)
        self.refresh_from_db(fields=["revoked_at", "revoked_reason"])
