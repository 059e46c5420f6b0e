"""What was counted, for operators to read. See hello_project.traffic for where it is kept.

All but `key_by_day` and `totals_by_key` raise RedisError when the store does not answer. Each asks
it once; these two once more, for what a flush did meanwhile.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db.models import Exists, Sum
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from hello_project.models import KeyUsage, UsageBatch
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
from hello_project.usage import BATCH, COLUMNS, EPOCH, TAKEN, WAITING, Counts, counts_in, read

logger = logging.getLogger(__name__)

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
HASHES: Final = (WAITING, TAKEN)
KEYS_NAMED: Final = 1_000
"""In a statement; of more, all that the database has are summed up."""
READINGS: Final = 3


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
    """Of the last 30 days, from the database and what is on its way there.

    Without the store from the database alone.
    """
    days = _last(30, DAY, now)
    fields = [f"{day} {key_id} {outcome}" for day in days for outcome in OF_A_KEY]
    rows = KeyUsage.objects.filter(key_id=key_id, day__gte=_date(days[0]))

    def on_its_way() -> _OnItsWay:
        batch, *hashes = _answers([("get", BATCH), *(("hmget", key, fields) for key in HASHES)])
        waiting, taken = (
            dict(zip(map(str.encode, fields), found, strict=True)) for found in hashes
        )
        return _OnItsWay(batch, _counted(waiting), _counted(taken))

    def in_the_database(batch: bytes | None) -> tuple[bool, Counts]:
        has_batch, counts = False, {}
        for row in rows.annotate(has_batch=_exists(batch)):
            has_batch = row.has_batch
            counts[key_id, _day(row.day)] = Counter({name: getattr(row, name) for name in COLUMNS})
        return has_batch, counts

    counts = _together(on_its_way, in_the_database)
    return [
        Point(
            _moment(day, DAY),
            {outcome: counts[key_id, day][name] for name, outcome in COLUMN_OUTCOMES.items()},
        )
        for day in days
    ]


def totals_by_key(key_ids: Sequence[str], days: int, now: datetime) -> dict[str, Counter[str]]:
    """Of these keys over the last `days`, by the columns of KeyUsage; as `key_by_day`."""
    first = _last(days, DAY, now)[0]
    totals = {key_id: Counter[str]() for key_id in key_ids}
    rows = KeyUsage.objects.filter(day__gte=_date(first))
    if len(key_ids) <= KEYS_NAMED:
        rows = rows.filter(key_id__in=key_ids)
    sums = {f"sum_{name}": Sum(name) for name in COLUMNS}

    def on_its_way() -> _OnItsWay:
        [batch] = _answers([("get", BATCH)])
        waiting, taken = (counts_in(read(key)) for key in HASHES)
        return _OnItsWay(batch, waiting, taken)

    def in_the_database(batch: bytes | None) -> tuple[bool, Counts]:
        by_key = rows.annotate(has_batch=_exists(batch)).values("key_id", "has_batch")
        has_batch, counts = False, {}
        columns = by_key.annotate(**sums).values_list("key_id", "has_batch", *sums)
        for key_id, is_added, *numbers in columns:
            has_batch = is_added
            counts[key_id, first] = Counter(dict(zip(COLUMNS, numbers, strict=True)))
        return has_batch, counts

    for (key_id, day), counts in _together(on_its_way, in_the_database).items():
        if key_id in totals and day >= first:
            totals[key_id].update(counts)
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


class _OnItsWay(NamedTuple):
    """From the store to the database: see hello_project.usage."""

    batch: bytes | None
    """The name of the one taken last, read before the rest."""
    waiting: Counts
    taken: Counts


def _together(
    on_its_way: Callable[[], _OnItsWay],
    in_the_database: Callable[[bytes | None], tuple[bool, Counts]],
) -> Counts:
    """Each count once, whatever a flush does meanwhile.

    One statement tells what the database has, and whether the batch is part of it. What waited may
    have been taken and added between the two readings: then the name has changed, and both are
    read again.
    """
    counts: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    try:
        for _ in range(READINGS):
            way = on_its_way()
            has_batch, stored = in_the_database(way.batch)
            counts.clear()
            for part in (stored, way.waiting, {} if has_batch else way.taken):
                for of, columns in part.items():
                    counts[of].update(columns)
            if _answers([("get", BATCH)]) == [way.batch]:
                break
    except RedisError as error:
        logger.warning("The store does not tell what is on its way to the database (%s).", error)
        _, stored = in_the_database(None)
        return defaultdict(Counter, stored)
    return counts


def _exists(batch: bytes | None) -> Exists:
    return Exists(UsageBatch.objects.filter(pk=(batch or b"").decode()))


def _counted(fields: Mapping[bytes, bytes | None]) -> Counts:
    return counts_in((field, count) for field, count in fields.items() if count is not None)


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)


def _day(of: date) -> int:
    return (of - EPOCH).days


def _most(series: Series, now: datetime, count: int) -> list[tuple[str, int]]:
    hours = _last(24, HOUR, now)
    answers = _answers(
        ("zrevrange", series.key(hour), 0, MOST_OF_AN_HOUR - 1, True) for hour in hours
    )
    totals: Counter[str] = Counter()
    for answer in answers:
        totals.update({member.decode(): int(score) for member, score in answer})
    return totals.most_common(count)
