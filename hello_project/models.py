from __future__ import annotations

from django.db import models


class KeyUsage(models.Model):
    """What became of a key's requests on a day (UTC). Only added to, by hello_project.usage."""

    key_id = models.CharField(max_length=12)
    """Not a foreign key: the history of a key outlives it, and is written without looking."""
    day = models.DateField()
    admitted = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    forbidden = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ("view",)
        constraints = [models.UniqueConstraint(fields=["key_id", "day"], name="one_a_key_and_day")]

    def __str__(self) -> str:
        return f"{self.key_id} on {self.day}"


class UsageBatch(models.Model):
    """A batch of counts that KeyUsage has, so that it is added once however often it comes."""

    id = models.CharField(primary_key=True, max_length=40)
    added_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["added_at"], name="usage_batch_added_at")]

    def __str__(self) -> str:
        return self.id
