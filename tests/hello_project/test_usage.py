"""Usage per key and day: brought from the store into the database, each count once."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.utils import timezone
from redis import Redis

from apikeys.models import ApiKey
from hello_project import reports
from hello_project import usage as module
from hello_project.models import KeyUsage, UsageBatch
from hello_project.outcomes import Outcome, refused_by
from hello_project.traffic import EVER, USAGE, Traffic
from hello_project.usage import BATCH, LEASE, TAKEN, Usage, add_what_waits
from tests.servers import shared_environment

pytestmark = pytest.mark.usefixtures("transactional_db")

KEY, OTHER = "abcdefghijkl", "mnopqrstuvwx"
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
Note = Callable[..., None]


@pytest.fixture
def note() -> Note:
    """Counts requests of a key on a day after NOON's, in the store."""

    def note(key_id: str, outcome: str, times: int = 1, day: int = 0) -> None:
        counted = Traffic(3600, clock=lambda: NOON.timestamp() + 86_400 * day)
        counted.ensure_flushes = lambda: None  # type: ignore[method-assign]
        for _ in range(times):
            counted.note(outcome, key_id, None)
        counted.flush()

    return note


def rows() -> dict[tuple[str, date], tuple[int, int, int, int]]:
    return {
        (row.key_id, row.day): (row.admitted, row.refused, row.forbidden, row.errors)
        for row in KeyUsage.objects.all()
    }


def test_counts_become_a_row_a_key_and_day(note: Note) -> None:
    note(KEY, Outcome.ADMITTED, 3)
    note(KEY, refused_by("key"), 2)
    note(KEY, Outcome.FORBIDDEN)
    note(KEY, Outcome.ERROR)
    note(OTHER, Outcome.ADMITTED, day=1)
    add_what_waits()
    assert rows() == {
        (KEY, date(2030, 1, 1)): (3, 2, 1, 1),
        (OTHER, date(2030, 1, 2)): (1, 0, 0, 0),
    }


def test_later_counts_are_added_to_what_is_there(note: Note, store: Redis) -> None:
    for _ in range(3):
        note(KEY, Outcome.ADMITTED, 2)
        add_what_waits()
        assert store.exists(USAGE.key(EVER), TAKEN, BATCH) == 0
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (6, 0, 0, 0)}


def test_a_lost_store_takes_no_history_along(note: Note, store: Redis) -> None:
    note(KEY, Outcome.ADMITTED, 5)
    add_what_waits()
    store.flushall()
    note(KEY, Outcome.ADMITTED, 2)
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (7, 0, 0, 0)}


DYING = """
import os, sys, django
django.setup()
from hello_project import usage
step = sys.argv[1]
wrapped = getattr(usage, "_add")
def add_and_die(*arguments):
    if step == "before the database": os._exit(9)
    wrapped(*arguments)
    if step == "after the first part": os._exit(9)
usage._add = add_and_die
usage.ROWS_A_TRANSACTION = 2
if step == "before it is forgotten": usage.DONE = "return redis.call('NO SUCH COMMAND')"
try:
    usage.add_what_waits()
except Exception:
    os._exit(9)
"""


@pytest.mark.parametrize(
    "step", ["before the database", "after the first part", "before it is forgotten"]
)
def test_a_flusher_that_dies_on_the_way_loses_nothing_and_counts_nothing_twice(
    note: Note, store: Redis, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(module, "ROWS_A_TRANSACTION", 2)
    for number in range(5):
        note(f"abcdefghijk{number}", Outcome.ADMITTED, number + 1)
    died = subprocess.run(
        [sys.executable, "-c", DYING, step],
        check=False,
        cwd=settings.BASE_DIR,
        env={
            "PATH": "",
            "SECRET_KEY": settings.SECRET_KEY,
            "DJANGO_SETTINGS_MODULE": "hello_project.settings",
            **shared_environment(),
        },
        timeout=60,
    )
    assert died.returncode == 9
    assert store.exists(TAKEN) == 1
    note("abcdefghijk0", Outcome.ADMITTED, 10)
    add_what_waits()  # What was taken.
    add_what_waits()  # What came since.
    counted = {key_id: counts[0] for (key_id, _), counts in rows().items()}
    assert counted == {f"abcdefghijk{number}": number + 1 for number in range(5)} | {
        "abcdefghijk0": 11
    }


def test_who_wakes_up_late_adds_nothing_again(note: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    note(KEY, Outcome.ADMITTED, 3)
    add = module._add

    def overtaken(name: str, part: Any) -> None:
        monkeypatch.setattr(module, "_add", add)
        add_what_waits()  # Another process, from beginning to end.
        note(KEY, Outcome.ADMITTED, 4)
        add(name, part)

    monkeypatch.setattr(module, "_add", overtaken)
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (3, 0, 0, 0)}
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (7, 0, 0, 0)}


