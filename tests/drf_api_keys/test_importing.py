"""What the command makes of each row, good or malformed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from apikeys import generation
from apikeys.models import ApiKey
from drf_api_keys import hashes, importing
from drf_api_keys.models import NO_SECRET, ImportedKey
from drf_api_keys.source import DEFAULT_TABLE
from tests.drf_api_keys.conftest import failed_run, run
from tests.drf_api_keys.old_tables import CREATED, drop_tables, make_file, make_table, old_row
from tests.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True)

OTHER = "another_table"


@pytest.fixture(autouse=True)
def dropped_tables(transactional_db: None) -> Iterator[None]:
    yield
    drop_tables(DEFAULT_TABLE, OTHER)


# Good rows


def test_each_column_has_its_field() -> None:
    now = timezone.now()
    expiry = datetime(2099, 1, 2, 3, 4, 5, 6, UTC)
    make_table(
        old_row("AbCdEfG1", name="active", expiry_date="2099-01-02 03:04:05.000006"),
        old_row("AbCdEfG2", name="revoked", revoked="1"),
    )
    run()
    active, revoked = ApiKey.objects.order_by("name")
    assert (active.name, active.digest, active.created_at) == (
        "active",
        NO_SECRET,
        datetime(2024, 5, 6, 7, 8, 9, 1, UTC),
    )
    assert (active.expires_at, active.revoked_at, active.revoked_reason) == (expiry, None, "")
    assert (active.environment, active.owner, active.rate, active.networks) == ("live", "", "", "")
    assert (active.created_by, active.last_used_at) == (None, None)
    assert revoked.revoked_at is not None
    assert now <= revoked.revoked_at <= timezone.now()
    assert revoked.revoked_reason == importing.REVOKED_THERE
    [event] = active.events.all()
    assert (event.action, event.by_name) == ("issued", "command line")
    assert event.detail == f"Imported from {DEFAULT_TABLE}."
    imported = ImportedKey.objects.get(key=active)
    assert (imported.prefix, imported.table) == ("AbCdEfG1", DEFAULT_TABLE)
    assert imported.hashed_key == hashes.fast_hash(f"AbCdEfG1.{'s' * 32}")
    assert str(imported) == "AbCdEfG1"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-06 07:08:09", datetime(2024, 5, 6, 7, 8, 9, 0, UTC)),
        ("2024-05-06 07:08:09.5+00", datetime(2024, 5, 6, 7, 8, 9, 500_000, UTC)),
        ("2024-05-06T07:08:09+02:00", datetime(2024, 5, 6, 5, 8, 9, 0, UTC)),
    ],
)
def test_a_moment_without_a_time_zone_is_utc(text: str, moment: datetime) -> None:
    make_table(old_row(created=text))
    run()
    assert ApiKey.objects.get().created_at == moment


@pytest.mark.parametrize(
    ("name", "imported"), [("n" * 101, "n" * 100), ("", "AbCdEfG1"), (None, "AbCdEfG1")]
)
def test_a_name_is_made_to_fit(name: str | None, imported: str) -> None:
    make_table(old_row(name=name))
    run()
    assert ApiKey.objects.get().name == imported


def test_a_prefix_of_another_form_is_imported_and_pointed_out() -> None:
    make_table(old_row("Ab-C"), old_row("AbCdEfG1"))
    stdout, _ = run("--dry-run")
    assert "To import: 2.\n" in stdout
    assert (
        "Not of the usual form: 1. They are taken only by a class with a pattern of its own:"
        " docs/from-drf-api-key.md.\n"
    ) in stdout


def test_an_empty_table_is_no_failure() -> None:
    make_table()
    stdout, stderr = run()
    assert stdout == f"{DEFAULT_TABLE} has 0 keys.\nImported: 0.\nImported before: 0.\n"
    assert stderr == ""


def test_batches_come_together_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    make_table(*[old_row(f"AbCdEfG{number}") for number in range(5)])
    assert "Imported: 5.\n" in run()[0]
    assert ImportedKey.objects.count() == 5
    assert "Imported before: 5.\n" in run()[0]


def test_of_revoked_and_expired_a_key_is_counted_once() -> None:
    past = (timezone.now() - timedelta(days=1)).isoformat()
    make_table(
        old_row("AbCdEfG1", revoked="1", expiry_date=past), old_row("AbCdEfG2", expiry_date=past)
    )
    assert "Imported: 2, of these 1 revoked, 1 expired.\n" in run()[0]


# Rows that are skipped


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (old_row(None), "no prefix (billing) is skipped: its prefix is malformed."),
        (old_row(""), "no prefix (billing) is skipped: its prefix is malformed."),
        (old_row("Ab.d"), "Ab.d (billing) is skipped: its prefix is malformed."),
        (old_row("Ab d"), "Ab d (billing) is skipped: its prefix is malformed."),
        (old_row("A\x1bd"), "A?d (billing) is skipped: its prefix is malformed."),
        (old_row("A" * 51), f"{'A' * 20} (billing) is skipped: its prefix is malformed."),
        (old_row(revoked="maybe"), "whether it is revoked is malformed."),
        (old_row(revoked=None), "whether it is revoked is malformed."),
        (old_row(created=None), "its created is malformed."),
        (old_row(created="yesterday"), "its created is malformed."),
        (old_row(expiry_date="infinity"), "its expiry_date is malformed."),
        (old_row(expiry_date=""), "its expiry_date is malformed."),
        (old_row(hashed_key=None), "its hash is malformed."),
        (old_row(hashed_key="plain"), "its hash is malformed."),
        (old_row(hashed_key="!unusable"), "its hash is malformed."),
        (old_row(hashed_key="sha512$$abc"), "its hash is malformed."),
        (old_row(hashed_key=f"sha512$${'A' * 128}"), "its hash is malformed."),
        (old_row(hashed_key="pbkdf2_sha256$salt$hash"), "its hash is malformed."),
        (old_row(hashed_key="pbkdf2_sha256$a$salt$hash"), "its hash is malformed."),
        (old_row(hashed_key=f"pbkdf2_sha256$1$s${'h' * 250}"), "its hash is too long."),
        (
            old_row(hashed_key="crypt$$hash"),
            "its hash is by 'crypt', which is not in PASSWORD_HASHERS.",
        ),
    ],
)
def test_a_row_that_is_malformed_is_named_counted_and_keeps_no_other(
    row: dict[str, Any], sentence: str
) -> None:
    good = old_row("Good0000")
    make_table(row, good)
    for options in (["--dry-run"], []):
        stdout, stderr, failure = failed_run(*options)
        assert stderr.endswith(f"{sentence}\n")
        assert len(stderr.splitlines()) == 1
        assert "Skipped: 1.\n" in stdout
        assert failure == "1 of 2 keys skipped: see above."
        if len(row["hashed_key"] or "") > 10:
            assert row["hashed_key"][-10:] not in stdout + stderr + failure
    assert ImportedKey.objects.get().prefix == "Good0000"


@pytest.mark.parametrize(
    ("hasher", "hashed_key", "library"),
    [
        ("Argon2PasswordHasher", "argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdA$aGFzaA", "argon2"),
        ("BCryptSHA256PasswordHasher", f"bcrypt_sha256$$2b$12${'h' * 53}", "bcrypt"),
    ],
)
def test_a_hash_whose_library_is_missing_is_skipped(
    settings: Settings, hasher: str, hashed_key: str, library: str
) -> None:
    settings.PASSWORD_HASHERS = [f"django.contrib.auth.hashers.{hasher}"]
    make_table(old_row(hashed_key=hashed_key))
    _, stderr, _ = failed_run()
    algorithm = hashed_key.partition("$")[0]
    assert stderr == (
        f"AbCdEfG1 (billing) is skipped: its hash is by '{algorithm}',"
        f" which needs the Python module '{library}'.\n"
    )


def test_a_prefix_that_is_there_twice_is_imported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    make_table(old_row("Ab0"), old_row("Ab1", name="first"), old_row("Ab1", name="second"))
    stdout, stderr, _ = failed_run()
    assert "Imported: 2.\n" in stdout
    assert stderr.endswith(" is skipped: its prefix is there twice.\n")


@pytest.mark.parametrize(
    ("table", "created"), [(OTHER, CREATED), (DEFAULT_TABLE, "2020-01-01 00:00:00")]
)
def test_a_prefix_that_another_key_has_is_skipped(table: str, created: str) -> None:
    make_table(old_row(name="first"))
    run()
    drop_tables(DEFAULT_TABLE)
    make_table(old_row(name="second", created=created, revoked="1"), name=table)
    first = ApiKey.objects.get()
    stdout, stderr, _ = failed_run("--table", table)
    assert stderr == (
        "AbCdEfG1 (second) is skipped:"
        f" its prefix is that of {first}, imported from {DEFAULT_TABLE}.\n"
    )
    assert "Imported: 0.\nImported before: 0.\n" in stdout
    assert ApiKey.objects.get().status == ApiKey.Status.ACTIVE


def test_what_a_file_has_beyond_utf8_spoils_its_row_alone(tmp_path: Path) -> None:
    strange = old_row("AbCdEfG1", name=b"caf\xe9")
    nul = old_row("AbCdEfG2", name="nul\0")
    url = make_file(tmp_path / "old 1%.sqlite3", strange, nul, old_row("AbCdEfG3"))
    _, stderr, _ = failed_run("--database-url", url)
    assert stderr == "AbCdEfG2 (nul?) is skipped: its name has a NUL character.\n"
    assert {key.name for key in ApiKey.objects.all()} == {"caf\N{REPLACEMENT CHARACTER}", "billing"}


def test_a_table_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """Others may need an extension or a right that nobody has here."""
    path = tmp_path / "old.sqlite3"
    url = make_file(path, old_row())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES"
            " ('table', 'found', 'found', 0, 'CREATE VIRTUAL TABLE found USING unheard_of(a)')"
        )
    database.close()
    assert "Imported: 1.\n" in run("--database-url", url)[0]
    failure = failed_run("--database-url", url, "--table", "found")[2]
    assert failure == "The database of the old keys failed: no such module: unheard_of"


# Where there is nothing to import


def test_a_table_that_is_not_there_is_told_with_those_that_are() -> None:
    assert failed_run()[2] == (
        f"There is no table {DEFAULT_TABLE}, nor any other that has such keys."
    )
    make_table(name=OTHER)
    assert failed_run()[2] == (
        f"There is no table {DEFAULT_TABLE}. Keys are in {OTHER}: name one of these with --table."
    )


def test_a_table_of_a_very_old_version_is_to_be_migrated_first() -> None:
    make_table(without="prefix")
    assert failed_run()[2] == (
        f"The table {DEFAULT_TABLE} has no prefix. If it is from before"
        " djangorestframework-api-key 1.4, upgrade and migrate it there first."
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "old.sqlite3",
        "mysql://user:s3cret@127.0.0.1/name",
        "postgres://user:s3cret@127.0.0.1:port/name",
        "postgres://user:s3cret@127.0.0.1",
        "sqlite://",
        "http://[",
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    stdout, stderr, failure = failed_run("--database-url", url)
    assert failure.startswith("--database-url is not a database's URL: write postgres://")
    assert "s3cret" not in stdout + stderr + failure


def test_a_database_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    nothing, rubbish = tmp_path / "nothing.sqlite3", tmp_path / "rubbish.sqlite3"
    rubbish.write_text("no database" * 100)
    assert failed_run("--database-url", f"sqlite:///{nothing}")[2] == f"There is no file {nothing}."
    assert not nothing.exists()
    assert failed_run("--database-url", f"sqlite:///{rubbish}")[2] == (
        "The database of the old keys failed: file is not a database"
    )
    refused = failed_run("--database-url", f"postgres://ann:s3cret@127.0.0.1:{free_port()}/name")[2]
    assert refused.startswith("The database of the old keys failed: ")
    assert "refused" in refused
    assert "s3cret" not in refused


# The generation number


def test_new_keys_make_no_process_load_its_records_anew() -> None:
    make_table(old_row(revoked="1"))
    before = generation.read()
    run()
    assert generation.read() == before


@pytest.mark.usefixtures("no_store_for_generation")
def test_new_keys_are_imported_without_the_store(caplog: pytest.LogCaptureFixture) -> None:
    make_table(old_row())
    assert "Imported: 1.\n" in run()[0]
    assert caplog.messages == []


def test_a_revocation_that_the_store_was_not_told_of_is_told_by_the_next_run() -> None:
    make_table(old_row())
    run()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {DEFAULT_TABLE} SET revoked = '1'")
    before = generation.read()
    assert before is not None
    nobody = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "_connection", lambda: nobody)
        failures = [failed_run()[2] for _ in range(2)]
    again = f"{generation.GenerationNotRaised()} To repeat it, run this command again."
    assert failures == [again, again]
    key = ApiKey.objects.get()
    assert key.status == ApiKey.Status.REVOKED
    assert [event.action for event in key.events.all()] == ["revoked", "issued"]
    assert "Imported before: 1.\n" in run()[0]
    assert generation.read() == before + 1
