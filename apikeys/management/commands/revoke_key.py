"""`manage.py revoke_key`: by id or by the whole key, as a secret scanner reports it."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any, Final

from django.core.management.base import CommandError

from apikeys.generation import GenerationNotRaised
from apikeys.management.key_command import KeyCommand, key_id_in
from apikeys.models import IDS_A_STATEMENT, ApiKey

SILENT_SECONDS: Final = 1.0


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
        taken, failures, told = 0, 0, time.monotonic()
        for part in _parts(given):
            taken += len(part)
            failures += len(part) - self._revoke([key_id_in(text) for text in part], reason)
            if time.monotonic() - told > SILENT_SECONDS:
                told = time.monotonic()
                self.stderr.write(f"{taken:,} of {len(given):,} …")
        if failures:
            raise CommandError(f"{failures} of {len(given)} could not be revoked; see above.")

    def _revoke(self, ids: list[str | None], reason: str) -> int:
        """How many of these are revoked now."""
        found = ApiKey.objects.in_bulk([key_id for key_id in ids if key_id])
        failure = ""
        try:
            ApiKey.objects.revoke(found, reason)
        except GenerationNotRaised as error:
            failure = str(error)
        for key_id in ids:
            if key_id not in found:
                # A whole key is not repeated: what is printed may be kept.
                self.stderr.write(
                    f"There is no key {key_id}." if key_id else "That is no key or id."
                )
            else:
                self.stderr.write(
                    f"{found[key_id]}: {failure}" if failure else f"Revoked {found[key_id]}."
                )
        return 0 if failure else sum(key_id in found for key_id in ids)


def _parts(given: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(given), IDS_A_STATEMENT):
        yield given[start : start + IDS_A_STATEMENT]
