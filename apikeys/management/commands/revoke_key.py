"""`manage.py revoke_key`: by id or by the whole key, as a secret scanner reports it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from apikeys import keys
from apikeys.generation import GenerationNotRaised
from apikeys.management.key_command import KeyCommand
from apikeys.models import ApiKey


class Command(KeyCommand):
    help = "Revokes API keys: refused everywhere from the next request on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="ID-or-key")
        parser.add_argument("--stdin", action="store_true", help="read more, one a line")
        parser.add_argument("--reason", default="")

    def handle(self, *, stdin: bool, reason: str, **options: Any) -> None:
        given: list[str] = list(options["keys"])
        if stdin:
            given += [line.strip() for line in sys.stdin if line.strip()]
        if not given:
            raise CommandError("Name at least one key, by its id or whole, or use --stdin.")
        failures = sum(not self._revoke(key_id_in(text), reason) for text in given)
        if failures:
            raise CommandError(f"{failures} of {len(given)} could not be revoked; see above.")

    def _revoke(self, key_id: str | None, reason: str) -> bool:
        key = ApiKey.objects.filter(pk=key_id).first() if key_id else None
        if key is None:
            # A whole key is not repeated: what is printed may be kept.
            self.stderr.write(f"There is no key {key_id}." if key_id else "That is no key or id.")
            return False
        try:
            key.revoke(reason)
        except GenerationNotRaised as error:
            self.stderr.write(f"{key}: {error}")
            return False
        self.stderr.write(f"Revoked {key}.")
        return True


def key_id_in(text: str) -> str | None:
    """The public id, of an id or of a whole key; None when `text` is neither."""
    key = keys.parse(text)
    if key is not None:
        return key.id
    return text if keys.is_id(text) else None
