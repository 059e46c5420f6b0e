from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from redis import Redis
from redis.exceptions import ConnectionError as StoreConnectionError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from apikeys import generation, records
from apikeys.authentication import ApiKeyAuthentication
from apikeys.generation import GenerationNotRaised
from apikeys.models import ApiKey
from tests.apikeys.conftest import Issued
from tests.conftest import CommandsSent


class PlainView(APIView):
    """Leaves the generation number to the authentication class."""

    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [IsAuthenticated]
    throttle_classes = []

    def get(self, request: Request) -> Response:
        return Response("hello")


def status_with(plaintext: str) -> int:
    request = APIRequestFactory().get("/", headers={"X-API-Key": plaintext})
    return PlainView.as_view()(request).status_code


def number() -> int:
    found = generation.read()
    assert found is not None
    return found


# When it is raised


def bulk_update(key: ApiKey) -> None:
    key.owner = "changed"
    ApiKey.objects.bulk_update([key], ["owner"])


CHANGES: dict[str, Callable[[ApiKey], Any]] = {
    "save": lambda key: key.save(),
    "save of one field": lambda key: key.save(update_fields=["rate"]),
    "revoke": lambda key: key.revoke("lost"),
    "revoke many": lambda key: ApiKey.objects.revoke([key.pk, "abcdefghijkl"]),
    "rotate": lambda key: key.rotate(timedelta()),
    "rotate with overlap": lambda key: key.rotate(timedelta(hours=1)),
    "end overlap": lambda key: key.end_overlap(),
    "delete": lambda key: key.delete(),
    "queryset update": lambda key: ApiKey.objects.filter(pk=key.pk).update(rate="1/1m"),
    "update of all": lambda key: ApiKey.objects.update(expires_at=timezone.now()),
    "queryset delete": lambda key: ApiKey.objects.filter(pk=key.pk).delete(),
    "bulk_update": bulk_update,
    "bulk_create": lambda key: ApiKey.objects.bulk_create([ApiKey(name="new", digest="0" * 64)]),
    "update_or_create": lambda key: ApiKey.objects.update_or_create({"owner": "x"}, pk=key.pk),
    "get_or_create": lambda key: ApiKey.objects.get_or_create({"name": "n"}, pk="abcdefghijkl"),
    "create": lambda key: ApiKey.objects.create(name="new", digest="0" * 64),
    "issue": lambda key: ApiKey.objects.issue(name="new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_raises_the_number_when_it_returns(issued: Issued, change: str) -> None:
    before = number()
    CHANGES[change](issued[0])
    assert number() > before


@pytest.mark.parametrize("change", CHANGES)
def test_the_number_is_raised_after_the_commit_and_not_before(issued: Issued, change: str) -> None:
    before = number()
    with transaction.atomic():
        CHANGES[change](issued[0])
        assert number() == before
    assert number() > before


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_rolled_back_does_not_raise_the_number(
    issued: Issued, change: str
) -> None:
    before = number()
    with transaction.atomic():
        CHANGES[change](issued[0])
        transaction.set_rollback(True)
    assert number() == before
    assert status_with(issued[1]) == 200


def test_writing_down_a_use_raises_nothing(issued: Issued) -> None:
    before = number()
    ApiKey.objects.record_uses({issued[0].pk: timezone.now()})
    issued[0].refresh_from_db()
    assert issued[0].last_used_at is not None
    assert number() == before


def test_the_number_starts_at_random_so_that_none_comes_back(store: Redis) -> None:
    numbers = set()
    for _ in range(50):
        store.flushall()
        numbers.add(number())
        assert number() in numbers
    assert len(numbers) == 50
    store.flushall()
    generation.raise_number()
    assert number() not in numbers


def test_the_number_is_taken_from_the_request_when_it_is_there(
    store: Redis, commands_sent: CommandsSent
) -> None:
    request = HttpRequest()
    request.META[generation.META_NAME] = b"5"
    with commands_sent() as commands:
        assert generation.current(request) == 5
        request.META[generation.META_NAME] = None
        assert generation.current(request) is None
    assert commands == []
    request.META[generation.META_NAME] = b""
    made = generation.current(request)
    assert made is not None
    assert made == number()
    del request.META[generation.META_NAME]
    assert generation.current(request) == made


# What it protects


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"revoked_at": timezone.now()}, 401),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, 401),
        ({"digest": "0" * 64}, 401),
        ({"environment": "test"}, 401),
        ({"name": "renamed"}, 200),
    ],
)
def test_an_edit_counts_from_the_next_request_on(
    issued: Issued, values: dict[str, Any], status: int
) -> None:
    assert status_with(issued[1]) == 200
    ApiKey.objects.filter(pk=issued[0].pk).update(**values)
    assert status_with(issued[1]) == status


def test_a_deleted_key_is_refused_from_the_next_request_on(issued: Issued) -> None:
    assert status_with(issued[1]) == 200
    issued[0].delete()
    assert status_with(issued[1]) == 401


EVENTS = ("a request", "the store is flushed", "another key is edited")


