"""Rotating a key in the admin: the new one is shown once, the old one works as long as chosen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone
from redis import Redis

from apikeys import generation, keys
from apikeys.models import ROTATION_NOT_TOLD, ApiKey
from tests.apikeys.admin_pages import (
    LIST,
    end_overlap_page_of,
    events_shown,
    history_page_of,
    inputs,
    number,
    out_of_reach,
    page_of,
    plaintexts,
    rotate_page_of,
    text_of,
)
from tests.apikeys.conftest import Ask, Issued, LogIn
from tests.servers import kept_by

pytestmark = pytest.mark.usefixtures("transactional_db")


def rotate(client: Client, key: ApiKey, **chosen: str) -> Any:
    """From page to page, as a browser does."""
    return client.post(rotate_page_of(key), inputs(client.get(rotate_page_of(key))) | chosen)


def status(ask: Ask, plaintext: str) -> int:
    return int(ask({"X-API-Key": plaintext}).status_code)


def test_both_keys_work_until_the_deadline_a_day_later_unless_said_otherwise(
    operator: Client, ask: Ask, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, old = issued
    before = timezone.now()
    answer = rotate(operator, key)
    (new,) = plaintexts(answer)
    assert new.startswith(f"hk_live_{key.pk}_")
    assert (status(ask, old), status(ask, new)) == (200, 200)
    key.refresh_from_db()
    assert key.previous_until is not None
    until = key.previous_until
    assert before + timedelta(hours=24) <= until <= timezone.now() + timedelta(hours=24)
    monkeypatch.setattr(timezone, "now", lambda: until)
    assert (status(ask, old), status(ask, new)) == (401, 200)


@pytest.mark.parametrize(
    ("chosen", "overlap"),
    [
        ({"overlap": "1h"}, timedelta(hours=1)),
        ({"overlap": "7d"}, timedelta(days=7)),
        ({"overlap": "own", "own_overlap": " 90m "}, timedelta(minutes=90)),
    ],
)
def test_the_overlap_is_the_one_chosen(
    operator: Client, issued: Issued, chosen: dict[str, str], overlap: timedelta
) -> None:
    before = timezone.now()
    rotate(operator, issued[0], **chosen)
    key = ApiKey.objects.get()
    assert key.previous_until is not None
    assert before + overlap <= key.previous_until <= timezone.now() + overlap


def test_rotated_now_the_old_key_is_refused_from_the_next_request_on(
    operator: Client, ask: Ask, issued: Issued
) -> None:
    key, old = issued
    assert status(ask, old) == 200
    answer = rotate(operator, key, overlap="0")
    (new,) = plaintexts(answer)
    assert (status(ask, old), status(ask, new)) == (401, 200)
    assert "The old key is refused from the next request on." in text_of(answer)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"overlap": "own"}, "'' is not a duration: write a number and a unit"),
        ({"overlap": "own", "own_overlap": "1 week"}, "'1 week' is not a duration"),
        ({"overlap": "2h"}, "2h is not one of the available choices."),
        ({"overlap": "24h", "own_overlap": "3d"}, "Choose “A time of your own”"),
    ],
)
def test_an_overlap_that_is_wrong_changes_nothing_and_stays_to_be_corrected(
    operator: Client, issued: Issued, chosen: dict[str, str], sentence: str
) -> None:
    before = ApiKey.objects.values().get()
    answer = rotate(operator, issued[0], **chosen)
    assert sentence in text_of(answer)
    assert inputs(answer)["own_overlap"] == chosen.get("own_overlap", "")
    assert plaintexts(answer) == set()
    assert ApiKey.objects.values().get() == before
    assert (
        len(
            plaintexts(
                operator.post(
                    rotate_page_of(issued[0]), inputs(answer) | {"overlap": "1h", "own_overlap": ""}
                )
            )
        )
        == 1
    )


def test_the_same_form_sent_again_rotates_once_and_shows_nothing(
    operator: Client, issued: Issued
) -> None:
    key = issued[0]
    form = inputs(operator.get(rotate_page_of(key)))
    assert len(plaintexts(operator.post(rotate_page_of(key), form))) == 1
    before = ApiKey.objects.values().get()
    again = operator.post(rotate_page_of(key), form | {"overlap": "0"})
    assert again.status_code == 200
    assert "it cannot be shown again" in text_of(again)
    assert plaintexts(again) == set()
    assert ApiKey.objects.values().get() == before
    assert LogEntry.objects.count() == 1


def test_a_form_that_somebody_else_was_quicker_than_rotates_nothing(
    operator: Client, issued: Issued
) -> None:
    key = issued[0]
    form = inputs(operator.get(rotate_page_of(key)))
    key.rotate(timedelta(hours=1))
    before = ApiKey.objects.values().get()
    answer = operator.post(rotate_page_of(key), form)
    assert "This key was rotated already" in text_of(answer)
    for wrong in ({}, {"replaces": ""}, {"replaces": key.digest}):
        assert plaintexts(operator.post(rotate_page_of(key), {"overlap": "0"} | wrong)) == set()
    assert ApiKey.objects.values().get() == before


def test_the_form_sent_twice_at_the_same_time_rotates_once(
    operator: Client, issued: Issued
) -> None:
    for _ in range(5):
        form, barrier = inputs(operator.get(rotate_page_of(issued[0]))), Barrier(2)

        def send(form: dict[str, str] = form, barrier: Barrier = barrier) -> Any:
            client = Client()
            client.cookies = operator.cookies
            barrier.wait()
            try:
                return client.post(rotate_page_of(issued[0]), form)
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as threads:
            answers = [sent.result() for sent in [threads.submit(send) for _ in range(2)]]
        shown = [plaintexts(answer) for answer in answers]
        assert sorted(len(found) for found in shown) == [0, 1]
        (plaintext,) = shown[0] | shown[1]
        parsed = keys.parse(plaintext)
        assert parsed is not None
        assert parsed.digest == ApiKey.objects.get().digest


def test_the_new_plaintext_is_in_that_answer_and_nowhere_else(
    operator: Client, issued: Issued, store: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key = issued[0]
    asked = operator.get(rotate_page_of(key))
    assert issued[0].digest not in asked.content.decode()
    answer = rotate(operator, key)
    assert "no-store" in answer["Cache-Control"]
    (plaintext,) = plaintexts(answer)
    secret = plaintext.split("_")[3][: keys.SECRET_LENGTH]
    places = [str(answer.headers), str(answer.cookies), caplog.text]
    for path in ("/admin/", LIST, page_of(key), history_page_of(key), rotate_page_of(key)):
        page = operator.get(path)
        assert page.status_code == 200
        places += [page.content.decode(), str(page.headers), str(page.cookies)]
    places += [str(operator.cookies), str([s.get_decoded() for s in Session.objects.all()])]
    places += [str(list(model._default_manager.values())) for model in apps.get_models()]
    places += kept_by(store)
    assert key.pk in "".join(places)
    assert not [place for place in places if secret in place]


def test_the_page_says_when_the_key_was_used_and_what_ends(
    operator: Client, ask: Ask, issued: Issued
) -> None:
    key, first = issued
    assert "A secret from before" not in text_of(operator.get(rotate_page_of(key)))
    assert "<dt>Last used</dt><dd>never</dd>" in text_of(operator.get(rotate_page_of(key)))
    ApiKey.objects.record_uses({key.pk: timezone.now() - timedelta(minutes=3)})
    (second,) = plaintexts(rotate(operator, key))
    page = text_of(operator.get(rotate_page_of(key)))
    assert ">3 minutes ago</time>" in page
    assert "A secret from before is still good; it would end" in page
    (third,) = plaintexts(rotate(operator, key))
    assert [status(ask, plaintext) for plaintext in (first, second, third)] == [401, 200, 200]


@pytest.mark.parametrize("state", ["revoked", "expired"])
def test_a_key_that_is_no_longer_good_is_not_rotated(
    operator: Client, issued: Issued, state: str
) -> None:
    key = issued[0]
    form = inputs(operator.get(rotate_page_of(key)))
    if state == "revoked":
        key.revoke("lost")
    else:
        ApiKey.objects.update(expires_at=timezone.now())
    before = ApiKey.objects.values().get()
    for answer in (operator.get(rotate_page_of(key)), operator.post(rotate_page_of(key), form)):
        assert f"This key is {state}" in text_of(answer)
        assert plaintexts(answer) == set()
    assert rotate_page_of(key) not in text_of(operator.get(page_of(key)))
    assert ApiKey.objects.values().get() == before


def test_the_new_key_is_shown_even_when_the_store_did_not_hear_of_it(
    operator: Client, ask: Ask, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, old = issued
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_connection", out_of_reach)
        answer = rotate(operator, key, overlap="0")
    (new,) = plaintexts(answer)
    assert ROTATION_NOT_TOLD in text_of(answer)
    generation.raise_number()
    assert (status(ask, old), status(ask, new)) == (401, 200)


def test_an_overlap_can_be_ended_before_its_deadline(
    operator: Client, ask: Ask, issued: Issued
) -> None:
    key, old = issued
    (new,) = plaintexts(rotate(operator, key))
    assert status(ask, old) == 200
    page = end_overlap_page_of(key)
    assert f'href="{page}"' in text_of(operator.get(page_of(key)))
    assert "This cannot be undone." in text_of(operator.get(page))
    assert status(ask, old) == 200
    before = number()
    answer = operator.post(page, follow=True)
    assert answer.redirect_chain == [(page_of(key), 302)]
    assert "is refused from the next request on" in text_of(answer)
    assert number() > before
    assert (status(ask, old), status(ask, new)) == (401, 200)
    assert page not in text_of(operator.get(page_of(key)))
    assert "no old secret" in text_of(operator.get(page))
    assert len(events_shown(operator.get(page_of(key)))) == 3
    operator.post(page)  # Ended already: nothing to record.
    assert len(events_shown(operator.get(page_of(key)))) == 3


def test_rotating_takes_a_permission_of_its_own(log_in: LogIn, issued: Issued) -> None:
    key = issued[0]
    key.rotate(timedelta(hours=1))
    before = ApiKey.objects.values().get()
    allowed = log_in("view", "rotate", name="allowed")
    form = inputs(allowed.get(rotate_page_of(key)))
    paths = (rotate_page_of(key), end_overlap_page_of(key))
    others = log_in("view", "add", "change", "revoke", name="others")
    for client in (others, log_in("rotate", name="blind")):
        for path in paths:
            assert client.get(path).status_code == 403
            assert client.post(path, form).status_code == 403
    page = text_of(others.get(page_of(key)))
    assert not [path for path in paths if path in page]
    assert ApiKey.objects.values().get() == before
    page = text_of(allowed.get(page_of(key)))
    assert [path for path in paths if f'href="{path}"' in page] == list(paths)
    assert len(plaintexts(allowed.post(rotate_page_of(key), form))) == 1


def test_only_a_post_rotates(operator: Client, issued: Issued) -> None:
    key = issued[0]
    before = ApiKey.objects.values().get()
    for path in (rotate_page_of(key), end_overlap_page_of(key)):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
            assert operator.generic(method, path).status_code == 200
        assert operator.get(f"{LIST}abcdefghijkl/rotate/").status_code == 404
    assert ApiKey.objects.values().get() == before
