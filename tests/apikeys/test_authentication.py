from __future__ import annotations

import base64
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from redis import Redis
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from apikeys import generation, keys
from apikeys.authentication import (
    ApiKeyAuthentication,
    Credential,
    KeyHolder,
    credentials_in,
)
from apikeys.models import ApiKey
from apikeys.records import KeyRecord
from tests.apikeys.conftest import Ask, Issued
from tests.conftest import CommandsSent

NO_CREDENTIAL = 'Bearer realm="api"'
WRONG_CREDENTIAL = 'Bearer realm="api", error="invalid_token"'
ONE_TRIP = ["EVALSHA", "GET"]


def names_of(commands: list[str]) -> list[str]:
    return [command.split()[0] for command in commands]


# What is a credential


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer {key}"),
        ("Authorization", "bearer {key}"),
        ("Authorization", "BEARER   {key}"),
        ("Authorization", "Api-Key {key}"),
        ("Authorization", "api-key {key}"),
        ("Authorization", "API-KEY {key}"),
        ("X-API-Key", "{key}"),
        ("X-Api-Key", " {key} "),
    ],
)
def test_a_key_is_accepted_in_each_header(ask: Ask, issued: Issued, name: str, value: str) -> None:
    assert ask({name: value.format(key=issued[1])}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {key}", "X-API-Key": "{key}"},
        {"Authorization": "Bearer {key}, Api-Key {key}"},
        {"X-API-Key": "{key}, {key}"},
    ],
)
def test_the_same_key_twice_is_one_key(ask: Ask, issued: Issued, headers: dict[str, str]) -> None:
    sent = {name: value.format(key=issued[1]) for name, value in headers.items()}
    assert ask(sent).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {key}", "X-API-Key": "{other}"},
        {"Authorization": "Bearer {key}, Bearer {other}"},
        {"Authorization": "Api-Key {other}, Bearer {key}"},
        {"X-API-Key": "{other}, {key}"},
        {"Authorization": "Bearer {key}", "X-API-Key": "nonsense"},
    ],
)
def test_two_different_keys_are_a_bad_request(
    ask: Ask, issued: Issued, headers: dict[str, str]
) -> None:
    _, other = ApiKey.objects.issue(name="other")
    answer = ask({k: v.format(key=issued[1], other=other) for k, v in headers.items()})
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Cache-Control"] == "no-store"
    assert answer.json() == {
        "title": "Bad Request",
        "status": 400,
        "detail": "Send one API key; this request has two different ones.",
    }


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, NO_CREDENTIAL),
        ({"Authorization": ""}, NO_CREDENTIAL),
        ({"Authorization": "{key}"}, NO_CREDENTIAL),
        ({"Authorization": "Basic {key}"}, NO_CREDENTIAL),
        ({"Authorization": "Token {key}"}, NO_CREDENTIAL),
        ({"Cookie": "X-API-Key={key}; Authorization=Bearer {key}"}, NO_CREDENTIAL),
        ({"Authorization": "Bearer"}, WRONG_CREDENTIAL),
        ({"Authorization": "Bearer "}, WRONG_CREDENTIAL),
        ({"Authorization": "Bearer Bearer {key}"}, WRONG_CREDENTIAL),
        ({"Authorization": "Bearer {key} "}, None),
        ({"Authorization": "Bearer {key}x"}, WRONG_CREDENTIAL),
        ({"Authorization": 'Bearer "{key}"'}, WRONG_CREDENTIAL),
        ({"X-API-Key": ""}, WRONG_CREDENTIAL),
        ({"X-API-Key": "Bearer {key}"}, WRONG_CREDENTIAL),
        ({"X-API-Key": "\u00e9\u00ff"}, WRONG_CREDENTIAL),
    ],
)
def test_the_challenge_names_an_error_only_when_a_credential_was_sent(
    ask: Ask, issued: Issued, headers: dict[str, str], challenge: str | None
) -> None:
    answer = ask({name: value.format(key=issued[1]) for name, value in headers.items()})
    assert answer.headers.get("WWW-Authenticate") == challenge
    assert answer.status_code == (401 if challenge else 200)


