#!/usr/bin/env python3
"""Django's command-line utility for administrative tasks."""

import os
import sys

from hello_project import virtualenv


def main() -> None:
    virtualenv.enter(sys.argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hello_project.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
