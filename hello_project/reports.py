"""What was counted, for operators to read. See hello_project.traffic for where it is kept.

All but `key_by_day` raise RedisError when the store does not answer. Each asks it once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import Sum
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from hello_project.models import KeyUsage
from hello_project.outcomes import Outcome, refused_by
from hello_project.traffic import (
    BUSIEST_BY_HOUR,
    CLIENTS_BY_HOUR,
    KEYS_BY_FIVE_MINUTES,
    KEYS_BY_HOUR,
    OUTCOMES_BY_HOUR,
    OUTCOMES_BY_MINUTE,
    Series,
)
from hello_project.usage import COLUMNS, EPOCH, TAKEN, WAITING, column_of

MINUTE: Final = 60
FIVE_MINUTES: Final = 300
HOUR: Final = 3600
DAY: Final = 86_400
OF_A_KEY: Final = (
    Outcome.ADMITTED,
    refused_by("key"),
    Outcome.FORBIDDEN,
    Outcome.ERROR,
)
"""What can become of a request whose key is known."""
COLUMN_OUTCOMES: Final = dict(zip(COLUMNS, OF_A_KEY, strict=True))
MOST_OF_AN_HOUR: Final = 250


@dataclass(frozen=True, slots=True)
class Point:
    """Requests by outcome, in the period that begins at this moment (UTC)."""

    at: datetime
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def outcomes_by_minute(now: datetime) -> list[Point]:
    """Of the last hour, oldest first; the last one is the minute that is running."""
    return _by_outcome(OUTCOMES_BY_MINUTE, _last(60, MINUTE, now), MINUTE)


def outcomes_by_hour(now: datetime) -> list[Point]:
    """Of the last 30 days."""
    return _by_outcome(OUTCOMES_BY_HOUR, _last(720, HOUR, now), HOUR)


def keys_by_hour(key_ids: Sequence[str], now: datetime) -> dict[str, list[Point]]:
    """Of the last 24 hours, for each of these keys."""
    return _of_keys(KEYS_BY_HOUR, key_ids, _last(24, HOUR, now), HOUR)


def key_by_hour(key_id: str, now: datetime) -> list[Point]:
    """Of the last 24 hours."""
    return keys_by_hour([key_id], now)[key_id]


def key_by_five_minutes(key_id: str, now: datetime) -> list[Point]:
    """Of the last hour."""
    periods = _last(12, FIVE_MINUTES, now)
    return _of_keys(KEYS_BY_FIVE_MINUTES, [key_id], periods, FIVE_MINUTES)[key_id]


def key_by_day(key_id: str, now: datetime) -> list[Point]:
    """Of the last 30 days, from the database and what waits to get there.

    Without the store only from the database. What is on its way at this moment (for a second or so
    in every minute) may be counted twice.
    """
    days = _last(30, DAY, now)
    counts = usage_by_day([key_id], days)
    return [
        Point(
            _moment(day, DAY),
            {outcome: counts[key_id, day][name] for name, outcome in COLUMN_OUTCOMES.items()},
        )
        for day in days
    ]


def usage_by_day(
    key_ids: Sequence[str], days: Sequence[int]
) -> dict[tuple[str, int], Counter[str]]:
    """By key and day (since 1970): what KeyUsage has, and what waits, by its columns."""
    counts = {(key_id, day): Counter[str]() for key_id in key_ids for day in days}
    try:
        waiting = _waiting(key_ids, days)
    except RedisError:
        waiting = []
    for key_id, day, column, count in waiting:
        counts[key_id, day][column] += count
    first = EPOCH + timedelta(days=days[0])
    for row in KeyUsage.objects.filter(key_id__in=key_ids, day__gte=first):
        day = (row.day - EPOCH).days
        if (row.key_id, day) in counts:
            counts[row.key_id, day].update({name: getattr(row, name) for name in COLUMNS})
    return counts


def totals_by_key(key_ids: Sequence[str], days: int, now: datetime) -> dict[str, Counter[str]]:
    """Of these keys over the last `days`, by the columns of KeyUsage."""
    numbers = _last(days, DAY, now)
    totals = {key_id: Counter[str]() for key_id in key_ids}
    for start in range(0, len(key_ids), 1000):
        part = key_ids[start : start + 1000]
        try:
            for key_id, _, column, count in _waiting(part, numbers):
                totals[key_id][column] += count
        except RedisError:
            pass
        rows = KeyUsage.objects.filter(
            key_id__in=part, day__gte=EPOCH + timedelta(days=numbers[0])
        ).values("key_id")
        sums = {f"sum_{name}": Sum(name) for name in COLUMNS}
        for key_id, *counts in rows.annotate(**sums).values_list("key_id", *sums):
            totals[key_id].update(dict(zip(COLUMNS, counts, strict=True)))
    return totals


def busiest_keys(now: datetime, count: int) -> list[tuple[str, int]]:
    """Key ids and their requests in the last 24 hours, of the 250 busiest in each hour."""
    return _most(BUSIEST_BY_HOUR, now, count)


def most_refused(now: datetime, count: int) -> list[tuple[str, int]]:
    """Clients and their refusals in the last 24 hours, of the 250 most refused in each hour."""
    return _most(CLIENTS_BY_HOUR, now, count)


def _last(count: int, seconds: int, now: datetime) -> list[int]:
    current = int(now.timestamp()) // seconds
    return list(range(current - count + 1, current + 1))


def _moment(period: int, seconds: int) -> datetime:
    return datetime.fromtimestamp(period * seconds, UTC)


def _answers(commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    pipeline = get_redis_connection("default").pipeline(transaction=False)
    for name, *arguments in commands:
        getattr(pipeline, name)(*arguments)
    answers: list[Any] = pipeline.execute()
    return answers


def _by_outcome(series: Series, periods: Sequence[int], seconds: int) -> list[Point]:
    answers = _answers(("hgetall", series.key(period)) for period in periods)
    return [
        Point(
            _moment(period, seconds), {name.decode(): int(count) for name, count in fields.items()}
        )
        for period, fields in zip(periods, answers, strict=True)
    ]


def _of_keys(
    series: Series, key_ids: Sequence[str], periods: Sequence[int], seconds: int
) -> dict[str, list[Point]]:
    fields = [f"{key_id} {outcome}" for key_id in key_ids for outcome in OF_A_KEY]
    if not fields:
        return {}
    answers = _answers(("hmget", series.key(period), fields) for period in periods)
    points: dict[str, list[Point]] = {key_id: [] for key_id in key_ids}
    for period, counts in zip(periods, answers, strict=True):
        for number, key_id in enumerate(key_ids):
            start = number * len(OF_A_KEY)
            of_key = zip(OF_A_KEY, counts[start : start + len(OF_A_KEY)], strict=True)
            counted = {str(outcome): int(count) for outcome, count in of_key if count}
            points[key_id].append(Point(_moment(period, seconds), counted))
    return points


def _waiting(key_ids: Sequence[str], days: Sequence[int]) -> list[tuple[str, int, str, int]]:
    """Key, day, column and count of what is not in the database yet."""
    names = [(key_id, day, outcome) for key_id in key_ids for day in days for outcome in OF_A_KEY]
    fields = [f"{day} {key_id} {outcome}" for key_id, day, outcome in names]
    if not fields:
        return []
    found = []
    for answer in _answers(("hmget", key, fields) for key in (WAITING, TAKEN)):
        for (key_id, day, outcome), count in zip(names, answer, strict=True):
            column = column_of(outcome)
            if count and column:
                found.append((key_id, day, column, int(count)))
    return found


def _most(series: Series, now: datetime, count: int) -> list[tuple[str, int]]:
    hours = _last(24, HOUR, now)
    answers = _answers(
        ("zrevrange", series.key(hour), 0, MOST_OF_AN_HOUR - 1, True) for hour in hours
    )
    totals: Counter[str] = Counter()
    for answer in answers:
        totals.update({member.decode(): int(score) for member, score in answer})
    return totals.most_common(count)