@pytest.mark.parametrize("name", ["key", "api_key", "X-API-Key", "access_token", "Authorization"])
def test_a_key_in_the_query_string_is_no_credential(ask: Ask, issued: Issued, name: str) -> None:
    answer = ask(path=f"/?{name}={issued[1]}")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == NO_CREDENTIAL


# What is a good one


def with_check(environment: str, key_id: str, secret: str) -> str:
    return str(keys.Key(environment, key_id, secret))


def spoiled(plaintext: str, kind: str) -> str:
    """A variant of a live key that must not be accepted."""
    key = keys.parse(plaintext)
    assert key is not None
    another = keys.generate("live", keys.generate_id())
    return {
        "unknown id": with_check("live", another.id, key.secret),
        "wrong secret": with_check("live", key.id, another.secret),
        "wrong environment": with_check("test", key.id, key.secret),
        "wrong check": plaintext[:-1] + ("0" if plaintext[-1] != "0" else "1"),
        "other environment, old check": plaintext.replace("hk_live_", "hk_test_"),
        "no key at all": "nonsense",
        "too long": plaintext * 100,
    }[kind]


SPOILED = [
    *("unknown id", "wrong secret", "wrong environment", "wrong check"),
    *("other environment, old check", "no key at all", "too long"),
]


@pytest.mark.parametrize("kind", SPOILED)
def test_a_credential_that_is_not_quite_a_key_is_refused(
    ask: Ask, issued: Issued, kind: str
) -> None:
    """Before and after the key itself has been seen, and without spoiling it."""
    assert ask({"X-API-Key": spoiled(issued[1], kind)}).status_code == 401
    assert ask({"X-API-Key": issued[1]}).status_code == 200
    assert ask({"X-API-Key": spoiled(issued[1], kind)}).status_code == 401
    assert ask({"X-API-Key": issued[1]}).status_code == 200


def test_a_revoked_key_is_refused_from_the_next_request_on(ask: Ask, issued: Issued) -> None:
    key, plaintext = issued
    assert ask({"X-API-Key": plaintext}).status_code == 200
    key.revoke("lost")
    assert ask({"X-API-Key": plaintext}).status_code == 401


