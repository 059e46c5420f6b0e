"""`manage.py issue_key`: the plaintext alone on stdout, words on stderr."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone

from apikeys.durations import parse_duration
from apikeys.management.key_command import KeyCommand
from apikeys.models import ApiKey


class Command(KeyCommand):
    help = "Issues an API key and prints it, this once, on stdout."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="what the key is for")
        parser.add_argument("--owner", default="", help="who answers for it")
        parser.add_argument("--environment", choices=ApiKey.Environment.values, default="live")
        parser.add_argument("--rate", default="", help="a rate of its own, such as 100/1m")
        parser.add_argument(
            "--network",
            action="append",
            default=[],
            metavar="CIDR",
            help="a network or address that it may be used from, repeatable; any without",
        )
        parser.add_argument("--expires", default="", help="after how long, such as 90d")

    def handle(  # noqa: PLR0913 - a key's fields, each by name
        self,
        *,
        name: str,
        owner: str,
        environment: str,
        rate: str,
        network: list[str],
        expires: str,
        **options: Any,
    ) -> None:
        try:
            key, plaintext = ApiKey.objects.issue(
                name=name,
                owner=owner,
                environment=environment,
                rate=rate,
                networks=" ".join(network),
                expires_at=_moment(expires),
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        self.stderr.write(f"Issued {key}. This is the only time that it is shown:")
        self.stdout.write(plaintext)


def _moment(expires: str) -> datetime | None:
    if not expires:
        return None
    try:
        return timezone.now() + parse_duration(expires)
    except ValueError as error:
        raise CommandError(f"--expires: {error}") from error
