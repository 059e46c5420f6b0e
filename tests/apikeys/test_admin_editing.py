"""Editing a key in the admin."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
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

EDITABLE = ("name", "owner", "rate", "networks", "expires_at")

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


def test_edited_networks_count_from_the_next_request_on(
    operator: Client, ask: Ask, issued: Issued
) -> None:
    key, plaintext = issued
    headers = {"X-API-Key": plaintext}
    assert ask(headers).status_code == 200
    answer = operator.post(page_of(key), edited(key, networks="192.0.2.7\r\n 2001:db8::/32,"))
    assert (answer.status_code, answer["Location"]) == (302, LIST)
    key.refresh_from_db()
    assert key.networks == "192.0.2.7/32, 2001:db8::/32"
    assert ask(headers).status_code == 403
    assert "192.0.2.7/32, 2001:db8::/32</textarea>" in text_of(operator.get(page_of(key)))
    operator.post(page_of(key), edited(key, networks="10.0.0.0/8"))
    assert ask(headers).status_code == 200


def test_networks_that_were_not_touched_are_not_in_the_history(
    operator: Client, issued: Issued
) -> None:
    key = issued[0]
    operator.post(page_of(key), edited(key, networks="10.0.0.0/8 192.0.2.0/24"))
    key.refresh_from_db()
    operator.post(page_of(key), edited(key, name="renamed"))
    latest, first = LogEntry.objects.order_by("-pk")
    assert first.get_change_message() == "Changed Allowed networks."
    assert latest.get_change_message() == "Changed Name."


def test_networks_that_are_wrong_are_named_and_stay_in_the_form(
    operator: Client, issued: Issued
) -> None:
    answer = operator.post(page_of(issued[0]), edited(issued[0], networks="10.0.0.0/8, 10.1.2.3/8"))
    assert answer.status_code == 200
    assert "'10.1.2.3/8' is one address and the network around it: write 10.0.0.0/8" in text_of(
        answer
    )
    assert "10.0.0.0/8, 10.1.2.3/8</textarea>" in text_of(answer)
    assert ApiKey.objects.get().networks == ""


def test_the_networks_of_a_revoked_key_are_shown_only(operator: Client, issued: Issued) -> None:
    key = issued[0]
    operator.post(page_of(key), edited(key, networks="10.0.0.0/8"))
    key.revoke()
    page = text_of(operator.get(page_of(key)))
    assert re.search(r'field-networks.*<div class="readonly">10\.0\.0\.0/8</div>', page, re.DOTALL)
    assert "<textarea" not in page


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


def test_only_five_fields_can_be_edited(operator: Client, issued: Issued) -> None:
    key = issued[0]
    before = ApiKey.objects.values().get()
    others = dict.fromkeys(before.keys() - set(EDITABLE), "x")
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
