"""`manage.py test` is pytest, with its arguments."""

from __future__ import annotations

import importlib.util
import os
import sys

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Runs the tests with pytest; all arguments are pytest's."

    def run_from_argv(self, argv: list[str]) -> None:
        if importlib.util.find_spec("pytest") is None:
            sys.exit("The tests need pytest: run `pip install -r requirements-dev.txt`.")
        os.chdir(settings.BASE_DIR)
        # pytest-django takes the tests' own settings; ours would win from the environment.
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)
        arguments = [sys.executable, "-m", "pytest", *argv[2:]]
        os.execv(sys.executable, arguments)  # noqa: S606 - pytest in this same environment

    def handle(self, *args: object, **options: object) -> None:
        raise CommandError("Run the tests from a shell: `python3 manage.py test`.")
