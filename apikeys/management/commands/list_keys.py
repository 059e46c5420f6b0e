"""`manage.py list_keys`: every key, newest first, as a table or as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from apikeys.management.key_command import KeyCommand
from apikeys.models import ApiKey


class Command(KeyCommand):
    help = "Lists the API keys, newest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="an array of objects")
        parser.add_argument("--status", choices=ApiKey.Status.values, help="only these")

    def handle(self, **options: Any) -> None:
        found = ApiKey.objects.all()
        rows = [_row(key) for key in found if options["status"] in (None, key.status)]
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
        elif not rows and options["status"]:
            self.stderr.write("There is no such key.")
        elif not rows:
            self.stderr.write("There are no keys yet: issue one with `issue_key NAME`.")
        else:
            self.stdout.write(_table(rows))


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.pk,
        "name": key.name,
        "owner": key.owner,
        "environment": key.environment,
        "status": key.status.value,
        "rate": key.rate or None,
        "networks": key.networks.split(", ") if key.networks else None,
        "created_at": _written(key.created_at),
        "expires_at": _written(key.expires_at),
        "previous_until": _written(key.previous_until),
        "revoked_at": _written(key.revoked_at),
        "revoked_reason": key.revoked_reason or None,
        "last_used_at": _written(key.last_used_at),
    }


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ["id", "name", "owner", "environment", "status", "rate", "expires_at", "last_used_at"]
    cells = [columns, *([row[column] or "" for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
