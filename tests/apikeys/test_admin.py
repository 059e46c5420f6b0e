"""Keys in the Django admin: issued with one look at the key, edited, revoked, never deleted."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from redis import Redis
from redis.exceptions import ConnectionError as StoreConnectionError

from apikeys import generation, keys
from apikeys.models import ApiKey
from tests.apikeys.conftest import Ask

Issued = tuple[ApiKey, str]
LogIn = Callable[..., Client]

LIST = "/admin/apikeys/apikey/"
ADD = f"{LIST}add/"
REVOKE = f"{LIST}revoke/"
STORE_NOT_TOLD = str(generation.GenerationNotRaised())

pytestmark = pytest.mark.usefixtures("transactional_db")


def page_of(key: ApiKey) -> str:
    return f"{LIST}{key.pk}/change/"


@pytest.fixture
def log_in() -> LogIn:
    """A client of a new member of staff with these permissions on keys."""

    def log_in(*actions: str, name: str = "operator", **options: Any) -> Client:
        user = User.objects.create_user(name, password="password", is_staff=True)
        codenames = [f"{action}_apikey" for action in actions]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client(**options)
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    return log_in("view", "add", "change")


def text_of(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def inputs(answer: Any) -> dict[str, str]:
    """What a browser would send of the text and hidden fields of the page's own form."""
    found = {}
    content = answer.content.decode().partition('<div id="content"')[2]
    for tag in re.findall(r"<input [^>]*>", content):
        fields = dict(re.findall(r'([a-z]+)="([^"]*)"', tag))
        if fields.get("type") in ("text", "hidden") and "name" in fields:
            found[fields["name"]] = html.unescape(fields.get("value", ""))
    return found


def plaintexts(answer: Any) -> set[str]:
    return {match[0] for match in re.finditer(keys.PATTERN, answer.content.decode())}


def filled_in(client: Client, **values: str) -> dict[str, str]:
    """The form for a new key, as a browser sends it."""
    form = inputs(client.get(ADD))
    return {"key_id": form["key_id"], "name": "billing", "environment": "live"} | values


def edited(key: ApiKey, **values: str) -> dict[str, str]:
    unchanged = {"name": key.name, "owner": key.owner, "rate": key.rate}
    return unchanged | {"expires_at_0": "", "expires_at_1": ""} | values


def number() -> int:
    """The generation number; 0 before the first. Asked without the site's short timeout."""
    with Redis.from_url(settings.REDIS_URL) as client:
        return int(client.get(generation.STORE_KEY) or 0)


# Issuing


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
        expires_at_0="2100-01-31",
        expires_at_1="12:30:00",
    )
    answer = operator.post(ADD, form)
    assert answer.status_code == 200
    (plaintext,) = plaintexts(answer)
    assert plaintext.startswith(f"hk_test_{form['key_id']}_")
    key = ApiKey.objects.get()
    assert (key.name, key.owner, key.environment, key.rate) == ("billing", "Ann", "test", "100/1m")
    assert key.expires_at == datetime(2100, 1, 31, 12, 30, tzinfo=UTC)
    assert before <= key.created_at <= timezone.now()
    assert key.created_by == User.objects.get()
    assert ask({"X-API-Key": plaintext}).status_code == 200


def test_the_page_says_how_to_send_the_key_and_that_it_is_shown_once(operator: Client) -> None:
    answer = operator.post(ADD, filled_in(operator))
    (plaintext,) = plaintexts(answer)
    text = text_of(answer)
    assert f'<code class="plaintext">{plaintext}</code>' in text
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
    places += [str(store.dump(name)) for name in store.scan_iter()]
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
        ({"expires_at_0": "2100-01-01", "expires_at_1": ""}, "Enter a valid time."),
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
    typed.pop("environment", None)
    assert {name: kept[name] for name in typed} == typed
    assert kept["key_id"] == form["key_id"]
    assert not ApiKey.objects.exists()
    corrected = operator.post(
        ADD,
        form
        | {"name": "b", "environment": "live"}
        | dict.fromkeys(("rate", "expires_at_0", "expires_at_1"), ""),
    )
    assert len(plaintexts(corrected)) == 1


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


# Editing


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
        ApiKey.objects.record_use(key.pk, datetime(2030, 1, 1, tzinfo=UTC))
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


def out_of_reach() -> Redis:
    raise StoreConnectionError


# Revoking


@pytest.fixture
def two_keys() -> list[Issued]:
    return [ApiKey.objects.issue(name=name) for name in ("first", "second")]


