"""`manage.py unlock_login`: for who has failed too often."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from redis.exceptions import RedisError

from hello_project import login, second_factor
from throttling import addresses
from throttling.clients import client_identity


class Command(BaseCommand):
    help = "Lets a user try passwords and codes again; the log says from which address they failed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", metavar="USER")
        parser.add_argument("address", metavar="ADDRESS")

    def handle(self, *, username: str, address: str, **options: Any) -> None:
        # The log has of an IPv6 address its /64.
        identity = client_identity({"REMOTE_ADDR": address.removesuffix("/64")})
        if identity == addresses.UNKNOWN:
            raise CommandError(f"{address!r} is no address.")
        try:
            login.FAILURES.reset(login.of_user(identity, username))
            login.ATTEMPTS.reset(login.of_address(identity))
            for user in User.objects.filter(username=username):
                login.FAILURES.reset(second_factor.of_codes(user))
        except RedisError as error:
            raise CommandError(f"The store does not answer: {error}.") from error
        self.stderr.write(f"{username} may try again from {address}.")
