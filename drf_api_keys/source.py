"""Reading the table of djangorestframework-api-key, in this project's database or in another."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from django.db import Error, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

DEFAULT_TABLE: Final = "rest_framework_api_key_apikey"
COLUMNS: Final = ("prefix", "hashed_key", "name", "created", "revoked", "expiry_date")

Row = tuple[str | None, ...]
"""What is in COLUMNS, as text, so that a row that is malformed can be read all the same."""

CONNECT_SECONDS: Final = 5


class SourceFailed(Exception):
    """It says what to do."""


@contextmanager
def opened(table: str, database_url: str | None) -> Iterator[Source]:
    """The table in that database; without a URL, in this project's own. Raises SourceFailed."""
    config = dict(connection.settings_dict) if database_url is None else _config(database_url)
    separate = ConnectionHandler({"default": config})["default"]
    try:
        yield Source(table, separate)
    finally:
        separate.close()


class Source:
    """A table of keys, read through a connection of its own and never written to."""

    def __init__(self, table: str, connection: BaseDatabaseWrapper) -> None:
        self.table = table
        self._connection = connection
        with self._failing_well():
            connection.ensure_connection()
            if connection.vendor == "sqlite":
                # What is not UTF-8 spoils its row and not the whole reading.
                connection.connection.text_factory = _decoded
            self.tables = list(self._tables_of_keys())
        if table not in self.tables:
            raise SourceFailed(self._why_it_has_no_keys())

    def count(self) -> int:
        [[number]] = self._rows(f"SELECT count(*) FROM {self._quoted_table}")  # noqa: S608 - quoted
        return int(number)

    def batches(self, size: int) -> Iterator[list[Row]]:
        """All rows by their prefixes. Of the table, a batch is in memory at a time."""
        columns = ", ".join(f"CAST({self._quoted(column)} AS text)" for column in COLUMNS)
        sql = f"SELECT {columns} FROM {self._quoted_table} ORDER BY {self._quoted('prefix')}"  # noqa: S608 - quoted
        with self._failing_well(), self._connection.chunked_cursor() as cursor:
            cursor.execute(sql)
            while rows := cursor.fetchmany(size):
                yield rows

    def prefixes_among(self, prefixes: Collection[str]) -> set[str]:
        """Which of these are in the table."""
        prefix, places = self._quoted("prefix"), ", ".join(["%s"] * len(prefixes))
        sql = f"SELECT {prefix} FROM {self._quoted_table} WHERE {prefix} IN ({places})"  # noqa: S608 - quoted
        return {found for [found] in self._rows(sql, *prefixes)}

    @property
    def _quoted_table(self) -> str:
        return self._quoted(self.table)

    def _quoted(self, name: str) -> str:
        return self._connection.ops.quote_name(name)

    def _rows(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        with self._failing_well(), self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def _tables_of_keys(self) -> Iterator[str]:
        with self._connection.cursor() as cursor:
            for table in self._connection.introspection.table_names(cursor):
                missing: list[str] | None = None
                with suppress(Error):  # Whoever may read that one table alone is welcome.
                    missing = self._missing_from(table, cursor)
                if missing == []:
                    yield table

    def _missing_from(self, table: str, cursor: Any) -> list[str]:
        described = self._connection.introspection.get_table_description(cursor, table)
        present = {column.name for column in described}
        return [column for column in COLUMNS if column not in present]

    def _why_it_has_no_keys(self) -> str:
        with self._failing_well(), self._connection.cursor() as cursor:
            if self.table in self._connection.introspection.table_names(cursor):
                missing = ", ".join(self._missing_from(self.table, cursor))
                return (
                    f"The table {self.table} has no {missing}. If it is from before"
                    " djangorestframework-api-key 1.4, upgrade and migrate it there first."
                )
        if not self.tables:
            return f"There is no table {self.table}, nor any other that has such keys."
        return (
            f"There is no table {self.table}. Keys are in {', '.join(self.tables)}:"
            " name one of these with --table."
        )

    @contextmanager
    def _failing_well(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            reason = " ".join(str(error).split())
            raise SourceFailed(f"The database of the old keys failed: {reason}") from error


def _config(url: str) -> dict[str, Any]:
    """Raises SourceFailed, with nothing of the URL, since a password may be in it."""
    try:
        import environ
    except ImportError as error:
        raise SourceFailed(
            "--database-url needs another package: pip install django-environ"
        ) from error
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("postgres", "postgresql", "sqlite") and bool(
            parts.path.strip("/")
        )
        config: dict[str, Any] = environ.Env.db_url_config(url) if is_good else {}
    except ValueError:
        config = {}
    if not config:
        raise SourceFailed(
            "--database-url is not a database's URL:"
            " write postgres://user:password@host:5432/name or sqlite:////absolute/path."
        )
    if parts.scheme == "sqlite":
        path = Path(config["NAME"]).absolute()
        if not path.is_file():
            raise SourceFailed(f"There is no file {path}.")
        # Only to read, so that nothing is changed or made there.
        return config | {"NAME": f"file:{quote(str(path))}?mode=ro"}
    return config | {"OPTIONS": {"connect_timeout": CONNECT_SECONDS} | config.get("OPTIONS", {})}


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")
