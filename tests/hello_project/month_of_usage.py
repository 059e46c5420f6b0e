"""Many keys and a month of their usage, by SQL and pipelines: through the ORM it takes minutes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection
from redis import Redis

from apikeys.models import ApiKey
from hello_project.models import KeyUsage
from hello_project.traffic import (
    BUSIEST_BY_HOUR,
    CLIENTS_BY_HOUR,
    CLIENTS_KEPT,
    EVER,
    KEYS_BY_FIVE_MINUTES,
    KEYS_BY_HOUR,
    OUTCOMES_BY_HOUR,
    OUTCOMES_BY_MINUTE,
    USAGE,
    Series,
)

DAYS: Final = 30
HOURS: Final = 24
FIELDS_A_CALL: Final = 10_000
OUTCOMES: Final = (
    "admitted",
    "refused:ip",
    "refused:key",
    "unauthenticated",
    "forbidden",
    "invalid",
    "error",
)


def load(count: int, now: datetime) -> list[str]:
    """Ids of the keys. Each has 1,011 requests on each of the last 30 days, and some that wait."""
    ids = [f"{number:012}" for number in range(1, count + 1)]
    load_database(count, now)
    load_store(ids, now)
    return ids


def forget() -> None:
    """Before the next test empties the store, which has 50 ms for that."""
    with Redis.from_url(settings.REDIS_URL, socket_timeout=30) as patient:
        patient.flushdb(asynchronous=True)
    # Faster than how pytest-django empties it, and no rows for PostgreSQL to clean up afterwards.
    statement = "TRUNCATE" if connection.vendor == "postgresql" else "DELETE FROM"
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} {KeyUsage._meta.db_table}")


def load_database(count: int, now: datetime) -> None:
    ApiKey.objects.bulk_create(
        (
            ApiKey(
                pk=f"{number:012}",
                name=f"key {number}",
                owner=f"team {number % 100}",
                digest=f"{number:064}",
                created_at=now - timedelta(minutes=number),
                last_used_at=now - timedelta(seconds=number) if number % 3 else None,
                revoked_at=now if number % 10 == 0 else None,
            )
            for number in range(1, count + 1)
        ),
        batch_size=5_000,
    )
    days = ", ".join(["(%s)"] * DAYS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH days (day) AS (VALUES {days}) INSERT INTO {KeyUsage._meta.db_table}"
            " (key_id, day, admitted, refused, forbidden, errors)"
            f" SELECT id, CAST(day AS {_date_type()}), 1000, 10, 1, 0"
            f" FROM {ApiKey._meta.db_table} CROSS JOIN days",
            [str(now.date() - timedelta(days=number)) for number in range(DAYS)],
        )
        cursor.execute("ANALYZE")


def _date_type() -> str:
    """SQLite keeps a date as text, and makes a number of what is cast to one."""
    return "date" if connection.vendor == "postgresql" else "text"


def load_store(ids: list[str], now: datetime) -> None:
    seconds = int(now.timestamp())
    minute, hour, day = seconds // 60, seconds // 3600, seconds // 86_400
    patient = Redis.from_url(settings.REDIS_URL, socket_timeout=30)

    def add(series: Series, period: int, counts: dict[str, int]) -> None:
        fields = list(counts.items())
        for start in range(0, len(fields), FIELDS_A_CALL):
            part = dict(fields[start : start + FIELDS_A_CALL])
            if series.kind == "zset":
                patient.zadd(series.key(period), part)
            else:
                patient.hset(series.key(period), mapping=part)  # type: ignore[arg-type]

    for ago in range(60):
        add(OUTCOMES_BY_MINUTE, minute - ago, dict.fromkeys(OUTCOMES, 1_234 + ago))
    for ago in range(DAYS * 24):
        add(OUTCOMES_BY_HOUR, hour - ago, dict.fromkeys(OUTCOMES, 10_000_000 + ago))
    for ago in range(12):
        add(KEYS_BY_FIVE_MINUTES, minute // 5 - ago, {f"{id_} admitted": 8 for id_ in ids})
    busiest = dict.fromkeys(ids[:CLIENTS_KEPT], 100)
    clients = {f"198.51.{number // 250}.{number % 250}": number + 1 for number in range(1_000)}
    for ago in range(HOURS):
        counts = {f"{id_} admitted": 100 + ago for id_ in ids}
        add(KEYS_BY_HOUR, hour - ago, counts | {f"{id_} refused:key": 3 for id_ in ids})
        add(BUSIEST_BY_HOUR, hour - ago, busiest)
        add(CLIENTS_BY_HOUR, hour - ago, clients)
    add(USAGE, EVER, {f"{day} {id_} admitted": 7 for id_ in ids})
    patient.close()