def test_no_order_of_events_leaves_a_stale_copy_trusted(
    issued: Issued, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every three events with a revocation before, between or after them; the store may be
    out of reach when it happens, and is flushed before it can be reached again."""
    connection = generation._connection

    def out_of_reach() -> Redis:
        raise StoreConnectionError

    bystander, _ = ApiKey.objects.issue(name="bystander")
    tried = 0
    for events in itertools.product(EVENTS, repeat=3):
        for position, reachable in itertools.product(range(4), (True, False)):
            key, plaintext = ApiKey.objects.issue(name="tests")
            assert status_with(plaintext) == 200
            happening = [*events[:position], "revocation", *events[position:], "a request"]
            revoked = False
            for event in happening:
                if event == "a request":
                    assert status_with(plaintext) == (401 if revoked else 200), happening
                elif event == "the store is flushed":
                    store.flushall()
                elif event == "another key is edited":
                    bystander.save()
                elif reachable:
                    key.revoke()
                    revoked = True
                else:
                    monkeypatch.setattr(generation, "_connection", out_of_reach)
                    with pytest.raises(GenerationNotRaised):
                        key.revoke()
                    monkeypatch.setattr(generation, "_connection", connection)
                    store.flushall()
                    revoked = True
            tried += 1
    assert tried == 27 * 4 * 2


def test_a_copy_loaded_just_before_a_revocation_is_not_trusted_after_it(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation commits after the row was read and before the copy is kept."""
    key, plaintext = issued
    load = records.load

    def load_and_lose_the_race(key_id: str) -> records.KeyRecord | None:
        found = load(key_id)
        key.revoke()
        return found

    monkeypatch.setattr(records, "load", load_and_lose_the_race)
    assert status_with(plaintext) == 200  # It began before the revocation.
    monkeypatch.setattr(records, "load", load)
    assert status_with(plaintext) == 401


def test_the_copies_are_bounded_and_the_least_used_goes_first(
    issued: Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    cache = records.RecordCache(capacity=2)
    ids = [ApiKey.objects.issue(name=str(n))[0].pk for n in range(3)]
    generation_number = number()
    for key_id in (ids[0], ids[1], ids[0], ids[2]):
        found = cache.find(key_id, generation_number)
        assert found is not None
        assert found.key_id == key_id
    with django_assert_num_queries(0):
        cache.find(ids[0], generation_number)
        cache.find(ids[2], generation_number)
    with django_assert_num_queries(1):
        cache.find(ids[1], generation_number)


# When the store fails


@pytest.mark.usefixtures("no_store_for_generation")
def test_without_the_store_every_request_reads_the_database(
    issued: Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        with django_assert_num_queries(1):
            assert status_with(issued[1]) == 200
    with pytest.raises(GenerationNotRaised):
        issued[0].revoke()
    for _ in range(2):
        with django_assert_num_queries(1):
            assert status_with(issued[1]) == 401


@pytest.mark.usefixtures("no_store_for_generation")
def test_a_revocation_that_the_store_did_not_hear_of_is_saved_and_says_so(
    issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(GenerationNotRaised, match="is saved, but the store could not be told"):
        issued[0].revoke("lost")
    saved = ApiKey.objects.get(pk=issued[0].pk)
    assert saved.status == ApiKey.Status.REVOKED
    assert saved.revoked_reason == "lost"
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert [line.getMessage() for line in errors] == ["The generation number could not be raised."]


@pytest.mark.usefixtures("no_store_for_generation")
@pytest.mark.parametrize(
    "change", ["save", "queryset update", "queryset delete", "delete", "bulk_update"]
)
def test_no_change_to_a_known_key_is_silent_about_the_store(issued: Issued, change: str) -> None:
    with pytest.raises(GenerationNotRaised):
        CHANGES[change](issued[0])


def test_revoking_again_tells_the_store_and_keeps_the_first_moment_and_reason(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, plaintext = issued
    assert status_with(plaintext) == 200

    def out_of_reach() -> Redis:
        raise StoreConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(generation, "_connection", out_of_reach)
        with pytest.raises(GenerationNotRaised):
            key.revoke("lost")
    first = ApiKey.objects.get(pk=key.pk).revoked_at
    assert status_with(plaintext) == 200  # This process still goes by its copy, as it was told.
    ApiKey.objects.get(pk=key.pk).revoke("again")
    assert status_with(plaintext) == 401
    key.refresh_from_db()
    assert (key.revoked_at, key.revoked_reason) == (first, "lost")


def test_saving_an_older_copy_undoes_no_revocation(issued: Issued) -> None:
    older = ApiKey.objects.get(pk=issued[0].pk)
    issued[0].revoke("lost")
    older.owner = "changed"
    older.save()
    saved = ApiKey.objects.get(pk=older.pk)
    assert (saved.owner, saved.status) == ("changed", ApiKey.Status.REVOKED)
    assert status_with(issued[1]) == 401


def test_of_two_revocations_the_first_gives_moment_and_reason(issued: Issued) -> None:
    """Both read the key before either writes."""
    first, second = (ApiKey.objects.get(pk=issued[0].pk) for _ in range(2))
    first.revoke("lost")
    second.revoke("found")
    assert (second.revoked_at, second.revoked_reason) == (first.revoked_at, "lost")
    assert ApiKey.objects.get(pk=first.pk).revoked_reason == "lost"


def test_issuing_without_the_store_still_gives_the_plaintext(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach() -> Redis:
        raise StoreConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(generation, "_connection", out_of_reach)
        key, plaintext = ApiKey.objects.issue(name="tests")
        assert status_with(plaintext) == 200
    assert ApiKey.objects.get(pk=key.pk).status == ApiKey.Status.ACTIVE
    assert status_with(plaintext) == 200


def test_a_store_that_fails_once_or_twice_is_told_all_the_same(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = number()
    connection, failures = generation._connection, iter([1, 1])

    def shaky() -> Redis:
        if next(failures, None):
            raise StoreConnectionError
        return connection()

    monkeypatch.setattr(generation, "_connection", shaky)
    issued[0].revoke()
    assert number() == before + 1
