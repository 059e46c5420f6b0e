"""Finding a key in the admin, also by the key itself, of which nothing but its id is kept."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.sessions.models import Session
from django.test import Client

from apikeys import keys, pasted
from apikeys.models import ApiKey
from tests.apikeys.admin_pages import ADD, FIND, LIST, edited, inputs, page_of, plaintexts, text_of
from tests.apikeys.conftest import Issued, LogIn
from tests.apikeys.test_admin_list import ids_listed

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.mark.parametrize(
    "around", ["{}", "  {}\t", "Authorization: Bearer {}", "X-API-Key: {}", "'{}',", "{} {}"]
)
def test_a_whole_key_finds_itself_and_is_in_no_url(
    operator: Client, issued: Issued, caplog: pytest.LogCaptureFixture, around: str
) -> None:
    caplog.set_level("DEBUG")
    ApiKey.objects.issue(name="another")
    key, plaintext = issued
    answer = operator.post(FIND, {"q": around.format(plaintext, plaintext), "filters": ""})
    assert (answer.status_code, answer["Location"]) == (302, f"{LIST}?q={key.pk}")
    assert ids_listed(operator, q=key.pk) == {key.pk}
    secret = plaintext.split("_")[3]
    followed = operator.get(answer["Location"])
    sessions = str([session.get_decoded() for session in Session.objects.all()])
    for place in (answer, followed):
        assert secret not in place.content.decode() + str(place.headers) + str(place.cookies)
    assert secret not in caplog.text + sessions


def test_a_key_that_is_mistyped_unknown_or_cut_short_is_looked_for_by_its_id(
    operator: Client, issued: Issued
) -> None:
    plaintext = issued[1]
    unknown = str(keys.generate("test", "abcdefghijkl"))
    for text in (unknown, unknown[:-1] + "!", unknown[:-20], unknown + "x", unknown[:21] + "…"):
        assert operator.post(FIND, {"q": text})["Location"] == f"{LIST}?q=abcdefghijkl"
    mistyped = plaintext[:-1] + ("a" if plaintext[-1] != "a" else "b")
    assert operator.post(FIND, {"q": mistyped})["Location"] == f"{LIST}?q={issued[0].pk}"


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_secret_without_a_readable_id_is_not_looked_for(
    operator: Client, issued: Issued, method: str
) -> None:
    plaintext = issued[1]
    secret = plaintext.split("_")[3]
    for text in (secret, f"hk_live_abc_{secret}", plaintext.replace("_", ""), f"Used0000.{secret}"):
        answer = getattr(operator, method)(FIND if method == "post" else LIST, {"q": text})
        assert (answer.status_code, answer["Location"]) == (302, LIST)
        page = text_of(operator.get(LIST))
        assert "no key id can be read in it" in page
        assert secret not in page


def test_a_key_in_the_lists_own_url_leaves_it_at_once(operator: Client, issued: Issued) -> None:
    key, plaintext = issued
    query = {"q": plaintext, "status": "active", "p": "2"}
    answer = operator.get(LIST, query)
    assert (answer.status_code, answer["Location"]) == (302, f"{LIST}?status=active&q={key.pk}")
    assert plaintext not in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]


def test_words_are_looked_for_as_they_are(operator: Client) -> None:
    for text in ("Ann", "ann & bob", "hk_", "a-long-name-of-a-service-in-production", "é"):
        answer = operator.post(FIND, {"q": f" {text} "})
        assert parse_qs(urlsplit(answer["Location"]).query) == {"q": [text]}
    assert operator.post(FIND, {"q": "  "})["Location"] == LIST
    assert operator.post(FIND)["Location"] == LIST
    assert len(operator.post(FIND, {"q": "word " * 10_000})["Location"]) < 1000


def test_a_search_keeps_the_filters_and_begins_on_the_first_page(
    operator: Client, issued: Issued
) -> None:
    page = operator.get(LIST, {"status": "active", "use": "never", "o": "-1", "q": "x"})
    form = inputs(page)
    answer = operator.post(FIND, form | {"q": issued[1], "filters": form["filters"] + "&p=3"})
    query = parse_qs(urlsplit(answer["Location"]).query)
    assert query == {"status": ["active"], "use": ["never"], "o": ["-1"], "q": [issued[0].pk]}
    assert answer["Location"].startswith(f"{LIST}?")


def test_who_may_not_see_keys_cannot_look_for_one(log_in: LogIn, issued: Issued) -> None:
    client = log_in("add")
    assert client.post(FIND, {"q": issued[1]}).status_code == 403
    assert client.get(LIST, {"q": issued[1]}).status_code == 403


def test_a_get_of_the_search_is_the_list(operator: Client) -> None:
    assert operator.get(FIND, {"q": "x"})["Location"] == LIST


def test_a_key_written_where_words_belong_loses_its_secret(
    operator: Client, issued: Issued
) -> None:
    key, plaintext = issued
    answer = operator.post(page_of(key), edited(key, name=f"as {plaintext}", owner=plaintext))
    assert answer.status_code == 302
    key.refresh_from_db()
    assert (key.name, key.owner) == (f"as hk_live_{key.pk}_…", f"hk_live_{key.pk}_…")
    assert plaintexts(operator.get(page_of(key))) == set()


def test_what_is_public_of_a_key_stays() -> None:
    for text in ("hk_live_abcdefghijkl", "see abcdefghijkl", "hk_live_short_abc", ""):
        assert pasted.without_secrets(text) == text


def test_the_form_to_issue_is_not_a_place_to_search(operator: Client) -> None:
    assert 'role="search"' not in text_of(operator.get(ADD))
