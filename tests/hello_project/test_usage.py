"""Usage per key and day: brought from the store into the database, each count once."""

from __future__ import annotations

import io
import json
import os
import signal
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
from redis.exceptions import ConnectionError as RedisConnectionError

from apikeys.models import ApiKey
from hello_project import children, reports
from hello_project import usage as module
from hello_project.models import KeyUsage, UsageBatch
from hello_project.outcomes import Outcome, refused_by
from hello_project.traffic import EVER, USAGE, Traffic
from hello_project.usage import LEASE, TAKEN, Usage, add_what_waits
from tests.servers import shared_environment, wait_for

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
        assert store.exists(USAGE.key(EVER), TAKEN) == 0
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (6, 0, 0, 0)}


def test_a_lost_store_takes_no_history_along(note: Note, store: Redis) -> None:
    note(KEY, Outcome.ADMITTED, 5)
    add_what_waits()
    store.flushall()
    note(KEY, Outcome.ADMITTED, 2)
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (7, 0, 0, 0)}


PROCESS = """
import os, signal, sys, time
import django
django.setup()
from django.db import DatabaseError
from redis.exceptions import RedisError
from hello_project import usage

def go_on_until(done):
    while not done():
        try:
            usage.add_what_waits()
        except (RedisError, DatabaseError):
            time.sleep(0.01)
"""
DYING = """
step = sys.argv[1]

def die_before(name):
    setattr(usage, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))

def die_after(name):
    wrapped = getattr(usage, name)
    def call(*arguments):
        wrapped(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(usage, name, call)

usage.ROWS_A_STATEMENT = 2
if step == "when the batch is taken":
    die_before("_add")
if step == "between two statements":
    die_after("_upsert")
if step == "before the commit":
    usage.ROWS_A_STATEMENT = 1000
    die_after("_upsert")
if step == "after the commit":
    die_after("_add")
end = time.monotonic() + 5
go_on_until(lambda: time.monotonic() > end)
"""
COUNTING = """
from hello_project.traffic import Traffic
counted = Traffic(3600)
counted.ensure_flushes = lambda: None
times = 0

def has_counted():
    global times
    for number in range(7):
        counted.note("admitted", f"abcdefghijk{number}", None)
    counted.flush()
    times += 1
    return times == 50

go_on_until(has_counted)
while counted._unwritten():
    counted.flush()
"""


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """In a process of its own, over the tests' database and store."""
    return children.start(
        [sys.executable, "-c", PROCESS + program, *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, **shared_environment()}
        | {"DJANGO_SETTINGS_MODULE": "hello_project.settings"},
    )


@pytest.mark.parametrize(
    "step",
    [
        "when the batch is taken",
        "between two statements",
        "before the commit",
        "after the commit",
    ],
)
def test_a_flusher_that_is_killed_loses_nothing_and_counts_nothing_twice(
    note: Note, store: Redis, step: str
) -> None:
    for number in range(5):
        note(f"abcdefghijk{number}", Outcome.ADMITTED, number + 1)
    assert start(DYING, step).wait(60) == -signal.SIGKILL
    assert store.exists(TAKEN) == 1
    assert (KeyUsage.objects.count(), UsageBatch.objects.count()) == (
        (5, 1) if step == "after the commit" else (0, 0)
    )
    note("abcdefghijk0", Outcome.ADMITTED, 10)
    assert [point.total for point in reports.key_by_day("abcdefghijk0", NOON)][-1] == 11
    assert reports.totals_by_key(["abcdefghijk0"], 1, NOON)["abcdefghijk0"].total() == 11
    add_what_waits()  # What was taken.
    assert [point.total for point in reports.key_by_day("abcdefghijk0", NOON)][-1] == 11
    add_what_waits()  # What came since.
    counted = {key_id: counts[0] for (key_id, _), counts in rows().items()}
    assert counted == {f"abcdefghijk{number}": number + 1 for number in range(5)} | {
        "abcdefghijk0": 11
    }


