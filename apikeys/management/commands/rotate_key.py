"""`manage.py rotate_key`: the new plaintext alone on stdout, words on stderr."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import transaction

from apikeys.durations import parse_duration
from apikeys.generation import GenerationNotRaised
from apikeys.management.key_command import KeyCommand, key_id_in
from apikeys.models import ROTATION_NOT_TOLD, ApiKey, KeyNotUsable

NOW: Final = ("now", "0")


class Command(KeyCommand):
    help = "Gives a key a new secret and prints the key, this once, on stdout."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key", metavar="ID-or-key")
        parser.add_argument(
            "--overlap",
            default="24h",
            help="how long the old secret works beside the new one, such as 24h; or: now",
        )

    def handle(self, *, key: str, overlap: str, **options: Any) -> None:
        duration = _duration(overlap)
        key_id = key_id_in(key)
        found = ApiKey.objects.filter(pk=key_id).first() if key_id else None
        if found is None:
            # A whole key is not repeated: what is printed may be kept.
            raise CommandError(f"There is no key {key_id}." if key_id else "That is no key or id.")
        plaintext, is_told = _rotate(found, duration)
        if found.previous_until:
            until = found.previous_until.isoformat(sep=" ", timespec="seconds")
            self.stderr.write(f"The old secret of {found} works until {until}.")
        else:
            self.stderr.write(f"The old secret of {found} works no longer.")
        self.stderr.write("This is the only time that the new key is shown:")
        self.stdout.write(plaintext)
        if not is_told:
            raise CommandError(ROTATION_NOT_TOLD)


def _rotate(key: ApiKey, overlap: timedelta) -> tuple[str, bool]:
    """The plaintext, which nothing must keep from stdout, and whether the store was told."""
    plaintext = ""
    try:
        with transaction.atomic():
            plaintext = key.rotate(overlap)
    except KeyNotUsable as error:
        raise CommandError(str(error)) from error
    except GenerationNotRaised:
        return plaintext, False
    return plaintext, True


def _duration(overlap: str) -> timedelta:
    if overlap in NOW:
        return timedelta()
    try:
        return parse_duration(overlap)
    except ValueError as error:
        raise CommandError(f"--overlap: {error} Or write: now.") from error
