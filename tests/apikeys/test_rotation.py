"""Rotation: a new secret, and the old one until a deadline."""

from __future__ import annotations

import http.client
import io
import marshal
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from redis import Redis
from rest_framework.test import APIClient

from apikeys import keys
from apikeys.models import ApiKey, KeyEvent, KeyNotUsable
from apikeys.records import RecordCache, _packed, load
from tests.apikeys.conftest import Ask, Issued
from tests.servers import Server, kept_by

HOUR = timedelta(hours=1)
SoonAfter = Callable[[datetime], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SoonAfter:
    return lambda moment: monkeypatch.setattr(timezone, "now", lambda: moment)


def status(ask: Ask, plaintext: str) -> int:
    return int(ask({"X-API-Key": plaintext}).status_code)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_both_secrets_work_until_the_deadline_to_the_microsecond(
    ask: Ask, issued: Issued, clock: SoonAfter
) -> None:
    key, old = issued
    new = key.rotate(HOUR)
    until = key.previous_until
    assert until is not None
    assert (status(ask, old), status(ask, new)) == (200, 200)
    clock(until - timedelta(microseconds=1))
    assert (status(ask, old), status(ask, new)) == (200, 200)
    clock(until)
    assert (status(ask, old), status(ask, new)) == (401, 200)


def test_without_an_overlap_the_old_secret_is_refused_at_the_next_request(
    ask: Ask, issued: Issued
) -> None:
    key, old = issued
    assert status(ask, old) == 200
    new = key.rotate(timedelta())
    assert (status(ask, old), status(ask, new)) == (401, 200)
    assert key.previous_digest == ""


def test_a_key_keeps_its_id_name_and_environment(issued: Issued) -> None:
    key, old = issued
    before, after = keys.parse(old), keys.parse(key.rotate(HOUR))
    assert before is not None
    assert after is not None
    assert (after.id, after.environment) == (before.id, before.environment)
    assert after.secret != before.secret


def test_there_is_one_secret_before_an_older_one_ends(ask: Ask, issued: Issued) -> None:
    key, first = issued
    second = key.rotate(HOUR)
    third = key.rotate(HOUR)
    assert [status(ask, each) for each in (first, second, third)] == [401, 200, 200]


def test_an_overlap_can_be_ended(ask: Ask, issued: Issued) -> None:
    key, old = issued
    new = key.rotate(HOUR)
    assert status(ask, old) == 200
    assert key.end_overlap()
    assert not key.end_overlap()
    assert (status(ask, old), status(ask, new)) == (401, 200)


def test_saving_an_older_copy_undoes_no_rotation(ask: Ask, issued: Issued) -> None:
    key, old = issued
    copy = ApiKey.objects.get()
    new = key.rotate(timedelta())
    copy.name = "renamed"
    copy.save()
    assert ApiKey.objects.get().name == "renamed"
    assert (status(ask, old), status(ask, new)) == (401, 200)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_key_that_is_good_no_longer_is_not_rotated(issued: Issued, end: str) -> None:
    key, _ = issued
    if end == "revoked":
        key.revoke()
    else:
        ApiKey.objects.update(expires_at=timezone.now())
    with pytest.raises(KeyNotUsable, match=end):
        key.rotate(HOUR)
    assert ApiKey.objects.get().digest == key.digest


def test_revoking_ends_both_secrets(ask: Ask, issued: Issued) -> None:
    key, old = issued
    new = key.rotate(HOUR)
    key.revoke()
    assert (status(ask, old), status(ask, new)) == (401, 401)
    assert not ApiKey.objects.get().is_overlapping


def test_the_old_secret_lasts_no_longer_than_the_key(
    ask: Ask, issued: Issued, clock: SoonAfter
) -> None:
    key, old = issued
    expiry = timezone.now() + timedelta(minutes=1)
    ApiKey.objects.update(expires_at=expiry)
    new = key.rotate(HOUR)
    clock(expiry)
    assert (status(ask, old), status(ask, new)) == (401, 401)


# Tokens


def token_for(api: APIClient, plaintext: str) -> tuple[str, int]:
    answer = api.get("/get-auth-token", headers={"X-API-Key": plaintext}).json()
    return answer["access_token"], answer["expires_in"]


def test_a_token_dies_with_the_secret_that_bought_it(
    ask: Ask, api: APIClient, issued: Issued, clock: SoonAfter
) -> None:
    key, old = issued
    by_old, _ = token_for(api, old)
    new = key.rotate(HOUR)
    by_new, _ = token_for(api, new)
    assert [ask(bearer(token)).status_code for token in (by_old, by_new)] == [200, 200]
    key.end_overlap()
    assert [ask(bearer(token)).status_code for token in (by_old, by_new)] == [401, 200]


def test_a_token_from_before_a_rotation_dies_at_the_deadline_to_the_microsecond(
    ask: Ask, api: APIClient, issued: Issued, clock: SoonAfter
) -> None:
    key, old = issued
    token, seconds = token_for(api, old)
    assert seconds == 300
    key.rotate(timedelta(seconds=100))
    until = key.previous_until
    assert until is not None
    clock(until - timedelta(microseconds=1))
    assert ask(bearer(token)).status_code == 200
    clock(until)
    assert ask(bearer(token)).status_code == 401


def test_rotated_now_a_token_of_the_old_secret_is_refused_at_the_next_request(
    ask: Ask, api: APIClient, issued: Issued
) -> None:
    key, old = issued
    token, _ = token_for(api, old)
    assert ask(bearer(token)).status_code == 200
    key.rotate(timedelta())
    assert ask(bearer(token)).status_code == 401


def test_a_token_that_the_old_secret_buys_ends_with_the_overlap(
    api: APIClient, issued: Issued
) -> None:
    key, old = issued
    new = key.rotate(timedelta(seconds=100))
    assert token_for(api, old)[1] in (98, 99)
    assert token_for(api, new)[1] == 300


# What a process remembers


def test_the_copy_of_a_record_has_its_secret_before(issued: Issued) -> None:
    key, _ = issued
    key.rotate(HOUR)
    ApiKey.objects.update(networks="192.0.2.0/24")
    cache = RecordCache(10)
    loaded = cache.find(key.pk, 1)
    assert cache.find(key.pk, 1) == loaded == load(key.pk)
    assert loaded is not None
    assert loaded.previous_until == key.previous_until
    assert loaded.networks == "192.0.2.0/24"


def test_a_key_without_a_secret_before_takes_no_byte_more_in_memory(issued: Issued) -> None:
    """Than in the version that knew of none."""
    key, _ = issued
    for networks in ("", "192.0.2.0/24"):
        ApiKey.objects.update(networks=networks)
        record = load(key.pk)
        assert record is not None
        digest = bytes.fromhex(key.digest)
        fields = "tests", "live", digest, "", None, None, *filter(None, [networks])
        assert len(_packed(record)) == len(marshal.dumps(fields))


def test_a_key_that_overlaps_costs_no_more_than_any(
    ask: Ask, issued: Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    key, old = issued
    new = key.rotate(HOUR)
    assert status(ask, old) == 200
    with django_assert_num_queries(0):
        assert (status(ask, old), status(ask, new)) == (200, 200)


def test_every_process_hears_of_a_rotation_at_the_next_request(
    server: Server, issued: Issued
) -> None:
    def statuses(plaintext: str, first: int) -> set[int]:
        found = set()
        for number in range(first, first + 20):
            client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            headers = {"X-API-Key": plaintext, "X-Forwarded-For": f"198.51.100.{number}"}
            client.request("GET", "/", headers=headers)
            found.add(client.getresponse().status)
            client.close()
        return found

    key, old = issued
    assert statuses(old, 1) == {200}
    new = key.rotate(HOUR)
    assert (statuses(old, 21), statuses(new, 41)) == ({200}, {200})
    newest = key.rotate(timedelta())
    assert [statuses(each, 61 + 20 * n) for n, each in enumerate((old, new, newest))] == [
        {401},
        {401},
        {200},
    ]


# The plaintext


def test_the_plaintext_is_kept_nowhere(
    issued: Issued, store: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    key, old = issued
    new = key.rotate(HOUR)
    kept = repr(list(ApiKey.objects.values())) + repr(list(KeyEvent.objects.values()))
    kept += caplog.text + "".join(kept_by(store))
    for plaintext in (old, new):
        parsed = keys.parse(plaintext)
        assert parsed is not None
        assert parsed.secret not in kept


# History


def test_history_says_who_did_what(issued: Issued, django_user_model: type) -> None:
    key, _ = issued
    ann = django_user_model.objects.create_user("ann")  # type: ignore[attr-defined]
    key.rotate(HOUR, by=ann)
    key.end_overlap(by=ann)
    key.record_edit(ann, ["name", "expires_at"])
    key.revoke("leaked", by=ann)
    key.revoke("again", by=ann)
    ann.delete()
    events = [(event.action, event.by_name, event.detail) for event in key.events.all()]
    assert events[::-1] == [
        ("issued", "command line", ""),
        ("rotated", "ann", events[3][2]),
        ("overlap ended", "ann", ""),
        ("edited", "ann", "name, expires at"),
        ("revoked", "ann", "leaked"),
    ]
    assert events[3][2].startswith("The old secret works until ")


def test_many_are_revoked_by_few_statements(
    transactional_db: None, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    ApiKey.objects.bulk_create(
        ApiKey(name=str(number), digest=f"{number:064}") for number in range(3000)
    )
    ids = list(ApiKey.objects.values_list("pk", flat=True))
    ApiKey.objects.revoke(ids[:1], "earlier")
    with django_assert_max_num_queries(40):
        assert set(ApiKey.objects.revoke(ids, "leaked")) == set(ids[1:])
    assert ApiKey.objects.filter(revoked_reason="leaked").count() == 2999
    assert KeyEvent.objects.filter(action="revoked").count() == 3000


# The command


def run(*arguments: str) -> tuple[str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


def test_rotate_key_prints_the_key_alone_and_overlaps_for_a_day(ask: Ask, issued: Issued) -> None:
    key, old = issued
    stdout, stderr = run("rotate_key", key.pk)
    assert (status(ask, old), status(ask, stdout.strip())) == (200, 200)
    key.refresh_from_db()
    assert key.previous_until is not None
    left = key.previous_until - timezone.now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    assert f"works until {key.previous_until:%Y-%m-%d %H:%M:%S}" in stderr
    assert stdout.strip() not in stderr


@pytest.mark.parametrize("now", ["now", "0"])
def test_rotate_key_now_takes_the_whole_key_too(ask: Ask, issued: Issued, now: str) -> None:
    old = issued[1]
    stdout, stderr = run("rotate_key", old, "--overlap", now)
    assert (status(ask, old), status(ask, stdout.strip())) == (401, 200)
    assert "works no longer" in stderr
    assert old not in stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["abcdefghijkl"], "There is no key abcdefghijkl."),
        (["nonsense"], "That is no key or id."),
        (["{id}", "--overlap", "soon"], "--overlap: 'soon' is not a duration"),
    ],
)
def test_rotate_key_says_what_is_wrong(issued: Issued, arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run("rotate_key", *(each.format(id=issued[0].pk) for each in arguments))


def test_rotate_key_refuses_a_revoked_one(issued: Issued) -> None:
    issued[0].revoke()
    with pytest.raises(CommandError, match="is revoked: it takes no new secret"):
        run("rotate_key", issued[0].pk)


def test_a_store_that_cannot_be_told_does_not_cost_the_new_key(
    issued: Issued, no_store_for_generation: None
) -> None:
    stdout = io.StringIO()
    with pytest.raises(CommandError, match="could not be told"):
        call_command("rotate_key", issued[0].pk, stdout=stdout, stderr=io.StringIO())
    new = keys.parse(stdout.getvalue().strip())
    assert new is not None
    assert ApiKey.objects.get().digest == new.digest


@pytest.mark.parametrize(
    ("expires", "until", "status"),
    [
        (None, None, "active"),
        (timedelta(days=13), None, "expires_soon"),
        (timedelta(days=13), HOUR, "expires_soon"),
        (timedelta(days=15), HOUR, "overlapping"),
        (None, -HOUR, "active"),
        (-HOUR, HOUR, "expired"),
    ],
)
def test_the_status_is_the_first_that_holds(
    expires: timedelta | None, until: timedelta | None, status: str
) -> None:
    now = timezone.now()
    key = ApiKey(
        expires_at=now + expires if expires else None,
        previous_until=now + until if until else None,
    )
    assert key.status == status
    key.revoked_at = now
    assert key.status == "revoked"
