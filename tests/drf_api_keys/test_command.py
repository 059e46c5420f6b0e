"""The command as its operator meets it: how far it is, and what becomes of it when it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper

from apikeys.models import ApiKey
from drf_api_keys import importing
from drf_api_keys.management.commands.import_drf_api_keys import Progress
from drf_api_keys.models import ImportedKey
from tests.drf_api_keys.old_tables import make_file, old_row
from tests.servers import shared_environment, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MANY = 12_000


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def started(url: str, **environment: str) -> subprocess.Popen[str]:
    """From a shell."""
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "manage.py", "import_drf_api_keys", "--database-url", url],
            cwd=settings.BASE_DIR,
            env={**os.environ, **shared_environment()}
            | {"DJANGO_SETTINGS_MODULE": "tests.drf_api_keys.site_settings"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def many(tmp_path: Path) -> str:
    rows = (old_row(f"{number:08}", hashed_key=HASH) for number in range(MANY))
    return make_file(tmp_path / "many.sqlite3", *rows)


HASH = f"sha512$${'0' * 128}"


# How far it is


def test_a_terminal_sees_one_line_that_changes_and_is_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    rows = [old_row(f"Ab{number}") for number in range(3)]
    url = make_file(tmp_path / "old.sqlite3", *rows)
    stderr = Terminal()
    call_command(
        "import_drf_api_keys",
        "--database-url",
        url,
        stdout=StringIO(),
        stderr=stderr,
        no_color=True,
    )
    assert stderr.getvalue() == "\r2 of 3 keys\r3 of 3 keys\r           \r"


def test_what_is_skipped_has_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 1)
    url = make_file(tmp_path / "old.sqlite3", old_row("Ab0"), old_row("Ab1", revoked="maybe"))
    stderr = Terminal()
    with pytest.raises(CommandError):
        call_command(
            *("import_drf_api_keys", "--database-url", url),
            stdout=StringIO(),
            stderr=stderr,
            no_color=True,
        )
    skipped = "Ab1 (billing) is skipped: whether it is revoked is malformed.\n"
    blank = " " * len("1 of 2 keys")
    assert stderr.getvalue() == (f"\r1 of 2 keys\r{blank}\r{skipped}\r2 of 2 keys\r{blank}\r")


def test_elsewhere_a_line_is_written_every_ten_seconds() -> None:
    """Here a batch takes four."""
    stream = StringIO()
    moments = iter(range(0, 32, 4))
    progress = Progress(OutputWrapper(stream), 7, lambda: next(moments))
    for taken in range(1, 8):
        progress.show(taken)
    progress.end()
    assert stream.getvalue() == "3 of 7 keys\n6 of 7 keys\n"


# When it is ended


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        (signal.SIGKILL, -9, ""),
        (
            signal.SIGINT,
            130,
            "CommandError: Interrupted: what was imported stays."
            " Run this command again to go on.\n",
        ),
    ],
)
def test_ended_in_the_middle_it_goes_on_when_it_is_run_again(
    many: str, number: int, code: int, sentence: str
) -> None:
    process = started(many)
    try:
        wait_for(ImportedKey.objects.exists)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (code, sentence)
    imported = ImportedKey.objects.count()
    assert 0 < imported < MANY
    assert imported % importing.BATCH == 0
    assert ApiKey.objects.count() == imported
    again = started(many)
    stdout, stderr = again.communicate(timeout=60)
    assert (again.returncode, stderr) == (0, "")
    assert stdout.splitlines() == [
        "rest_framework_api_key_apikey has 12,000 keys.",
        f"Imported: {MANY - imported:,}.",
        f"Imported before: {imported:,}.",
    ]
    assert ApiKey.objects.count() == ImportedKey.objects.count() == MANY


def test_a_failure_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    missing = started(f"sqlite:///{tmp_path / 'missing.sqlite3'}")
    _, stderr = missing.communicate(timeout=30)
    assert missing.returncode == 1
    assert stderr == f"CommandError: There is no file {tmp_path / 'missing.sqlite3'}.\n"
    url = make_file(tmp_path / "old.sqlite3", old_row())
    unmigrated = started(url, DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    _, stderr = unmigrated.communicate(timeout=30)
    assert unmigrated.returncode == 1
    assert stderr.startswith("CommandError: The database failed: no such table")
    assert "manage.py migrate" in stderr
    assert len(stderr.splitlines()) == 1
