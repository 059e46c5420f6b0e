"""`manage.py reset_second_factor`: for who has lost phone and recovery codes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from hello_project import second_factor


class Command(BaseCommand):
    help = "Removes a user's authenticator app and recovery codes; the password stays."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", metavar="USER")

    def handle(self, *, username: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user {username}.")
        if not second_factor.remove(user):
            raise CommandError(f"{username} has no second factor.")
        self.stderr.write(f"Removed the second factor of {username}.")
