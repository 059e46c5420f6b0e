"""Who may do what in the admin, and what its history says of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from apikeys.models import ApiKey
from tests.apikeys.admin_pages import (
    ADD,
    FIND,
    LIST,
    REVOKE,
    edited,
    end_overlap_page_of,
    events_shown,
    filled_in,
    history_page_of,
    inputs,
    page_of,
    plaintexts,
    rotate_page_of,
    text_of,
)
from tests.apikeys.conftest import Ask, Issued, LogIn

ALL = ("view", "add", "change", "rotate", "revoke")

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
    client, key = log_in(*ALL, enforce_csrf_checks=True), issued[0]
    new = filled_in(client, name="new")
    chosen = {"action": "revoke_selected", "_selected_action": key.pk}
    posts = [
        (ADD, ADD, new),
        (page_of(key), page_of(key), edited(key, name="renamed")),
        (LIST, LIST, chosen),
        (LIST, FIND, {"q": "x"}),
        (end_overlap_page_of(key), end_overlap_page_of(key), {}),
        (rotate_page_of(key), rotate_page_of(key), {"overlap": "0"}),
        (f"{REVOKE}?id={key.pk}", REVOKE, {"id": key.pk}),
    ]
    key.rotate(timedelta(hours=1))
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
    rotator = log_in("view", "rotate", name="rotator")
    revoker = log_in("view", "revoke", name="revoker")
    issuer.post(ADD, filled_in(issuer))
    key = ApiKey.objects.get()
    editor.post(page_of(key), edited(key, rate="1/1m", owner="Ann"))
    rotator.post(rotate_page_of(key), inputs(rotator.get(rotate_page_of(key))) | {"overlap": "1h"})
    rotator.post(end_overlap_page_of(key))
    revoker.post(REVOKE, {"id": key.pk, "reason": "lost"})
    pages = [revoker.get(page_of(key)), revoker.get(history_page_of(key))]
    for page in pages:
        revoked, ended, rotated, *others = events_shown(page)
        assert revoked == ("revoker", "Revoked", "lost")
        assert ended[:2] == ("rotator", "Overlap ended")
        assert rotated[:2] == ("rotator", "Rotated")
        assert others == [("editor", "Edited", "owner, own rate"), ("issuer", "Issued", "")]
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Issued.",
        "Changed Owner and Own rate.",
        "Rotated.",
        "Overlap ended.",
        "Revoked. lost",
    ]


def test_the_name_of_who_did_it_stays_when_the_user_goes(log_in: LogIn, operator: Client) -> None:
    issuer = log_in("add", name="issuer")
    issuer.post(ADD, filled_in(issuer))
    User.objects.get(username="issuer").delete()
    assert events_shown(operator.get(page_of(ApiKey.objects.get()))) == [("issuer", "Issued", "")]


def test_a_long_history_is_cut_on_the_keys_page_and_has_pages_of_its_own(
    operator: Client, issued: Issued
) -> None:
    key = issued[0]
    for count, shown in ((20, 20), (21, 20), (101, 20)):
        while key.events.count() < count:
            key.record_edit(None, ["name"])
        page = operator.get(page_of(key))
        assert len(events_shown(page)) == shown
        assert ("The whole history" in text_of(page)) == (count > shown)
    assert events_shown(page)[0] == ("command line", "Edited", "name")
    whole = operator.get(history_page_of(key))
    assert len(events_shown(whole)) == 100
    assert 'href="?p=2"' in text_of(whole)
    assert events_shown(operator.get(history_page_of(key), {"p": "2"})) == [
        ("command line", "Issued", "")
    ]
    assert len(events_shown(operator.get(history_page_of(key), {"p": "0x"}))) == 100


@pytest.mark.parametrize("permission", ALL)
def test_a_button_is_there_with_its_permission_only(
    log_in: LogIn, issued: Issued, permission: str
) -> None:
    key = issued[0]
    key.rotate(timedelta(hours=1))
    client = log_in("view", permission)
    text = text_of(client.get(page_of(key))) + text_of(client.get(LIST))
    buttons = {
        "change": 'name="_save"',
        "rotate": f'href="{rotate_page_of(key)}"',
        "revoke": f'href="{REVOKE}?id={key.pk}"',
        "add": f'href="{ADD}"',
    }
    assert [name for name, button in buttons.items() if button in text] == [
        name for name in buttons if name == permission
    ]
    assert ('value="revoke_selected"' in text) == (permission == "revoke")
    assert (f'href="{end_overlap_page_of(key)}"' in text) == (permission == "rotate")
    revoked = client.post(REVOKE, {"id": key.pk}).status_code
    assert revoked == (302 if permission == "revoke" else 403)