def test_while_the_database_is_down_the_counts_wait(
    note: Note, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note(KEY, Outcome.ADMITTED, 3)

    def down(*arguments: Any) -> None:
        raise DatabaseError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_add", down)
        Usage(3600).flush()
    assert "it waits" in caplog.text
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (3, 0, 0, 0)}


def test_one_of_many_processes_flushes(note: Note, store: Redis) -> None:
    note(KEY, Outcome.ADMITTED)
    Usage(3600).flush()
    assert len(rows()) == 1
    note(OTHER, Outcome.ADMITTED)
    Usage(3600).flush()
    assert len(rows()) == 1
    assert 50_000 < store.pttl(LEASE) <= 55_000
    store.delete(LEASE)
    Usage(3600).flush()
    assert len(rows()) == 2


def test_names_of_batches_are_forgotten_after_a_month(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(KEY, Outcome.ADMITTED)
    add_what_waits()
    later = timezone.now() + timedelta(days=32)
    monkeypatch.setattr(timezone, "now", lambda: later)
    note(KEY, Outcome.ADMITTED)
    add_what_waits()
    assert UsageBatch.objects.count() == 1


def test_many_keys_are_added_in_parts(note: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_A_TRANSACTION", 100)
    counted = Traffic(3600, clock=NOON.timestamp)
    counted.ensure_flushes = lambda: None  # type: ignore[method-assign]
    for number in range(1001):
        counted.note(Outcome.ADMITTED, f"key{number:09}", None)
    counted.flush()
    add_what_waits()
    assert KeyUsage.objects.count() == 1001
    assert UsageBatch.objects.count() == 11
    assert connection.in_atomic_block is False


def test_reports_show_a_day_once_before_and_after_a_flush(note: Note) -> None:
    note(KEY, Outcome.ADMITTED, 3, day=-1)
    note(KEY, Outcome.ADMITTED, 4)
    expected = [3, 4]
    assert [point.total for point in reports.key_by_day(KEY, NOON)][-2:] == expected
    add_what_waits()
    assert [point.total for point in reports.key_by_day(KEY, NOON)][-2:] == expected
    note(KEY, refused_by("key"), 5)
    points = reports.key_by_day(KEY, NOON)
    assert points[-1].counts == {"admitted": 4, "refused:key": 5, "forbidden": 0, "error": 0}
    assert points[-1].at == NOON.replace(hour=0)
    assert len(points) == 30
    totals = reports.totals_by_key([KEY, OTHER], 30, NOON)
    assert totals == {KEY: Counter(admitted=7, refused=5), OTHER: Counter()}
    assert reports.totals_by_key([KEY], 1, NOON)[KEY]["admitted"] == 4


# The command


def run(*arguments: str) -> str:
    stdout = io.StringIO()
    call_command("usage", *arguments, stdout=stdout)
    return stdout.getvalue()


def test_the_command_lists_keys_by_their_requests(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOON)
    quiet, _ = ApiKey.objects.issue(name="quiet")
    busy, plaintext = ApiKey.objects.issue(name="busy")
    note(busy.pk, Outcome.ADMITTED, 3, day=-1)
    add_what_waits()
    note(busy.pk, refused_by("key"), 2)
    rows = json.loads(run("--json"))
    assert [row["name"] for row in rows] == ["busy", "quiet"]
    assert rows[0] == {
        "id": busy.pk,
        "name": "busy",
        "admitted": 3,
        "refused": 2,
        "forbidden": 0,
        "errors": 0,
    }
    assert rows[1]["id"] == quiet.pk
    assert json.loads(run("--json", "--days", "1", "--key", plaintext))[0]["admitted"] == 0
    assert [line.split()[:4] for line in run().splitlines()] == [
        ["id", "name", "admitted", "refused"],
        [busy.pk, "busy", "3", "2"],
        [quiet.pk, "quiet", "0", "0"],
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--days", "0"], "--days is from 1 to 3660, not 0."),
        (["--key", "abcdefghijkl"], "There is no key abcdefghijkl."),
        (["--key", "nonsense"], "That is no key or id."),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run(*arguments)
