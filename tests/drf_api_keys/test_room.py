"""The room: nothing else knows of it, and it can be taken out again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection

from apikeys import generation
from apikeys.models import ApiKey
from drf_api_keys.models import ImportedKey
from drf_api_keys.source import DEFAULT_TABLE
from tests.drf_api_keys.old_tables import drop_tables, make_table, old_row
from tests.drf_api_keys.test_authentication import KEY, import_one, slow_hash
from tests.servers import Server, gunicorn
from tests.test_packages import ROOT, imports
from tests.traffic import all_at_once, get

ROOM = "drf_api_keys"


@pytest.mark.parametrize("package", ["apikeys", "throttling", "hello_project"])
def test_nothing_mentions_it(package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        if path.suffix != ".pyc":
            assert ROOM.encode() not in path.read_bytes(), path


def test_of_this_project_it_imports_apikeys_alone() -> None:
    sources = list((ROOT / ROOM).rglob("*.py"))
    assert len(sources) > 10
    for source in sources:
        imported = {name.split(".")[0] for name in imports(source)}
        assert not imported & {"throttling", "hello_project", "tests", "benchmarks"}, source


@pytest.mark.django_db
def test_its_migration_is_that_of_its_model() -> None:
    call_command("makemigrations", ROOM, check=True, dry_run=True, verbosity=0)


@pytest.fixture
def taken_out_and_back(transactional_db: None) -> Iterator[None]:
    yield
    call_command("migrate", ROOM, verbosity=0)


@pytest.mark.usefixtures("taken_out_and_back")
def test_taken_out_it_leaves_no_key_that_looks_good_and_is_not() -> None:
    active = import_one("Active00.x")
    rotated = import_one("Rotated0.x")
    rotated.rotate(timedelta())
    revoked = import_one("Revoked0.x")
    revoked.revoke("earlier")
    native, _ = ApiKey.objects.issue(name="native")
    before = generation.read()
    assert before is not None
    call_command("migrate", ROOM, "zero", verbosity=0)
    assert generation.read() == before + 1
    assert ImportedKey._meta.db_table not in connection.introspection.table_names()
    for key, reason in (
        (active, "Keys from djangorestframework-api-key are taken no longer."),
        (rotated, ""),
        (revoked, "earlier"),
        (native, ""),
    ):
        key.refresh_from_db()
        assert key.revoked_reason == reason
        assert (key.status == ApiKey.Status.REVOKED) == bool(reason)


@pytest.mark.usefixtures("taken_out_and_back")
def test_put_in_again_keys_are_imported_anew() -> None:
    make_table(old_row())
    try:
        call_command("import_drf_api_keys", verbosity=0)
        call_command("migrate", ROOM, "zero", verbosity=0)
        call_command("migrate", ROOM, verbosity=0)
        call_command("import_drf_api_keys", verbosity=0)
    finally:
        drop_tables(DEFAULT_TABLE)
    statuses = sorted(key.status for key in ApiKey.objects.all())
    assert statuses == ["active", "revoked"]
    assert ImportedKey.objects.get().key.status == ApiKey.Status.ACTIVE


# As it is served


@pytest.fixture
def served(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    with gunicorn(
        tmp_path,
        TRUSTED_PROXIES="127.0.0.1",
        DJANGO_SETTINGS_MODULE="tests.drf_api_keys.site_settings",
    ) as running:
        yield running


def statuses(server: Server, first: int, requests: int) -> set[int]:
    """Each from another address."""
    sent = [get(KEY, f"198.51.100.{first + number}") for number in range(requests)]
    return set(asyncio.run(all_at_once(server.port, sent)))


def test_with_the_lines_of_the_page_every_worker_takes_and_refuses_it(served: Server) -> None:
    assert statuses(served, 0, 20) == {401}
    key = import_one(hashed_key=slow_hash())
    assert statuses(served, 20, 40) == {200}
    assert ImportedKey.objects.get().is_fast
    key.revoke("left")
    assert statuses(served, 60, 40) == {401}
