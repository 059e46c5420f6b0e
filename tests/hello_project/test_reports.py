"""What operators read of the counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from hello_project import reports
from hello_project.outcomes import Outcome, refused_by
from hello_project.traffic import Traffic

NOW = datetime(2030, 1, 1, 12, 34, 56, tzinfo=UTC)
KEY, OTHER = "abcdefghijkl", "mnopqrstuvwx"


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted(clock: Clock, store: Redis) -> Traffic:
    traffic = Traffic(3600, clock)
    traffic.ensure_flushes = lambda: None  # type: ignore[method-assign]
    return traffic


def test_minutes_and_hours_end_with_the_one_that_is_running(counted: Traffic, clock: Clock) -> None:
    counted.note(Outcome.ADMITTED, KEY, None)
    clock.now -= timedelta(minutes=59)
    counted.note(refused_by("ip"), None, "192.0.2.1")
    clock.now -= timedelta(minutes=1)
    counted.note(Outcome.ERROR, None, None)
    counted.flush()
    minutes = reports.outcomes_by_minute(NOW)
    assert len(minutes) == 60
    assert minutes[-1] == reports.Point(NOW.replace(second=0), {"admitted": 1})
    assert minutes[0].counts == {"refused:ip": 1}
    assert sum(point.total for point in minutes) == 2
    hours = reports.outcomes_by_hour(NOW)
    assert len(hours) == 720
    assert hours[-1].at == NOW.replace(minute=0, second=0)
    assert hours[-2].counts == {"refused:ip": 1, "error": 1}


def test_keys_have_a_day_of_hours_and_an_hour_of_five_minutes(
    counted: Traffic, clock: Clock
) -> None:
    counted.note(Outcome.ADMITTED, KEY, None)
    clock.now -= timedelta(minutes=55)
    counted.note(refused_by("key"), KEY, None)
    clock.now -= timedelta(hours=24)
    counted.note(Outcome.ADMITTED, KEY, None)
    counted.flush()
    points = reports.keys_by_hour([KEY, OTHER], NOW)
    assert [point.total for point in points[OTHER]] == [0] * 24
    assert [point.total for point in points[KEY]] == [0] * 22 + [1, 1]
    assert points[KEY] == reports.key_by_hour(KEY, NOW)
    parts = reports.key_by_five_minutes(KEY, NOW)
    assert [point.total for point in parts] == [1, *[0] * 10, 1]
    assert parts[0].counts == {"refused:key": 1}
    assert reports.keys_by_hour([], NOW) == {}


def test_the_busiest_and_the_most_refused_come_first(counted: Traffic, clock: Clock) -> None:
    for hour in range(26):
        clock.now = NOW - timedelta(hours=hour)
        counted.note(Outcome.ADMITTED, KEY, None)
        counted.note(refused_by("ip"), None, "192.0.2.1")
    for _ in range(30):
        counted.note(Outcome.ADMITTED, "oldoldoldold", None)  # Too long ago.
    clock.now = NOW
    for _ in range(25):
        counted.note(Outcome.ADMITTED, OTHER, None)
    counted.flush()
    assert reports.busiest_keys(NOW, 10) == [(OTHER, 25), (KEY, 24)]
    assert reports.busiest_keys(NOW, 1) == [(OTHER, 25)]
    assert reports.most_refused(NOW, 10) == [("192.0.2.1", 24)]
