"""Who may do what in the admin, and what its history says of it."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from apikeys.models import ApiKey
from tests.apikeys.admin_pages import (
    ADD,
    LIST,
    REVOKE,
    edited,
    filled_in,
    inputs,
    page_of,
    plaintexts,
    text_of,
)
from tests.apikeys.conftest import Ask, Issued, LogIn

pytestmark = pytest.mark.usefixtures("transactional_db")


def test_who_may_not_issue_learns_nothing_not_even_of_a_key_that_exists(
    log_in: LogIn, issued: Issued
) -> None:
    client = log_in("change", "delete")
    assert client.get(ADD).status_code == 403
    answers = [
        client.post(ADD, {"key_id": key_id, "name": "billing", "environment": "live"})
        for key_id in (issued[0].pk, "abcdefghijkl", "")
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert len({answer.content for answer in answers}) == 1
    assert ApiKey.objects.count() == 1


def test_who_may_only_issue_sees_the_new_key_and_no_other(
    log_in: LogIn, ask: Ask, issued: Issued
) -> None:
    client = log_in("add")
    answer = client.post(ADD, filled_in(client, name="new"))
    (plaintext,) = plaintexts(answer)
    assert ask({"X-API-Key": plaintext}).status_code == 200
    assert f'"{LIST}' not in text_of(answer).replace(f'"{ADD}"', "")
    taken = client.post(ADD, filled_in(client) | {"key_id": issued[0].pk})
    assert plaintexts(taken) == set()
    assert issued[0].name not in text_of(taken)
    assert issued[0].digest not in text_of(taken)
    for path in (LIST, page_of(issued[0]), REVOKE, f"{REVOKE}?id={issued[0].pk}"):
        assert client.get(path).status_code == 403
    assert client.post(REVOKE, {"id": issued[0].pk}).status_code == 403
    assert ApiKey.objects.filter(revoked_at=None).count() == 2


def test_who_may_only_view_can_change_nothing(log_in: LogIn, issued: Issued) -> None:
    client, key = log_in("view"), issued[0]
    before = ApiKey.objects.values().get()
    page, keys_page = client.get(page_of(key)), client.get(LIST)
    assert key.name in text_of(page)
    assert set(inputs(page)) == {"csrfmiddlewaretoken"}
    for text in (text_of(page), text_of(keys_page)):
        assert REVOKE not in text
        assert ADD not in text
        assert "revoke_selected" not in text
    assert client.post(page_of(key), edited(key, name="renamed")).status_code == 403
    assert client.post(ADD, {"key_id": key.pk, "name": "x"}).status_code == 403
    assert client.get(REVOKE, {"id": key.pk}).status_code == 403
    assert client.post(REVOKE, {"id": key.pk}).status_code == 403
    client.post(LIST, {"action": "revoke_selected", "_selected_action": [key.pk]})
    assert ApiKey.objects.values().get() == before


def test_who_is_not_logged_in_is_sent_to_the_login(client: Client, issued: Issued) -> None:
    for path in (LIST, ADD, REVOKE, page_of(issued[0]), f"{LIST}{issued[0].pk}/history/"):
        for method in (client.get, client.post):
            answer = method(path, {"id": issued[0].pk, "key_id": issued[0].pk})
            assert answer.status_code == 302
            assert answer["Location"].startswith("/admin/login/?next=/admin/")
    assert ApiKey.objects.get().status == ApiKey.Status.ACTIVE


def test_a_post_without_its_token_is_refused(log_in: LogIn, issued: Issued) -> None:
    client, key = log_in("view", "add", "change", enforce_csrf_checks=True), issued[0]
    new = filled_in(client, name="new")
    chosen = {"action": "revoke_selected", "_selected_action": key.pk}
    posts = [
        (ADD, ADD, new),
        (page_of(key), page_of(key), edited(key, name="renamed")),
        (LIST, LIST, chosen),
        (f"{REVOKE}?id={key.pk}", REVOKE, {"id": key.pk}),
    ]
    before = list(ApiKey.objects.values())
    for _, path, form in posts:
        assert client.post(path, form).status_code == 403
    assert list(ApiKey.objects.values()) == before
    for page, path, form in posts:
        token = {"csrfmiddlewaretoken": inputs(client.get(page))["csrfmiddlewaretoken"]}
        assert client.post(path, form | token).status_code in (200, 302)
    renamed, issued_now = ApiKey.objects.get(pk=key.pk), ApiKey.objects.get(pk=new["key_id"])
    assert (renamed.name, renamed.status) == ("renamed", ApiKey.Status.REVOKED)
    assert issued_now.status == ApiKey.Status.ACTIVE


def test_nobody_can_delete_a_key_not_even_a_superuser(admin_client: Client, issued: Issued) -> None:
    key = issued[0]
    for path in (LIST, page_of(key)):
        assert "delete" not in text_of(admin_client.get(path)).lower()
    delete = f"{LIST}{key.pk}/delete/"
    assert admin_client.get(delete).status_code == 403
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [key.pk], "post": "yes"}
    answer = admin_client.post(LIST, chosen, follow=True)
    assert "No action selected." in text_of(answer)
    assert ApiKey.objects.filter(pk=key.pk).exists()


def test_the_history_says_who_did_what(log_in: LogIn) -> None:
    issuer, editor = log_in("add", name="issuer"), log_in("change", name="editor")
    revoker = log_in("change", name="revoker")
    issuer.post(ADD, filled_in(issuer))
    key = ApiKey.objects.get()
    editor.post(page_of(key), edited(key, rate="1/1m", owner="Ann"))
    revoker.post(REVOKE, {"id": key.pk, "reason": "lost"})
    page = text_of(revoker.get(f"{LIST}{key.pk}/history/"))
    rows = re.findall(r"<td>(\w+)</td>\s*<td>([^<]*)</td>", page)
    assert rows == [
        ("issuer", "Issued."),
        ("editor", "Changed Owner and Own rate."),
        ("revoker", "Revoked. lost"),
    ]
