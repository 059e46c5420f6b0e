"""The database of an earlier version, and back again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apikeys.models import ApiKey
from tests.apikeys.conftest import Ask, Issued

ISSUE_AS_BEFORE = """
    INSERT INTO apikeys_apikey
    (id, name, owner, environment, digest, rate, created_at, revoked_reason)
    VALUES (%s, 'tests', '', 'live', '', '', '2026-01-01', '')
"""


def migrate(name: str) -> None:
    MigrationExecutor(connection).migrate([("apikeys", name)])


@pytest.fixture
def newest_afterwards(transactional_db: None) -> Iterator[None]:
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    yield
    MigrationExecutor(connection).migrate(newest)


@pytest.mark.usefixtures("newest_afterwards")
def test_keys_outlive_the_networks_column_in_both_directions(ask: Ask, issued: Issued) -> None:
    key, plaintext = issued
    key.networks = "192.0.2.0/24"
    key.save()
    assert ask({"X-API-Key": plaintext}).status_code == 403
    migrate("0001_initial")
    with connection.cursor() as cursor:
        cursor.execute("SELECT digest FROM apikeys_apikey")
        assert cursor.fetchall() == [(key.digest,)]
        cursor.execute(ISSUE_AS_BEFORE, ["abcdefghijkl"])
    migrate("0002_allowed_networks")
    with connection.cursor() as cursor:
        cursor.execute(ISSUE_AS_BEFORE, ["mnopqrstuvwx"])  # By a process of the version before.
    assert set(ApiKey.objects.values_list("pk", "networks")) == {
        (key.pk, ""),
        ("abcdefghijkl", ""),
        ("mnopqrstuvwx", ""),
    }
