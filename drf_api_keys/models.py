from __future__ import annotations

from typing import Any, ClassVar, Final

from django.db import models

from apikeys.models import ApiKey, raise_generation_after_commit
from drf_api_keys import hashes

NO_SECRET: Final = "0" * 64
"""The digest of an imported key's ApiKey: nobody knows a secret with this SHA-256."""

LONGEST_PREFIX: Final = 50
LONGEST_HASH: Final = 255


class ImportedKeyQuerySet(models.QuerySet["ImportedKey"]):
    def delete(self) -> tuple[int, dict[str, int]]:
        deleted = super().delete()
        raise_generation_after_commit()
        return deleted


class ImportedKey(models.Model):
    """A key of djangorestframework-api-key's, and the ApiKey as which it is accepted.

    Whether it is good at this moment, and what it may do, is in the ApiKey's row alone.
    """

    key = models.OneToOneField(
        ApiKey, primary_key=True, editable=False, on_delete=models.CASCADE, related_name="+"
    )
    prefix = models.CharField(max_length=LONGEST_PREFIX, unique=True, editable=False)
    hashed_key = models.CharField(max_length=LONGEST_HASH, editable=False)
    table = models.CharField(
        max_length=63, editable=False, help_text="The table that it was imported from."
    )

    objects: ClassVar[models.Manager[ImportedKey]] = models.Manager.from_queryset(
        ImportedKeyQuerySet
    )()

    class Meta:
        verbose_name = "key from djangorestframework-api-key"
        verbose_name_plural = "keys from djangorestframework-api-key"

    def __str__(self) -> str:
        return self.prefix

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        raise_generation_after_commit()
        return deleted

    @property
    def is_fast(self) -> bool:
        return hashes.is_fast(self.hashed_key)
