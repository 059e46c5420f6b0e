"""`manage.py usage`: what became of the requests of each key, over days."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import CommandError
from django.utils import timezone

from apikeys.management.key_command import KeyCommand, key_id_in
from apikeys.models import ApiKey
from hello_project import reports
from hello_project.usage import COLUMNS

LONGEST_DAYS: Final = 3660
TOLD_FROM: Final = 5_000
"""Keys: as many take a second or so."""


class Command(KeyCommand):
    help = "Shows the requests of each key by what became of them, the busiest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=int, default=30, help="how many, today included")
        parser.add_argument("--key", metavar="ID-or-key", help="of this key alone")
        parser.add_argument("--json", action="store_true", help="an array of objects")

    def handle(self, *, days: int, key: str | None, **options: Any) -> None:
        if not 1 <= days <= LONGEST_DAYS:
            raise CommandError(f"--days is from 1 to {LONGEST_DAYS}, not {days}.")
        names = _names(key)
        if len(names) > TOLD_FROM:
            self.stderr.write(f"Adding up the requests of {len(names):,} keys…")
        totals = reports.totals_by_key(list(names), days, timezone.now())
        rows = [
            {"id": key_id, "name": names[key_id]} | {name: counts[name] for name in COLUMNS}
            for key_id, counts in totals.items()
        ]
        rows.sort(key=lambda row: (-totals[str(row["id"])].total(), row["id"]))
        self.stdout.write(json.dumps(rows, indent=2) if options["json"] else _table(rows))


def _names(key: str | None) -> dict[str, str]:
    keys = ApiKey.objects.all()
    if key is not None:
        key_id = key_id_in(key)
        keys = keys.filter(pk=key_id)
        if key_id is None or not keys.exists():
            # A whole key is not repeated: what is printed may be kept.
            raise CommandError(f"There is no key {key_id}." if key_id else "That is no key or id.")
    return dict(keys.values_list("pk", "name"))


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ["id", "name", *COLUMNS]
    cells = [columns, *([f"{row[column]}" for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in COLUMNS else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        )
        for line in cells
    )