def test_a_key_is_refused_from_the_moment_of_its_expiry_on(
    ask: Ask, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expiry = timezone.now() + timedelta(hours=1)
    _, plaintext = ApiKey.objects.issue(name="tests", expires_at=expiry)
    assert ask({"X-API-Key": plaintext}).status_code == 200
    monkeypatch.setattr(timezone, "now", lambda: expiry - timedelta(microseconds=1))
    assert ask({"X-API-Key": plaintext}).status_code == 200
    monkeypatch.setattr(timezone, "now", lambda: expiry)
    assert ask({"X-API-Key": plaintext}).status_code == 401


def test_a_test_key_is_accepted_as_one(ask: Ask, transactional_db: None) -> None:
    _, plaintext = ApiKey.objects.issue(name="tests", environment="test")
    assert plaintext.startswith("hk_test_")
    assert ask({"X-API-Key": plaintext}).status_code == 200
    assert ask({"X-API-Key": spoiled_environment(plaintext)}).status_code == 401


def spoiled_environment(plaintext: str) -> str:
    key = keys.parse(plaintext)
    assert key is not None
    return with_check("live", key.id, key.secret)


def refusals(ask: Ask, issued: Issued) -> dict[str, Any]:
    """The answer to every kind of credential that is refused."""
    _, revoked = (pair := ApiKey.objects.issue(name="revoked"))
    pair[0].revoke()
    _, expired = ApiKey.objects.issue(name="expired", expires_at=timezone.now())
    sent = {kind: spoiled(issued[1], kind) for kind in SPOILED}
    sent |= {"revoked": revoked, "expired": expired, "empty": ""}
    return {kind: ask({"X-API-Key": credential}) for kind, credential in sent.items()}


def as_seen(answer: Any) -> tuple[int, bytes, frozenset[tuple[str, str]]]:
    """All that a client can tell one answer from another by, but the number of its request."""
    headers = {name: value for name, value in answer.headers.items() if name != "X-Request-ID"}
    return answer.status_code, answer.content, frozenset(headers.items())


def test_one_answer_whatever_was_wrong_with_the_credential(ask: Ask, issued: Issued) -> None:
    answers = refusals(ask, issued)
    assert len(answers) == 10
    assert len({as_seen(answer) for answer in answers.values()}) == 1
    answer = answers["revoked"]
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"] == WRONG_CREDENTIAL
    assert answer["Cache-Control"] == "no-store"
    assert answer.json() == {
        "title": "Unauthorized",
        "status": 401,
        "detail": "A valid API key is required.",
    }
    assert answer.content == ask().content


def test_the_log_says_what_was_wrong_and_never_the_secret(
    ask: Ask, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refusals(ask, issued)
    ask({"X-API-Key": issued[1]})
    key_id = issued[0].pk
    reasons = ["wrong secret", "wrong environment"]
    lines = [each.getMessage() for each in caplog.records if each.name.startswith("apikeys")]
    assert [line for line in lines if key_id in line] == [
        f"Refused key {key_id}: {reason}." for reason in reasons
    ]
    for reason in ("unknown", "revoked", "expired"):
        assert len([line for line in lines if line.endswith(f": {reason}.")]) == 1
    form = "Refused a credential that has not the form of a key."
    assert lines.count(form) == 5
    key = keys.parse(issued[1])
    assert key is not None
    for secret in (key.secret, issued[1][-6:], key.digest):
        assert secret not in caplog.text


# What it costs


def test_an_admitted_request_is_one_round_trip_and_no_sql(
    ask: Ask,
    issued: Issued,
    store: Redis,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    ask({"X-API-Key": issued[1]})
    with commands_sent() as commands, django_assert_num_queries(0):
        assert ask({"X-API-Key": issued[1]}).status_code == 200
    assert names_of(commands) == ONE_TRIP
    before = store.info("stats")["total_reads_processed"]
    assert ask({"X-API-Key": issued[1]}).status_code == 200
    # The second INFO is read from its socket as well.
    assert store.info("stats")["total_reads_processed"] - before == 1 + 1


@pytest.mark.parametrize("kind", ["wrong check", "no key at all", "too long"])
def test_a_credential_of_the_wrong_shape_costs_no_more_than_its_hit(
    ask: Ask,
    issued: Issued,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
    kind: str,
) -> None:
    ask()  # The store has the script from here on.
    with commands_sent() as commands, django_assert_num_queries(0):
        assert ask({"X-API-Key": spoiled(issued[1], kind)}).status_code == 401
    assert names_of(commands) == ONE_TRIP


def test_by_itself_the_class_refuses_a_wrong_shape_without_any_io(
    issued: Issued,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    wrong = spoiled(issued[1], "wrong check")
    with commands_sent() as commands, django_assert_num_queries(0):
        assert get(PlainView, {"X-API-Key": wrong}).status_code == 401
        assert get(PlainView).status_code == 401
    assert commands == []


def test_a_wrong_secret_for_a_key_that_is_known_costs_no_sql(
    ask: Ask, issued: Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    ask({"X-API-Key": issued[1]})
    with django_assert_num_queries(0):
        assert ask({"X-API-Key": spoiled(issued[1], "wrong secret")}).status_code == 401


# On other people's views


class PlainView(APIView):
    """Any DRF view."""

    authentication_classes: list[type[BaseAuthentication]] = [ApiKeyAuthentication]
    permission_classes = [IsAuthenticated]
    throttle_classes = []

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user), "auth": type(request.auth).__name__})


class KeyThenBasicView(PlainView):
    authentication_classes = [ApiKeyAuthentication, BasicAuthentication]


class BasicThenKeyView(PlainView):
    authentication_classes = [BasicAuthentication, ApiKeyAuthentication]


def get(view: type[APIView], headers: dict[str, str] | None = None) -> Any:
    return view.as_view()(APIRequestFactory().get("/", headers=headers or {})).render()


def test_it_works_on_any_drf_view_and_reads_the_generation_number_itself(
    issued: Issued,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    key, plaintext = issued
    with django_assert_num_queries(1):
        answer = get(PlainView, {"X-API-Key": plaintext})
    assert answer.status_code == 200
    assert answer.data == {"user": f"tests ({key.pk})", "auth": "KeyRecord"}
    with commands_sent() as commands, django_assert_num_queries(0):
        assert get(PlainView, {"Authorization": f"Bearer {plaintext}"}).status_code == 200
    assert commands == [f"GET {generation.STORE_KEY}"]
    key.revoke()
    refused = get(PlainView, {"X-API-Key": plaintext})
    assert refused.status_code == 401
    assert refused["WWW-Authenticate"] == WRONG_CREDENTIAL
    assert get(PlainView)["WWW-Authenticate"] == NO_CREDENTIAL


@pytest.mark.parametrize("view", [KeyThenBasicView, BasicThenKeyView])
def test_another_authentication_class_may_stand_beside_it(
    issued: Issued, view: type[APIView]
) -> None:
    User.objects.create_user("ann", password="open sesame")
    login = base64.b64encode(b"ann:open sesame").decode()
    basic = get(view, {"Authorization": f"Basic {login}"})
    assert (basic.status_code, basic.data["user"]) == (200, "ann")
    by_key = get(view, {"Authorization": f"Api-Key {issued[1]}"})
    assert (by_key.status_code, by_key.data["auth"]) == (200, "KeyRecord")
    assert get(view, {"Authorization": "Basic bm9ib2R5Ong="}).status_code == 401
    assert get(view, {"X-API-Key": "nonsense"}).status_code == 401


def test_it_gives_the_holder_and_the_record(issued: Issued) -> None:
    key, plaintext = issued
    request = APIView().initialize_request(APIRequestFactory().get("/"))
    request.META["HTTP_X_API_KEY"] = plaintext
    authenticated = ApiKeyAuthentication().authenticate(request)
    assert authenticated is not None
    holder, record = authenticated
    assert holder == KeyHolder(key.pk, "tests")
    assert (holder.is_authenticated, holder.is_anonymous, holder.is_active) == (True, False, True)
    assert isinstance(record, KeyRecord)
    assert (record.key_id, record.name, record.digest) == (key.pk, "tests", key.digest)


def test_what_was_sent_is_found_with_its_scheme_and_never_shown() -> None:
    request = APIRequestFactory().get("/")
    request.META["HTTP_AUTHORIZATION"] = "BEARER  one, Basic two, api-KEY three"
    request.META["HTTP_X_API_KEY"] = "four, five"
    found = credentials_in(request)
    assert found == [
        Credential("bearer", "one"),
        Credential("api-key", "three"),
        Credential("x-api-key", "four"),
        Credential("x-api-key", "five"),
    ]
    assert repr(found[0]) == "Credential(scheme='bearer')"


class TellingAuthentication(ApiKeyAuthentication):
    """Takes whatever it is given, for a key of the scheme's name."""

    def record_of(self, request: Request, credential: Credential) -> KeyRecord:
        return KeyRecord(credential.scheme, "tests", "live", "", "", "", None, None)


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ({"X-API-Key": "a", "Authorization": "Bearer a"}, "bearer"),
        ({"X-API-Key": "a", "Authorization": "Api-Key a, Bearer a"}, "bearer"),
        ({"X-API-Key": "a", "Authorization": "Api-Key a"}, "api-key"),
        ({"X-API-Key": "a, a"}, "x-api-key"),
    ],
)
def test_of_one_text_sent_twice_the_one_sent_as_bearer_counts(
    headers: dict[str, str], scheme: str
) -> None:
    request = APIView().initialize_request(APIRequestFactory().get("/", headers=headers))
    authenticated = TellingAuthentication().authenticate(request)
    assert authenticated is not None
    assert authenticated[1].key_id == scheme


def test_without_a_credential_it_leaves_the_request_to_the_next_class() -> None:
    request = APIView().initialize_request(APIRequestFactory().get("/"))
    assert ApiKeyAuthentication().authenticate(request) is None
    request.META["HTTP_X_API_KEY"] = "nonsense"
    with pytest.raises(APIException):
        ApiKeyAuthentication().authenticate(request)
