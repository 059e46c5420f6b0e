from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import OperationalError, connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from apikeys import generation, keys, tokens
from apikeys.authentication import InvalidKey
from apikeys.last_used import last_used
from apikeys.models import ApiKey
from drf_api_keys import hashes
from drf_api_keys.authentication import ImportedKeyAuthentication
from drf_api_keys.models import NO_SECRET, ImportedKey
from drf_api_keys.slow_hashes import CheckedLater, SlowHashes, slow_hashes
from tests.apikeys.conftest import Ask, Issued
from tests.conftest import CommandsSent
from tests.drf_api_keys.conftest import header, prefix_of

KEY = "AbCdEfG1.0123456789abcdefghijABCDEFGHIJkl"
WRONG = "AbCdEfG1.0123456789abcdefghijABCDEFGHIJkm"
UNKNOWN = "ZbCdEfG1.0123456789abcdefghijABCDEFGHIJkl"
FORM = "Refused a credential that has not the form of a key."

pytestmark = pytest.mark.django_db(transaction=True)


def import_one(key: str = KEY, /, hashed_key: str | None = None, **fields: Any) -> ApiKey:
    """As the command does, with these fields of the ApiKey."""
    api_key = ApiKey(name="billing", digest=NO_SECRET, **fields)
    api_key.save(force_insert=True)
    ImportedKey.objects.create(
        key=api_key,
        prefix=prefix_of(key),
        hashed_key=hashed_key or hashes.fast_hash(key),
        table="rest_framework_api_key_apikey",
    )
    return api_key


def slow_hash(key: str = KEY, iterations: int = 1) -> str:
    return PBKDF2PasswordHasher().encode(key, "salt", iterations)


# Who is admitted


