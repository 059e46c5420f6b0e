"""Usage per key and day in the database, brought there from the counts in the store.

Every process with traffic tries once a minute; a lease in the store lets one of them through. That
each count is added exactly once does not hang on the lease: what waits is taken as a batch under a
name, and the name is written in the transaction that adds the batch. Whoever finds it there adds
nothing. What is taken changes only after that transaction, so whoever wakes up late, and reads
another batch or half of one, finds the name there too. A process may die at any moment.

| key | what |
|---|---|
| `{traffic}:usage:0` | hash, `<days since 1970> <key id> <outcome>` -> requests: what waits |
| `{traffic}:usage:taken` | hash, as above: the batch on its way into the database |
| `{traffic}:usage:batch` | string, the name of the batch that was taken last |
| `{traffic}:usage:lease` | string, for as long as nobody else need try |

While the database is down the counts wait in the store; a lost store loses at most what waits.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from django.db import Error, IntegrityError, connection, transaction
from django.utils import timezone
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from apikeys.background import FlushedInBackground
from hello_project.models import KeyUsage, UsageBatch
from hello_project.outcomes import REFUSED, Outcome
from hello_project.traffic import EVER, USAGE

logger = logging.getLogger(__name__)

TAKE: Final = Path(__file__).with_name("usage_take.lua").read_text()
DONE: Final = Path(__file__).with_name("usage_done.lua").read_text()
WAITING: Final = USAGE.key(EVER)
TAKEN: Final = "{traffic}:usage:taken"
BATCH: Final = "{traffic}:usage:batch"
LEASE: Final = "{traffic}:usage:lease"

FLUSH_SECONDS: Final = 60.0
LEASE_MS: Final = 55_000
ROWS_A_STATEMENT: Final = 1_000
FIELDS_A_CALL: Final = 1_000
BATCHES_KEPT: Final = timedelta(days=31)
EPOCH: Final = date(1970, 1, 1)
COLUMNS: Final = ("admitted", "refused", "forbidden", "errors")

Counts: TypeAlias = Mapping[tuple[str, int], Counter[str]]
"""By key and day (since 1970), and in these by the columns of KeyUsage."""


def column_of(outcome: str) -> str | None:
    """Where KeyUsage counts requests of this outcome; None for one that no key can have."""
    if outcome.startswith(REFUSED):
        return "refused"
    return {
        str(Outcome.ADMITTED): "admitted",
        str(Outcome.FORBIDDEN): "forbidden",
        str(Outcome.ERROR): "errors",
    }.get(outcome)


class Usage(FlushedInBackground):
    def __init__(self, flush_seconds: float = FLUSH_SECONDS) -> None:
        super().__init__(flush_seconds)

    def write(self) -> None:
        try:
            store = get_redis_connection("default")
            if store.set(LEASE, secrets.token_hex(8), nx=True, px=LEASE_MS):
                add_what_waits()
        except (RedisError, Error) as error:
            logger.warning("Usage was not brought into the database (%s); it waits.", error)

    def clear(self) -> None:
        """Nothing is gathered here."""

    def stop(self) -> None:
        """What waits is in the store, and another process goes on."""

    def flush_unattended(self) -> None:
        try:
            super().flush_unattended()
        finally:
            connection.close()


def add_what_waits() -> None:
    """Raises RedisError and django.db.Error: then the batch stays taken, to be added again."""
    store = get_redis_connection("default")
    taken = store.register_script(TAKE)([WAITING, TAKEN, BATCH], [secrets.token_hex(8)])
    if taken is None:
        return
    name = taken.decode()
    if not UsageBatch.objects.filter(pk=name).exists():
        _add(name, sorted(counts_in(read(TAKEN)).items()))
    store.register_script(DONE)([TAKEN, BATCH], [name])
    UsageBatch.objects.filter(added_at__lt=timezone.now() - BATCHES_KEPT).delete()


def read(key: str) -> Iterator[tuple[bytes, bytes]]:
    found: Iterator[tuple[bytes, bytes]] = get_redis_connection("default").hscan_iter(
        key, count=FIELDS_A_CALL
    )
    return found


def counts_in(fields: Iterable[tuple[bytes, bytes]]) -> Counts:
    """Of a hash that waits or is taken, and read by a scan, which may give a field twice."""
    rows: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for field, count in dict(fields).items():
        day, key_id, outcome = field.decode().split(" ", 2)
        column = column_of(outcome)
        if column is not None:
            rows[key_id, int(day)][column] += int(count)
    return rows


def _add(name: str, rows: Sequence[tuple[tuple[str, int], Counter[str]]]) -> None:
    """This batch, unless the database has it."""
    try:
        with transaction.atomic():
            UsageBatch.objects.create(id=name, added_at=timezone.now())
            for start in range(0, len(rows), ROWS_A_STATEMENT):
                _upsert(rows[start : start + ROWS_A_STATEMENT])
    except IntegrityError:
        if not UsageBatch.objects.filter(pk=name).exists():
            raise


def _upsert(rows: Sequence[tuple[tuple[str, int], Counter[str]]]) -> None:
    """Numbers and days stand in the statement: to place 600,000 parameters took seconds."""
    table = KeyUsage._meta.db_table
    values = ", ".join(
        f"(%s, '{EPOCH + timedelta(days=day)}', "
        + ", ".join(f"{counts[column]:d}" for column in COLUMNS)
        + ")"
        for (_, day), counts in rows
    )
    added = ", ".join(f"{column} = {table}.{column} + excluded.{column}" for column in COLUMNS)
    statement = (
        f"INSERT INTO {table} (key_id, day, {', '.join(COLUMNS)})"  # noqa: S608 - our own names
        f" VALUES {values} ON CONFLICT (key_id, day) DO UPDATE SET {added}"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [key_id for (key_id, _), _ in rows])


usage = Usage()
