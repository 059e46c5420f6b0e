"""Editing a key in the admin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from apikeys import generation
from apikeys.models import ApiKey
from tests.apikeys.admin_pages import (
    LIST,
    STORE_NOT_TOLD,
    edited,
    number,
    out_of_reach,
    page_of,
    text_of,
)
from tests.apikeys.conftest import Ask, Issued

pytestmark = pytest.mark.usefixtures("transactional_db")


def test_an_edited_rate_counts_from_the_next_request_on(
    operator: Client, ask: Ask, issued: Issued
) -> None:
    key, plaintext = issued
    headers = {"X-API-Key": plaintext}
    assert [ask(headers).status_code for _ in range(2)] == [200, 200]
    answer = operator.post(page_of(key), edited(key, rate="1/1m"))
    assert (answer.status_code, answer["Location"]) == (302, LIST)
    assert [ask(headers).status_code for _ in range(2)] == [200, 429]
    operator.post(page_of(key), edited(key, rate=""))
    assert [ask(headers).status_code for _ in range(2)] == [200, 200]


def test_an_edited_expiry_counts_from_the_next_request_on(
    operator: Client, ask: Ask, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, plaintext = issued
    headers = {"X-API-Key": plaintext}
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    assert ask(headers).status_code == 401
    operator.post(page_of(key), edited(key, expires_at_0="2100-01-31", expires_at_1="12:00"))
    assert ask(headers).status_code == 200
    deadline = datetime(2100, 1, 31, 12, tzinfo=UTC)
    for seconds, status in ((-1, 200), (0, 401)):
        with monkeypatch.context() as patch:
            patch.setattr(timezone, "now", lambda s=seconds: deadline + timedelta(seconds=s))
            assert ask(headers).status_code == status


def test_an_expiry_in_the_past_is_refused_but_one_that_has_passed_does_not_block_other_edits(
    operator: Client, issued: Issued
) -> None:
    key = issued[0]
    passed = datetime(2020, 1, 1, 12, tzinfo=UTC)
    ApiKey.objects.update(expires_at=passed)
    unchanged = {"expires_at_0": "2020-01-01", "expires_at_1": "12:00:00"}
    operator.post(page_of(key), edited(key, name="renamed", **unchanged))
    key.refresh_from_db()
    assert (key.name, key.expires_at) == ("renamed", passed)
    changed = {"expires_at_0": "2020-01-02", "expires_at_1": "12:00:00"}
    answer = operator.post(page_of(key), edited(key, **changed))
    assert "This moment is past: choose" in text_of(answer)
    key.refresh_from_db()
    assert key.expires_at == passed


def test_only_four_fields_can_be_edited(operator: Client, issued: Issued) -> None:
    key = issued[0]
    before = ApiKey.objects.values().get()
    others = {name: "x" for name in before if name not in ("name", "owner", "rate", "expires_at")}
    answer = operator.post(page_of(key), edited(key, name="renamed", key_id="x" * 12, **others))
    assert answer.status_code == 302
    assert ApiKey.objects.values().get() == before | {"name": "renamed"}


def meanwhile(notation: str) -> None:
    """A validator of rates that stands for what happens while a form is being validated."""
    for key in ApiKey.objects.all():
        ApiKey.objects.record_uses({key.pk: datetime(2030, 1, 1, tzinfo=UTC)})
        key.revoke("meanwhile")


def test_an_edit_does_not_undo_a_revocation_that_came_in_between(
    operator: Client, ask: Ask, issued: Issued, settings: Settings
) -> None:
    key, plaintext = issued
    settings.API_KEY_RATE_VALIDATORS = [f"{__name__}.meanwhile"]
    answer = operator.post(page_of(key), edited(key, rate="1/1m"))
    assert answer.status_code == 302
    key.refresh_from_db()
    assert (key.rate, key.status) == ("1/1m", ApiKey.Status.REVOKED)
    assert key.last_used_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert ask({"X-API-Key": plaintext}).status_code == 401


def test_an_edit_that_the_store_did_not_hear_of_is_saved_and_says_so(
    operator: Client, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = issued[0]
    before = number()
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_connection", out_of_reach)
        answer = operator.post(page_of(key), edited(key, rate="1/1m"), follow=True)
    assert answer.redirect_chain == [(page_of(key), 302)]
    assert STORE_NOT_TOLD in text_of(answer)
    assert "successfully" not in text_of(answer)
    key.refresh_from_db()
    assert key.rate == "1/1m"
    assert number() == before
    operator.post(page_of(key), edited(key))  # The same again, as the sentence asks for.
    assert number() > before
