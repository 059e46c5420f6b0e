"""Tables like djangorestframework-api-key's whose rows may be as malformed as they like."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from django.db import connection

from drf_api_keys import hashes
from drf_api_keys.source import COLUMNS, DEFAULT_TABLE

CREATED = "2024-05-06 07:08:09.000001"


def old_row(prefix: str | None = "AbCdEfG1", **columns: Any) -> dict[str, Any]:
    """A good row but for these columns."""
    good = {
        "prefix": prefix,
        "hashed_key": hashes.fast_hash(f"{prefix}.{'s' * 32}"),
        "name": "billing",
        "created": CREATED,
        "revoked": "0",
        "expiry_date": None,
    }
    return good | columns


def make_table(*rows: dict[str, Any], name: str = DEFAULT_TABLE, without: str = "") -> None:
    """In this project's own database. It has to be dropped."""
    columns = [column for column in COLUMNS if column != without]
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE TABLE "{name}" ({", ".join(f"{each} text" for each in columns)})')
        for row in rows:
            places = ", ".join(["%s"] * len(columns))
            values = [row[column] for column in columns]
            cursor.execute(f'INSERT INTO "{name}" VALUES ({places})', values)


def drop_tables(*names: str) -> None:
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f'DROP TABLE IF EXISTS "{name}"')


def make_file(path: Path, *rows: dict[str, Any]) -> str:
    """The same in a SQLite file; its URL."""
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE {DEFAULT_TABLE} ({', '.join(COLUMNS)})")
        places = ", ".join("?" * len(COLUMNS))
        database.executemany(
            f"INSERT INTO {DEFAULT_TABLE} VALUES ({places})",
            ([row[column] for column in COLUMNS] for row in rows),
        )
    database.close()
    return f"sqlite:///{path}"
