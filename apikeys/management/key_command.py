from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error


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
