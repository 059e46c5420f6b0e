from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from apikeys import keys


class KeyCommand(BaseCommand):
    """A command on keys, which says in a sentence what to do when the database fails it."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except Error as error:
            reason = " ".join(str(error).split())
            raise CommandError(
                f"The database failed: {reason}. If it has no tables yet, run"
                " `python3 manage.py migrate`; if it does not answer, look at its settings."
            ) from error


def key_id_in(text: str) -> str | None:
    """The public id, of an id or of a whole key; None when `text` is neither."""
    key = keys.parse(text)
    if key is not None:
        return key.id
    return text if keys.is_id(text) else None
