"""Who did what to a key: written with the change, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from pytest_django import DjangoAssertNumQueries

from apikeys import history
from apikeys.models import ApiKey, KeyEvent
from tests.apikeys.conftest import Ask, Issued

HOUR = timedelta(hours=1)


def rename(key: ApiKey) -> None:
    with transaction.atomic():
        key.name = "renamed"
        key.save(update_fields=["name"])
        key.record_edit(None, ["name"])


CHANGES: dict[str, Callable[[ApiKey], Any]] = {
    "issued": lambda key: ApiKey.objects.issue(name="new"),
    "edited": rename,
    "rotated": lambda key: key.rotate(HOUR),
    "overlap ended": lambda key: key.end_overlap(),
    "revoked": lambda key: key.revoke("lost"),
}


def rows() -> list[list[Any]]:
    return [list(ApiKey.objects.order_by("pk").values()), list(KeyEvent.objects.values())]


@pytest.mark.parametrize("action", KeyEvent.Action.values)
def test_every_change_is_in_the_history_once(issued: Issued, action: str) -> None:
    issued[0].rotate(HOUR)
    KeyEvent.objects.all().delete()
    CHANGES[action](issued[0])
    [event] = KeyEvent.objects.all()
    assert (event.action, event.by, event.by_name) == (action, None, "command line")


@pytest.mark.parametrize("action", KeyEvent.Action.values)
def test_a_change_that_cannot_be_recorded_is_not_made(
    issued: Issued, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: Any) -> None:
        raise RuntimeError

    issued[0].rotate(HOUR)
    before = rows()
    monkeypatch.setattr(history, "record", crash)
    with pytest.raises(RuntimeError):
        CHANGES[action](issued[0])
    assert rows() == before


@pytest.mark.parametrize("action", KeyEvent.Action.values)
def test_a_change_that_is_rolled_back_is_not_in_the_history(issued: Issued, action: str) -> None:
    issued[0].rotate(HOUR)
    before = rows()
    with transaction.atomic():
        CHANGES[action](issued[0])
        transaction.set_rollback(True)
    assert rows() == before


def test_what_changes_nothing_is_not_in_the_history(issued: Issued) -> None:
    key = issued[0]
    key.end_overlap()
    key.record_edit(None, [])
    key.revoke("lost")
    key.revoke("again")
    assert ApiKey.objects.revoke([key.pk, "abcdefghijkl"], "and again") == []
    assert [event.action for event in key.events.all()] == ["revoked", "issued"]


def test_the_newest_comes_first(issued: Issued) -> None:
    key = issued[0]
    for _ in range(3):
        key.rotate(HOUR)
    moments = [event.at for event in key.events.all()]
    assert moments == sorted(moments, reverse=True)
    with_one_moment = timedelta()
    KeyEvent.objects.update(at=moments[0] - with_one_moment)
    numbers = [event.pk for event in key.events.all()]
    assert numbers == sorted(numbers, reverse=True)


def test_a_name_stays_when_its_user_goes(issued: Issued) -> None:
    key = issued[0]
    ann = User.objects.create_user("ann")
    issued_by_ann, _ = ApiKey.objects.issue(name="tests", by=ann)
    assert issued_by_ann.created_by == ann
    key.revoke("lost", by=ann)
    assert [event.by for event in KeyEvent.objects.filter(by_name="ann")] == [ann, ann]
    ann.delete()
    assert [event.by for event in KeyEvent.objects.filter(by_name="ann")] == [None, None]


def test_a_longer_name_than_djangos_own_is_cut(issued: Issued) -> None:
    issued[0].revoke(by=User.objects.create_user("a" * 150))
    longer = User.objects.get()
    longer.username = "a" * 254
    history.record([issued[0].pk], KeyEvent.Action.EDITED, longer)
    assert {len(event.by_name) for event in KeyEvent.objects.filter(by=longer)} == {150}


def test_commands_are_in_the_history_without_a_user(transactional_db: None) -> None:
    call_command("issue_key", "tests")
    key = ApiKey.objects.get()
    call_command("rotate_key", key.pk, "--overlap", "2h")
    call_command("rotate_key", key.pk, "--overlap", "now")
    call_command("revoke_key", key.pk, "--reason", "lost")
    events = [(event.action, event.by_name, event.detail) for event in key.events.all()]
    revoked, rotated_now, rotated, issued = events
    assert {by_name for _, by_name, _ in events} == {"command line"}
    assert (issued[0], rotated[0], rotated_now) == (
        "issued",
        "rotated",
        ("rotated", "command line", ""),
    )
    assert rotated[2].startswith("The old secret works until 2")
    assert revoked == ("revoked", "command line", "lost")


def test_requests_write_no_history(
    ask: Ask, issued: Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    assert ask({"X-API-Key": issued[1]}).status_code == 200
    with django_assert_num_queries(0):
        assert ask({"X-API-Key": issued[1]}).status_code == 200
    assert KeyEvent.objects.count() == 1