def test_asking_to_revoke_shows_the_keys_and_changes_nothing(
    operator: Client, two_keys: list[Issued]
) -> None:
    ApiKey.objects.record_use(two_keys[0][0].pk, datetime(2030, 5, 17, 8, 0, tzinfo=UTC))
    before = list(ApiKey.objects.values()), number()
    ids = f"{two_keys[0][0].pk}+{two_keys[1][0].pk}"
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert operator.generic(method, f"{REVOKE}?id={ids}&reason=lost").status_code == 200
    text = text_of(operator.get(f"{REVOKE}?id={ids}"))
    for key, _ in two_keys:
        assert key.name in text
        assert key.pk in text
    assert "May 17, 2030, 8 a.m." in text
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


# Who may do what


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


# The list


def ids_listed(client: Client, **query: str) -> set[str]:
    answer = client.get(LIST, query)
    assert answer.status_code == 200
    return set(re.findall(rf'href="{LIST}(\w{{12}})/change/', answer.content.decode()))


@pytest.fixture
def keys_of_each_status() -> dict[str, str]:
    """The id of each."""
    now, day = timezone.now(), timedelta(days=1)
    values: dict[str, dict[str, Any]] = {
        "active": {"owner": "Ann"},
        "expires later": {"expires_at": now + day, "environment": "test"},
        "expired": {"expires_at": now - day},
        "revoked": {"revoked_at": now},
        "revoked and expired": {"expires_at": now - day, "revoked_at": now},
    }
    made = {}
    for name, fields in values.items():
        key = ApiKey.objects.create(name=name, digest="0" * 64, **fields)
        made[name] = key.pk
    return made


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"status": "active"}, {"active", "expires later"}),
        ({"status": "expired"}, {"expired"}),
        ({"status": "revoked"}, {"revoked", "revoked and expired"}),
        ({"environment__exact": "test"}, {"expires later"}),
        ({"status": "active", "environment__exact": "live"}, {"active"}),
        ({"q": "EXPIRE"}, {"expires later", "expired", "revoked and expired"}),
        ({"q": "ann"}, {"active"}),
        ({"q": "nobody"}, set()),
    ],
)
def test_the_list_is_filtered_and_searched(
    operator: Client, keys_of_each_status: dict[str, str], query: dict[str, str], names: set[str]
) -> None:
    assert ids_listed(operator, **query) == {keys_of_each_status[name] for name in names}


def test_a_key_is_found_by_its_id(operator: Client, keys_of_each_status: dict[str, str]) -> None:
    assert len(ids_listed(operator)) == 5
    for key_id in keys_of_each_status.values():
        assert ids_listed(operator, q=key_id) == {key_id}


def test_the_list_shows_each_status(operator: Client, keys_of_each_status: dict[str, str]) -> None:
    shown = re.findall(r'<span class="key-(\w+)">(\w+)</span>', text_of(operator.get(LIST)))
    wanted = ["active", "active", "expired", "revoked", "revoked"]
    assert sorted(value for value, _ in shown) == wanted
    assert all(label == value.capitalize() for value, label in shown)


def test_the_list_takes_as_many_queries_for_fifty_keys_as_for_one(operator: Client) -> None:
    user = User.objects.get()
    counts = []
    for more in (1, 49):
        ApiKey.objects.bulk_create(
            ApiKey(name=str(n), digest="0" * 64, created_by=user) for n in range(more)
        )
        with CaptureQueriesContext(connection) as queries:
            operator.get(LIST)
        counts.append(len(queries))
    assert ApiKey.objects.count() == 50
    assert counts[0] == counts[1]


# Every page


def test_names_are_text_wherever_they_are_shown(operator: Client) -> None:
    evil = "<script>alert(1)</script>"
    pages = [operator.post(ADD, filled_in(operator, name=evil, owner=evil))]
    key = ApiKey.objects.get()
    paths = [LIST, page_of(key), f"{REVOKE}?id={key.pk}", f"{LIST}{key.pk}/history/", "/admin/"]
    pages += [operator.get(path) for path in paths]
    pages.append(operator.post(REVOKE, {"id": key.pk, "reason": evil}, follow=True))
    pages.append(operator.get(page_of(key)))
    for page in pages:
        assert "alert(1)" in page.content.decode()
        assert evil not in page.content.decode()


def test_everything_a_page_loads_comes_from_here_and_is_there(operator: Client) -> None:
    issued_page = operator.post(ADD, filled_in(operator))
    key = ApiKey.objects.get()
    paths = (LIST, ADD, page_of(key), f"{REVOKE}?id={key.pk}")
    for page in (issued_page, *(operator.get(path) for path in paths)):
        text = text_of(page)
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="([^"]+)"', text)
        files = [path.removeprefix("/static/") for path in loaded if path != "/admin/jsi18n/"]
        assert "apikeys/admin.css" in files
        assert [path for path in files if finders.find(path) is None] == []
        assert re.findall(r"<script>|<style|\bstyle=|\bon[a-z]+=", text) == []
