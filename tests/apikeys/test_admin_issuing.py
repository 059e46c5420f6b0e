"""Issuing a key in the admin: the key is shown once, whatever is clicked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone
from redis import Redis

from apikeys import keys
from apikeys.models import ApiKey
from tests.apikeys.admin_pages import (
    ADD,
    LIST,
    edited,
    filled_in,
    inputs,
    page_of,
    plaintexts,
    text_of,
)
from tests.apikeys.conftest import Ask, Issued
from tests.servers import kept_by

pytestmark = pytest.mark.usefixtures("transactional_db")


def test_the_page_after_the_form_shows_the_key_which_works_at_once(
    operator: Client, ask: Ask
) -> None:
    before = timezone.now()
    form = filled_in(
        operator,
        name="billing",
        owner="Ann",
        environment="test",
        rate="100/1m",
        networks="10.1.0.0/16 2001:db8::1",
        expires_at_0="2100-01-31",
        expires_at_1="12:30:00",
    )
    answer = operator.post(ADD, form)
    assert answer.status_code == 200
    (plaintext,) = plaintexts(answer)
    assert plaintext.startswith(f"hk_test_{form['key_id']}_")
    key = ApiKey.objects.get()
    assert (key.name, key.owner, key.environment, key.rate) == ("billing", "Ann", "test", "100/1m")
    assert key.networks == "10.1.0.0/16, 2001:db8::1/128"
    assert key.expires_at == datetime(2100, 1, 31, 12, 30, tzinfo=UTC)
    assert before <= key.created_at <= timezone.now()
    assert key.created_by == User.objects.get()
    assert ask({"X-API-Key": plaintext}).status_code == 200


def test_the_page_says_how_to_send_the_key_and_that_it_is_shown_once(operator: Client) -> None:
    answer = operator.post(ADD, filled_in(operator))
    (plaintext,) = plaintexts(answer)
    text = text_of(answer)
    assert f'id="shown-key">{plaintext}</code>' in text
    assert f'curl -i -H "Authorization: Bearer {plaintext}" http://testserver/' in text
    assert "it will not be shown again" in text


def test_no_cache_may_store_the_key(operator: Client) -> None:
    form = filled_in(operator)
    for answer in (operator.post(ADD, form), operator.post(ADD, form)):
        directives = answer["Cache-Control"].replace(" ", "").split(",")
        assert {"no-store", "private"} <= set(directives)


def test_the_plaintext_is_in_that_answer_and_nowhere_else(
    operator: Client, store: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    form = filled_in(operator)
    answer = operator.post(ADD, form)
    (plaintext,) = plaintexts(answer)
    secret = plaintext.split("_")[3][: keys.SECRET_LENGTH]
    key = ApiKey.objects.get()
    places = [str(answer.headers), str(answer.cookies)]
    for path in ("/admin/", LIST, page_of(key), f"{LIST}{key.pk}/history/"):
        page = operator.get(path)
        assert page.status_code == 200
        places += [page.content.decode(), str(page.headers), str(page.cookies)]
    places += [str(operator.cookies), str([s.get_decoded() for s in Session.objects.all()])]
    places += [str(list(model._default_manager.values())) for model in apps.get_models()]
    places += kept_by(store)
    places.append(caplog.text)
    assert key.pk in "".join(places)
    assert not [place for place in places if secret in place]


VARIANTS = {
    "saved": ("", {"_save": "Save"}),
    "and continue": ("", {"_continue": "1"}),
    "and add another": ("", {"_addanother": "1"}),
    "no button": ("", {}),
    "in a popup": ("?_popup=1", {"_popup": "1"}),
    "in a popup for a field": ("?_popup=1&_to_field=id", {"_popup": "1", "_to_field": "id"}),
    "from a filtered list": ("?_changelist_filters=status%3Dactive", {"_save": "Save"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_whichever_button_is_used_the_key_is_shown(
    operator: Client, ask: Ask, variant: str
) -> None:
    query, extra = VARIANTS[variant]
    form = filled_in(operator) | extra
    answer = operator.post(ADD + query, form)
    assert answer.status_code == 200
    (plaintext,) = plaintexts(answer)
    assert ask({"X-API-Key": plaintext}).status_code == 200
    again = operator.post(ADD + query, form)
    assert "issued already" in text_of(again)
    assert plaintexts(again) == set()
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("path", ["add", "change"])
@pytest.mark.parametrize("key_id", ["new", "existing"])
def test_save_as_new_is_not_a_way_around_the_form(
    operator: Client, issued: Issued, path: str, key_id: str
) -> None:
    before = ApiKey.objects.values().get()
    form = filled_in(operator) | {"_saveasnew": "1"}
    if key_id == "existing":
        form["key_id"] = issued[0].pk
    answer = operator.post(ADD if path == "add" else page_of(issued[0]), form)
    assert answer.status_code == 403
    assert ApiKey.objects.values().get() == before


def test_the_digest_cannot_be_used_to_find_a_key(operator: Client, issued: Issued) -> None:
    key = issued[0]
    digest_page = f"{LIST}{key.digest}/change/?_to_field=digest"
    assert operator.get(digest_page).status_code == 400
    assert operator.post(digest_page, edited(key, name="renamed")).status_code == 400
    for form in (filled_in(operator), {"key_id": key.pk, "name": "x", "environment": "live"}):
        assert operator.post(f"{ADD}?_to_field=digest", form).status_code == 400
    assert ApiKey.objects.get().name == "tests"


def test_sending_the_form_again_issues_no_second_key_and_shows_nothing(operator: Client) -> None:
    form = filled_in(operator, name="billing")
    operator.post(ADD, form)
    before = ApiKey.objects.values().get()
    again = operator.post(ADD, form | {"name": "changed", "rate": "1/1m"})
    assert again.status_code == 200
    assert "This key was issued already" in text_of(again)
    assert plaintexts(again) == set()
    assert page_of(ApiKey.objects.get()) in text_of(again)
    assert ApiKey.objects.values().get() == before
    assert LogEntry.objects.count() == 1


def test_sending_the_form_twice_at_the_same_time_issues_one_key(operator: Client) -> None:
    for _ in range(5):
        ApiKey.objects.all().delete()
        form, barrier = filled_in(operator), Barrier(2)

        def send(form: dict[str, str] = form, barrier: Barrier = barrier) -> Any:
            client = Client()
            client.cookies = operator.cookies
            barrier.wait()
            try:
                return client.post(ADD, form)
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as threads:
            answers = [sent.result() for sent in [threads.submit(send) for _ in range(2)]]
        shown = [plaintexts(answer) for answer in answers]
        assert sorted(len(found) for found in shown) == [0, 1]
        assert [answer.status_code for answer in answers] == [200, 200]
        key = ApiKey.objects.get()
        (plaintext,) = shown[0] | shown[1]
        parsed = keys.parse(plaintext)
        assert parsed is not None
        assert parsed.digest == key.digest


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "   "}, "This field is required."),
        ({"name": "n" * 101}, "at most 100 characters"),
        ({"environment": "prod"}, "prod is not one of the available choices."),
        ({"rate": "three per ten"}, "'three per ten' is not a rate limit: write a limit, a slash"),
        ({"rate": "0/10s"}, "A limit is from 1 "),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "12:00:00"}, "This moment is past: choose"),
        ({"expires_at_0": "2100-01-01", "expires_at_1": "noon"}, "Enter a valid time."),
        ({"expires": "own"}, "Write a date."),
        ({"expires": "90d", "expires_at_0": "2100-01-01"}, "Choose “On a date of your own”"),
        ({"expires": "never", "expires_at_0": "2100-01-01"}, "Choose “On a date of your own”"),
        ({"expires": "soon"}, "soon is not one of the available choices."),
        ({"expires_at_0": "soon", "expires_at_1": "12:00"}, "Enter a valid date."),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    operator: Client, wrong: dict[str, str], sentence: str
) -> None:
    typed = {"name": "billing", "owner": 'Ann & <"Bob">', "rate": "100/1m"} | wrong
    form = filled_in(operator, **typed)
    answer = operator.post(ADD, form)
    assert answer.status_code == 200
    assert sentence in text_of(answer)
    kept = inputs(answer)
    del typed["name" if not typed["name"].strip() else "owner"]
    for chosen in ("environment", "expires"):
        typed.pop(chosen, None)
    assert {name: kept[name] for name in typed} == typed
    assert kept["key_id"] == form["key_id"]
    assert not ApiKey.objects.exists()
    corrected = operator.post(
        ADD,
        form
        | {"name": "b", "environment": "live", "expires": "never"}
        | dict.fromkeys(("rate", "expires_at_0", "expires_at_1"), ""),
    )
    assert len(plaintexts(corrected)) == 1


@pytest.mark.parametrize(("preset", "days"), [("30d", 30), ("90d", 90), ("365d", 365)])
def test_a_key_expires_after_as_many_days_as_were_chosen(
    operator: Client, preset: str, days: int
) -> None:
    before = timezone.now()
    operator.post(ADD, filled_in(operator, expires=preset))
    expires_at = ApiKey.objects.get().expires_at
    assert expires_at is not None
    assert before <= expires_at - timedelta(days=days) <= timezone.now()


def test_a_key_expires_never_unless_something_is_chosen(operator: Client) -> None:
    form = filled_in(operator)
    assert form["expires"] == "never"
    operator.post(ADD, form | {"expires_at_0": "", "expires_at_1": "12:00"})
    assert ApiKey.objects.get().expires_at is None


def test_a_date_without_a_time_is_the_beginning_of_that_day(operator: Client) -> None:
    operator.post(ADD, filled_in(operator, expires_at_0="2100-01-31", expires_at_1=""))
    assert ApiKey.objects.get().expires_at == datetime(2100, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "key_id", [None, "", "short", "abcdefghijklm", "abcdefghijk_", "abcdefghijk\0", "\uff11" * 12]
)
def test_a_form_without_a_good_key_id_is_refused_with_a_sentence(
    operator: Client, key_id: str | None
) -> None:
    form = filled_in(operator)
    del form["key_id"]
    answer = operator.post(ADD, form if key_id is None else form | {"key_id": key_id})
    assert answer.status_code == 200
    assert "open it anew" in text_of(answer)
    assert not ApiKey.objects.exists()


def test_a_link_may_fill_in_the_form_but_not_choose_the_key_id(
    operator: Client, issued: Issued
) -> None:
    form = inputs(operator.get(ADD, {"name": "billing", "key_id": issued[0].pk}))
    assert form["name"] == "billing"
    assert keys.is_id(form["key_id"])
    assert form["key_id"] != issued[0].pk
    assert form["key_id"] != inputs(operator.get(ADD))["key_id"]


@pytest.mark.usefixtures("no_store_for_generation")
def test_the_key_is_shown_even_when_the_store_is_gone(operator: Client, ask: Ask) -> None:
    answer = operator.post(ADD, filled_in(operator))
    (plaintext,) = plaintexts(answer)
    assert ask({"X-API-Key": plaintext}).status_code == 200
