"""Revoking keys in the admin."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from apikeys import admin_revoking, generation
from apikeys.models import ApiKey, KeyEvent
from tests.apikeys.admin_pages import (
    LIST,
    REVOKE,
    STORE_NOT_TOLD,
    edited,
    inputs,
    number,
    out_of_reach,
    page_of,
    text_of,
)
from tests.apikeys.conftest import Ask, Issued

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def two_keys() -> list[Issued]:
    return [ApiKey.objects.issue(name=name) for name in ("first", "second")]


def test_asking_to_revoke_shows_the_keys_and_changes_nothing(
    operator: Client, two_keys: list[Issued]
) -> None:
    ApiKey.objects.record_uses({two_keys[0][0].pk: datetime(2030, 5, 17, 8, 0, tzinfo=UTC)})
    before = list(ApiKey.objects.values()), number()
    ids = f"{two_keys[0][0].pk}+{two_keys[1][0].pk}"
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert operator.generic(method, f"{REVOKE}?id={ids}&reason=lost").status_code == 200
    text = text_of(operator.get(f"{REVOKE}?id={ids}"))
    for key, _ in two_keys:
        assert key.name in text
        assert key.pk in text
    assert "2030-05-17 08:00:00" in text
    assert "never" in text
    assert "This cannot be undone." in text
    assert (list(ApiKey.objects.values()), number()) == before
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("way", ["the key's page", "the list"])
def test_from_page_to_page_a_revoked_key_is_refused_from_the_next_request_on(
    operator: Client, ask: Ask, two_keys: list[Issued], way: str
) -> None:
    (key, plaintext), (_, bystander) = two_keys
    assert ask({"X-API-Key": plaintext}).status_code == 200
    if way == "the list":
        chosen = {"action": "revoke_selected", "_selected_action": [key.pk]}
        confirmation = operator.post(LIST, chosen)
    else:
        link = f"{REVOKE}?id={key.pk}"
        assert f'href="{link}"' in text_of(operator.get(page_of(key)))
        confirmation = operator.get(link)
    assert ask({"X-API-Key": plaintext}).status_code == 200
    answer = operator.post(REVOKE, inputs(confirmation) | {"reason": "lost"}, follow=True)
    assert ask({"X-API-Key": plaintext}).status_code == 401
    assert ask({"X-API-Key": bystander}).status_code == 200
    assert answer.redirect_chain == [(LIST, 302)]
    assert f"Revoked {key}: refused from the next request on." in text_of(answer)
    key.refresh_from_db()
    assert (key.status, key.revoked_reason) == (ApiKey.Status.REVOKED, "lost")


def test_several_are_revoked_together_with_one_reason(
    operator: Client, ask: Ask, two_keys: list[Issued]
) -> None:
    for _, plaintext in two_keys:
        assert ask({"X-API-Key": plaintext}).status_code == 200
    ids = [key.pk for key, _ in two_keys]
    answer = operator.post(REVOKE, {"id": ids, "reason": "  lost  "}, follow=True)
    assert "Revoked 2 API keys: refused from the next request on." in text_of(answer)
    for _, plaintext in two_keys:
        assert ask({"X-API-Key": plaintext}).status_code == 401
    assert set(ApiKey.objects.values_list("revoked_reason", flat=True)) == {"lost"}
    assert {entry.object_id for entry in LogEntry.objects.all()} == set(ids)
    assert {entry.get_change_message() for entry in LogEntry.objects.all()} == {"Revoked. lost"}


def test_a_reason_is_not_needed(operator: Client, issued: Issued) -> None:
    operator.post(REVOKE, {"id": issued[0].pk})
    assert ApiKey.objects.get().status == ApiKey.Status.REVOKED
    assert LogEntry.objects.get().get_change_message() == "Revoked."


def test_a_reason_too_long_is_refused_and_stays_to_be_shortened(
    operator: Client, two_keys: list[Issued]
) -> None:
    ids = [key.pk for key, _ in two_keys]
    answer = operator.post(REVOKE, {"id": ids, "reason": "r" * 201})
    assert answer.status_code == 200
    assert "at most 200 characters" in text_of(answer)
    assert inputs(answer)["reason"] == "r" * 201
    assert not ApiKey.objects.exclude(revoked_at=None).exists()
    operator.post(REVOKE, inputs(answer) | {"reason": "r" * 200})
    assert set(ApiKey.objects.values_list("revoked_reason", flat=True)) == {"r" * 200}


@pytest.mark.parametrize("method", ["get", "post"])
def test_unknown_ids_are_not_found_and_keep_no_other_key(
    operator: Client, issued: Issued, method: str
) -> None:
    unknown = ["abcdefghijkl", "", "\0", "abcdefghijk\0", "'; --", "x" * 5000]
    send = getattr(operator, method)
    answer = send(REVOKE, {"id": unknown, "reason": "lost"})
    assert answer.status_code == 200
    assert "No such key was found." in text_of(answer)
    assert send(REVOKE, {}).status_code == 200
    assert ApiKey.objects.get().status == ApiKey.Status.ACTIVE
    operator.post(REVOKE, {"id": [*unknown, issued[0].pk]})
    assert ApiKey.objects.get().status == ApiKey.Status.REVOKED


def test_revoking_again_keeps_the_first_moment_and_reason_and_tells_the_store(
    operator: Client, issued: Issued
) -> None:
    operator.post(REVOKE, {"id": issued[0].pk, "reason": "lost"})
    first, before = ApiKey.objects.values().get(), number()
    asked = operator.get(REVOKE, {"id": issued[0].pk})
    assert "Revoked already." in text_of(asked)
    answer = operator.post(REVOKE, inputs(asked) | {"reason": "found"}, follow=True)
    assert f"Revoked already: {issued[0]}. The store has been told again." in text_of(answer)
    assert ApiKey.objects.values().get() == first
    assert number() > before
    assert LogEntry.objects.count() == 1


def test_a_revocation_that_the_store_did_not_hear_of_is_saved_says_so_and_can_be_repeated(
    operator: Client, ask: Ask, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, plaintext = issued
    assert ask({"X-API-Key": plaintext}).status_code == 200
    before = number()
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_connection", out_of_reach)
        answer = operator.post(REVOKE, {"id": key.pk, "reason": "lost"})
    assert number() == before
    assert STORE_NOT_TOLD in text_of(answer)
    key.refresh_from_db()
    assert (key.status, key.revoked_reason) == (ApiKey.Status.REVOKED, "lost")
    assert "Tell the store again" in text_of(answer)
    operator.post(REVOKE, inputs(answer))
    assert number() > before
    assert ask({"X-API-Key": plaintext}).status_code == 401
    key.refresh_from_db()
    assert key.revoked_reason == "lost"


def test_more_keys_than_a_form_has_fields_are_revoked_from_the_list(
    operator: Client, settings: Settings
) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 10
    ApiKey.objects.bulk_create(ApiKey(name=str(n), digest="0" * 64) for n in range(12))
    one = ApiKey.objects.all()[0].pk
    chosen = {"action": "revoke_selected", "_selected_action": [one], "select_across": "1"}
    confirmation = operator.post(LIST, chosen)
    assert not ApiKey.objects.exclude(revoked_at=None).exists()
    operator.post(REVOKE, inputs(confirmation))
    assert not ApiKey.objects.filter(revoked_at=None).exists()


def test_thousands_are_counted_and_a_hundred_of_them_shown(operator: Client) -> None:
    ApiKey.objects.bulk_create(ApiKey(name=f"key {n}", digest="0") for n in range(10_000))
    one = ApiKey.objects.all()[0].pk
    chosen = {"action": "revoke_selected", "_selected_action": [one], "select_across": "1"}
    confirmation = operator.post(LIST, chosen)
    text = text_of(confirmation)
    assert "<h1>Revoke 10,000 API keys</h1>" in text
    assert text.count('<th scope="row">') == 100
    assert "And 9,900 more." in text
    with CaptureQueriesContext(connection) as queries:
        answer = operator.post(REVOKE, inputs(confirmation) | {"reason": "lost"}, follow=True)
    assert "Revoked 10,000 API keys: refused from the next request on." in text_of(answer)
    assert len(queries) < 200
    assert not ApiKey.objects.filter(revoked_at=None).exists()
    assert KeyEvent.objects.filter(action="revoked", by_name="operator").count() == 10_000
    assert LogEntry.objects.filter(object_repr__startswith="key ").count() == 10_000


def test_more_than_fit_into_a_form_are_not_begun(
    operator: Client, two_keys: list[Issued], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_revoking, "MOST_AT_ONCE", 1)
    ids = [key.pk for key, _ in two_keys]
    for answer in (operator.get(REVOKE, {"id": ids}), operator.post(REVOKE, {"id": ids})):
        assert "choose at most 1, by a filter or a search" in text_of(answer)
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


def test_a_key_written_as_the_reason_loses_its_secret(operator: Client, issued: Issued) -> None:
    key, plaintext = issued
    operator.post(REVOKE, {"id": key.pk, "reason": f"{plaintext} was published"})
    key.refresh_from_db()
    assert key.revoked_reason == f"hk_live_{key.pk}_… was published"
    assert LogEntry.objects.get().get_change_message() == f"Revoked. {key.revoked_reason}"


def test_a_revoked_key_can_only_be_looked_at(operator: Client, issued: Issued) -> None:
    key = issued[0]
    fields = set(inputs(operator.get(page_of(key))))
    assert {"name", "owner", "rate", "expires_at_0"} <= fields
    key.revoke("lost")
    page = operator.get(page_of(key))
    assert "lost" in text_of(page)
    assert "it can only be looked at" in text_of(page)
    assert set(inputs(page)) == {"csrfmiddlewaretoken"}
    assert REVOKE not in text_of(page)
    before = ApiKey.objects.values().get()
    assert operator.post(page_of(key), edited(key, name="renamed")).status_code == 403
    assert ApiKey.objects.values().get() == before
