"""The database of an earlier version, and back again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apikeys.models import ApiKey, KeyEvent
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


@pytest.mark.usefixtures("newest_afterwards")
def test_keys_outlive_rotation_in_both_directions(ask: Ask, issued: Issued) -> None:
    key, old = issued
    new = key.rotate(timedelta(hours=1))
    migrate("0002_allowed_networks")
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, digest FROM apikeys_apikey")
        assert cursor.fetchall() == [(key.pk, key.digest)]
    migrate("0003_predecessor_secret")
    with connection.cursor() as cursor:
        cursor.execute(ISSUE_AS_BEFORE, ["mnopqrstuvwx"])  # By a process of the version before.
    assert set(ApiKey.objects.values_list("pk", "previous_digest", "previous_until")) == {
        (key.pk, "", None),
        ("mnopqrstuvwx", "", None),
    }
    assert [ask({"X-API-Key": each}).status_code for each in (old, new)] == [401, 200]


@pytest.mark.usefixtures("newest_afterwards")
def test_history_begins_with_its_table(issued: Issued) -> None:
    migrate("0003_predecessor_secret")
    assert KeyEvent._meta.db_table not in connection.introspection.table_names()
    migrate("0004_key_events")
    assert list(KeyEvent.objects.all()) == []
    ApiKey.objects.get().rotate(timedelta())
    assert [event.action for event in KeyEvent.objects.all()] == ["rotated"]


OPERATORS_MAY = ["view", "add", "change", "rotate", "revoke"]


def permissions_of(name: str) -> list[str]:
    return sorted(
        f"{app}.{codename}"
        for app, codename in Group.objects.get(name=name).permissions.values_list(
            "content_type__app_label", "codename"
        )
        if app == "apikeys"
    )


@pytest.mark.usefixtures("newest_afterwards")
@pytest.mark.parametrize("is_fresh", [True, False])
def test_the_group_of_key_operators_comes_and_goes(is_fresh: bool) -> None:
    """Also before Django has made any content type or permission."""
    migrate("0005_permissions")
    assert not Group.objects.filter(name="key operators").exists()
    if is_fresh:
        Permission.objects.all().delete()
        ContentType.objects.all().delete()
        ContentType.objects.clear_cache()
    migrate("0006_key_operators")
    expected = sorted(f"apikeys.{action}_apikey" for action in OPERATORS_MAY)
    assert permissions_of("key operators") == expected
    operator = User.objects.create_user("ann")
    operator.groups.set(Group.objects.all())
    assert all(operator.has_perm(permission) for permission in expected)
    assert not operator.has_perm("apikeys.delete_apikey")
    migrate("0005_permissions")
    assert not Group.objects.filter(name="key operators").exists()


@pytest.mark.usefixtures("newest_afterwards")
def test_a_group_of_that_name_keeps_what_it_has(transactional_db: None) -> None:
    migrate("0005_permissions")
    group = Group.objects.create(name="key operators")
    group.user_set.add(User.objects.create_user("ann"))
    migrate("0006_key_operators")
    assert [user.username for user in Group.objects.get().user_set.all()] == ["ann"]
    assert len(permissions_of("key operators")) == 5