def test_many_flushers_at_once_count_each_request_once(store: Redis) -> None:
    """Four processes that count and flush without a lease, and one more that is always killed."""
    counting = [start(COUNTING) for _ in range(4)]
    killed = 0
    while any(process.poll() is None for process in counting):
        killed += start(DYING, "after the commit").wait(60) == -signal.SIGKILL
    assert [process.returncode for process in counting] == [0] * 4
    assert killed
    add_what_waits()
    add_what_waits()
    counted: Counter[str] = Counter()
    for (key_id, _), counts in rows().items():
        counted[key_id] += counts[0]
    assert counted == {f"abcdefghijk{number}": 200 for number in range(7)}


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


def test_who_wakes_up_late_and_reads_another_batch_adds_nothing(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(KEY, Outcome.ADMITTED, 3)
    real = module.read

    def late(key: str) -> Any:
        monkeypatch.setattr(module, "read", real)
        add_what_waits()  # Another process, from beginning to end,
        note(KEY, Outcome.ADMITTED, 4)
        note(OTHER, Outcome.ADMITTED, 5)
        with monkeypatch.context() as dying:
            dying.setattr(module, "_add", lambda *_: sys.exit())
            with pytest.raises(SystemExit):
                add_what_waits()  # and a third, which gets as far as taking the next batch.
        return real(key)

    monkeypatch.setattr(module, "read", late)
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (3, 0, 0, 0)}
    add_what_waits()
    assert rows() == {
        (KEY, date(2030, 1, 1)): (7, 0, 0, 0),
        (OTHER, date(2030, 1, 1)): (5, 0, 0, 0),
    }


def test_a_batch_without_its_name_does_not_stop_those_after_it(note: Note, store: Redis) -> None:
    """Which a store that evicts can make of it."""
    note(KEY, Outcome.ADMITTED, 3)
    store.rename(USAGE.key(EVER), TAKEN)
    add_what_waits()
    note(KEY, Outcome.ADMITTED, 4)
    add_what_waits()
    assert rows() == {(KEY, date(2030, 1, 1)): (7, 0, 0, 0)}


def test_reports_show_a_day_once_when_a_flush_comes_between_their_readings(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reports._exists

    def after_a_flush(batch: bytes | None) -> Any:
        monkeypatch.setattr(reports, "_exists", real)
        add_what_waits()
        return real(batch)

    for expected in (4, 8):
        note(KEY, Outcome.ADMITTED, 4)
        monkeypatch.setattr(reports, "_exists", after_a_flush)
        if expected == 4:
            assert reports.key_by_day(KEY, NOON)[-1].total == expected
        else:
            assert reports.totals_by_key([KEY], 1, NOON)[KEY].total() == expected
        assert reports._exists is real


def test_without_the_store_reports_have_what_the_database_has(
    note: Note, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note(KEY, Outcome.ADMITTED, 4)
    add_what_waits()
    note(KEY, Outcome.ADMITTED)

    def gone(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("gone")

    monkeypatch.setattr(reports, "_answers", gone)
    assert reports.key_by_day(KEY, NOON)[-1].total == 4
    assert reports.totals_by_key([KEY], 1, NOON)[KEY].total() == 4
    assert "does not tell what is on its way" in caplog.text


def test_a_running_server_flushes_by_itself(store: Redis) -> None:
    key, plaintext = ApiKey.objects.issue(name="tests")
    server = start(SERVING, plaintext)
    try:
        wait_for(lambda: [counts[0] for counts in rows().values()] == [1])
    finally:
        children.stop(server, 10)
    assert [of for of, _ in rows()] == [key.pk]


SERVING = """
from django.test import Client
from hello_project.traffic import traffic

usage.usage.flush_seconds = traffic.flush_seconds = 0.05
usage.LEASE_MS = 40
Client(SERVER_NAME="localhost").get("/", headers={"X-API-Key": sys.argv[1]}, secure=True)
time.sleep(60)
"""


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


def test_many_keys_are_added_by_statements_of_many(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_A_STATEMENT", 100)
    counted = Traffic(3600, clock=NOON.timestamp)
    counted.ensure_flushes = lambda: None  # type: ignore[method-assign]
    for number in range(1001):
        counted.note(Outcome.ADMITTED, f"key{number:09}", None)
    counted.flush()
    add_what_waits()
    assert KeyUsage.objects.count() == 1001
    assert UsageBatch.objects.count() == 1
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