def test_an_old_key_is_the_api_key_that_it_was_imported_as(ask: Ask) -> None:
    key = import_one()
    for sent in (header(KEY), {"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
        assert ask(sent).status_code == 200
    last_used.flush()
    key.refresh_from_db()
    assert key.last_used_at is not None
    request = APIView().initialize_request(APIRequestFactory().get("/", headers=header(KEY)))
    authenticated = ImportedKeyAuthentication().authenticate(request)
    assert authenticated is not None
    holder, record = authenticated
    assert (holder.pk, holder.name, record.key_id) == (key.pk, "billing", key.pk)
    assert request.META["apikeys.key_id"] == key.pk


def test_a_native_key_is_taken_as_ever(ask: Ask, issued: Issued) -> None:
    import_one()
    assert ask({"X-API-Key": issued[1]}).status_code == 200
    token = ask({"X-API-Key": issued[1]}, "/get-auth-token").json()["access_token"]
    assert ask({"Authorization": f"Bearer {token}"}).status_code == 200
    issued[0].revoke()
    assert ask({"X-API-Key": issued[1]}).status_code == 401
    assert ask({"Authorization": f"Bearer {token}"}).status_code == 401


def test_its_api_key_has_no_secret_of_its_own(ask: Ask) -> None:
    key = import_one()
    for secret in ("", NO_SECRET, KEY, "0" * keys.SECRET_LENGTH):
        assert ask({"X-API-Key": str(keys.Key("live", key.pk, secret))}).status_code == 401


@pytest.mark.parametrize(
    "sent",
    [
        {"Authorization": f"Api-Key {KEY}", "X-API-Key": UNKNOWN},
        {"Authorization": f"Api-Key {KEY}, Bearer {WRONG}"},
        {"Authorization": f"Api-Key {KEY}", "X-API-Key": "{native}"},
    ],
)
def test_two_different_keys_are_a_bad_request(
    ask: Ask, issued: Issued, sent: dict[str, str]
) -> None:
    import_one()
    assert ask({k: v.format(native=issued[1]) for k, v in sent.items()}).status_code == 400


def test_one_answer_whatever_was_wrong(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = timezone.now()
    refused = {"unknown": UNKNOWN, "wrong old secret": WRONG, "no form": KEY + "x"}
    import_one()
    for number, column in enumerate(("revoked_at", "expires_at")):
        refused[column] = f"{number}{KEY[1:]}"
        import_one(refused[column], None, **{column: now})
    answers = {ask(header(key)).content for key in refused.values()}
    assert answers == {ask().content}
    assert {ask(header(key)).status_code for key in refused.values()} == {401}
    reasons = [line for line in caplog.messages if line.startswith("Refused old key ")]
    found = [line.rpartition(": ")[2] for line in reasons]
    assert found == ["unknown.", "wrong old secret.", "revoked.", "expired."] * 2
    assert caplog.messages.count(FORM) == 2
    for secret in (KEY[9:], WRONG[9:], hashes.fast_hash(KEY)):
        assert secret not in caplog.text


def test_revoked_here_it_is_refused_from_the_next_request_on(ask: Ask) -> None:
    key = import_one()
    assert ask(header(KEY)).status_code == 200
    key.revoke("left")
    assert ask(header(KEY)).status_code == 401


def test_it_is_refused_from_the_moment_of_its_expiry_on(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    expiry = timezone.now() + timedelta(hours=1)
    import_one(expires_at=expiry)
    assert ask(header(KEY)).status_code == 200
    monkeypatch.setattr(timezone, "now", lambda: expiry)
    assert ask(header(KEY)).status_code == 401


def test_it_has_the_networks_and_the_rate_that_operators_give_it(ask: Ask) -> None:
    key = import_one(rate="2/10s")
    answers = [ask(header(KEY)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["violated-policies"] == ["key"]
    key.rate, key.networks = "", "192.0.2.0/24"
    key.save()
    assert ask(header(KEY)).status_code == 403


def test_guesses_are_limited_like_any_other_request(api: Any) -> None:
    import_one()
    answers = [api.get("/", headers=header(WRONG), REMOTE_ADDR="192.0.2.1") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]


@pytest.mark.parametrize("way", ["one", "many"])
def test_what_is_imported_no_longer_is_refused_from_the_next_request_on(ask: Ask, way: str) -> None:
    import_one()
    assert ask(header(KEY)).status_code == 200
    if way == "one":
        ImportedKey.objects.get().delete()
    else:
        ImportedKey.objects.all().delete()
    assert ask(header(KEY)).status_code == 401


def test_an_old_key_works_beside_the_new_secret_until_the_overlap_ends(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = import_one()
    new = key.rotate(timedelta(hours=1))
    until = key.previous_until
    assert until is not None

    def statuses(now: datetime) -> list[int]:
        monkeypatch.setattr(timezone, "now", lambda: now)
        return [ask(sent).status_code for sent in (header(KEY), {"X-API-Key": new})]

    assert statuses(until - timedelta(microseconds=1)) == [200, 200]
    assert statuses(until) == [401, 200]


def test_what_an_old_key_buys_ends_with_the_overlap() -> None:
    """In a project that sells tokens for old keys; this site does not."""
    key = import_one()
    key.rotate(timedelta(seconds=100))
    request = APIView().initialize_request(APIRequestFactory().get("/", headers=header(KEY)))
    authenticated = ImportedKeyAuthentication().authenticate(request)
    assert authenticated is not None
    token, seconds = tokens.issue(authenticated[1], timezone.now())
    assert seconds in (98, 99)
    with_token = APIRequestFactory().get("/", headers={"Authorization": f"Bearer {token}"})
    assert ImportedKeyAuthentication().authenticate(APIView().initialize_request(with_token))
    key.end_overlap()
    with_token = APIRequestFactory().get("/", headers={"Authorization": f"Bearer {token}"})
    with pytest.raises(InvalidKey):
        ImportedKeyAuthentication().authenticate(APIView().initialize_request(with_token))


def test_an_old_key_ends_when_its_api_key_gets_a_secret_of_its_own(ask: Ask) -> None:
    key = import_one()
    assert ask(header(KEY)).status_code == 200
    plaintext = key.rotate(timedelta())
    assert ask({"X-API-Key": plaintext}).status_code == 200
    assert ask(header(KEY)).status_code == 401


# Headers and forms of one's own


@pytest.mark.parametrize("custom", ["HTTP_OLD_KEY", "HTTP_X_API_KEY"])
def test_the_old_header_is_read_too(ask: Ask, settings: Settings, custom: str) -> None:
    settings.API_KEY_CUSTOM_HEADER = custom
    import_one()
    name = custom.removeprefix("HTTP_").replace("_", "-")
    assert ask({name: KEY}).status_code == 200
    assert ask(header(KEY)).status_code == 200
    assert ask({name: KEY, "X-API-Key": KEY}).status_code == 200
    assert ask({name: KEY, "Authorization": f"Bearer {UNKNOWN}"}).status_code == 400
    for wrong in (UNKNOWN, ""):
        refused = ask({name: wrong})
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused["WWW-Authenticate"]
    assert 'error="invalid_token"' not in ask()["WWW-Authenticate"]


def test_an_old_header_beside_ours_with_another_key_is_a_bad_request(
    ask: Ask, settings: Settings, issued: Issued
) -> None:
    settings.API_KEY_CUSTOM_HEADER = "HTTP_OLD_KEY"
    import_one()
    assert ask({"Old-Key": KEY, "X-API-Key": issued[1]}).status_code == 400


class WithOwnGenerator(ImportedKeyAuthentication):
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"[0-9A-Za-z]{4}\.[0-9A-Za-z]{64}")


class PlainView(APIView):
    authentication_classes = [WithOwnGenerator]
    permission_classes = [IsAuthenticated]
    throttle_classes = []

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user)})


def test_keys_of_a_generator_of_ones_own_have_a_pattern_of_their_own() -> None:
    own = "AbCd." + "s" * 64
    key = import_one(own)
    request = APIRequestFactory().get("/", headers=header(own))
    answer = PlainView.as_view()(request)
    assert (answer.status_code, answer.data) == (200, {"user": f"billing ({key.pk})"})


# What it costs


def test_in_the_steady_state_it_costs_one_round_trip_and_no_sql(
    ask: Ask, commands_sent: CommandsSent, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    import_one()
    assert ask(header(KEY)).status_code == 200
    for sent, status in ((KEY, 200), (WRONG, 401)):
        with commands_sent() as commands, django_assert_num_queries(0):
            assert ask(header(sent)).status_code == status
        assert [command.split()[0] for command in commands] == ["EVALSHA", "GET"]


@pytest.mark.parametrize("sent", [KEY[:-1], KEY + "x", KEY.replace(".", ""), f"{KEY}.x", "a.b"])
def test_a_wrong_form_costs_no_io(
    commands_sent: CommandsSent, django_assert_num_queries: DjangoAssertNumQueries, sent: str
) -> None:
    import_one()
    request = APIView().initialize_request(APIRequestFactory().get("/", headers=header(sent)))
    with (
        commands_sent() as commands,
        django_assert_num_queries(0),
        pytest.raises(Exception, match="not valid"),
    ):
        ImportedKeyAuthentication().authenticate(request)
    assert commands == []


def test_what_is_unknown_is_not_kept(ask: Ask) -> None:
    """So a key works as soon as it is imported, and guesses fill no memory."""
    assert ask(header(KEY)).status_code == 401
    key = ApiKey(name="billing", digest=NO_SECRET)
    ApiKey.objects.bulk_create([key])
    number = generation.read()
    ImportedKey.objects.create(key=key, prefix=prefix_of(KEY), hashed_key=hashes.fast_hash(KEY))
    assert ask(header(KEY)).status_code == 200
    assert generation.read() == number


def test_without_the_store_it_asks_the_database(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    import_one()
    request = APIRequestFactory().get("/", headers=header(KEY))
    request.META[generation.META_NAME] = None
    for _ in range(2):
        with django_assert_num_queries(2):
            found = ImportedKeyAuthentication().authenticate(APIView().initialize_request(request))
        assert found is not None


# Slow hashes


def test_a_slow_hash_is_replaced_at_the_first_use(ask: Ask) -> None:
    import_one(hashed_key=slow_hash())
    assert ask(header(KEY)).status_code == 200
    assert ImportedKey.objects.get().hashed_key == hashes.fast_hash(KEY)
    assert ask(header(KEY)).status_code == 200
    assert ask(header(WRONG)).status_code == 401


def test_wrong_guesses_at_slow_hashes_take_a_tenth_of_the_time() -> None:
    moments = iter([0.0, 2.0, 3.0, 19.75, 20.0, 25.0, 25.0, 26.0])
    checks = SlowHashes(lambda: next(moments))
    hashed_key = slow_hash()
    assert not checks.matches(hashed_key, WRONG)  # Took 2 s: rests for 18.
    waits = []
    for _ in range(2):
        with pytest.raises(CheckedLater) as later:
            checks.matches(hashed_key, KEY)
        waits.append(later.value.wait)
    assert waits == [17, 1]
    assert checks.matches(hashed_key, KEY)  # No rest after this.
    assert not checks.matches(hashed_key, WRONG)


def test_while_it_rests_other_keys_are_taken(ask: Ask, issued: Issued) -> None:
    import_one(hashed_key=slow_hash(iterations=1_000_000))
    fast = f"b{KEY[1:]}"
    import_one(fast)
    assert ask(header(WRONG)).status_code == 401
    later = ask(header(KEY))
    assert later.status_code == 503
    assert 1 <= int(later["Retry-After"]) <= 30
    assert later["Content-Type"] == "application/problem+json"
    assert later.json()["detail"] == (
        "This key cannot be checked at this moment. Try again in a few seconds."
    )
    assert ask(header(fast)).status_code == 200
    assert ask({"X-API-Key": issued[1]}).status_code == 200
    assert ask(header(UNKNOWN)).status_code == 401
    slow_hashes.clear()
    assert ask(header(KEY)).status_code == 200


def test_of_a_revoked_key_no_slow_hash_is_checked(ask: Ask) -> None:
    import_one(hashed_key="pbkdf2_sha256$not even well formed", revoked_at=timezone.now())
    assert ask(header(KEY)).status_code == 401


def test_a_hash_that_cannot_be_checked_any_more_is_refused_and_logged(
    ask: Ask, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    hashed_key = slow_hash()
    key = import_one(hashed_key=hashed_key)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    assert ask(header(KEY)).status_code == 401
    assert f"The hash of key {key.pk} cannot be checked: see PASSWORD_HASHERS." in caplog.messages
    assert hashed_key not in caplog.text


@contextmanager
def unwritable() -> Iterator[None]:
    """As a database is that takes no changes."""

    def refuse(execute: Any, sql: str, *others: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise OperationalError("read-only")
        return execute(sql, *others)

    with connection.execute_wrapper(refuse):
        yield


def test_a_slow_hash_that_cannot_be_replaced_is_good_all_the_same(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    key = import_one(hashed_key=slow_hash())
    with unwritable():
        assert ask(header(KEY)).status_code == 200
    assert f"The slow hash of key {key.pk} could not be replaced." in caplog.messages
    assert not ImportedKey.objects.get().is_fast
    assert ask(header(KEY)).status_code == 200
    assert ImportedKey.objects.get().is_fast
