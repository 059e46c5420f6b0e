"""Rotation, and whatever else happens at the same moment."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from threading import Barrier, Event, Semaphore
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from redis import Redis
from redis.exceptions import ConnectionError as StoreConnectionError

from apikeys import generation, keys, records
from apikeys.generation import GenerationNotRaised
from apikeys.models import ApiKey, KeyEvent, KeyNotUsable
from apikeys.records import load
from tests.apikeys.conftest import Ask, Issued
from tests.servers import Server

HOUR = timedelta(hours=1)
NOW = datetime(2030, 1, 1, 12, 0, 0, 123_457, tzinfo=timezone.get_default_timezone())


def digest_of(plaintext: str) -> str:
    key = keys.parse(plaintext)
    assert key is not None
    return key.digest


def together(*doings: Callable[[], Any]) -> list[Any]:
    """What each gives when all begin at the same moment; of one that fails, the exception."""
    barrier = Barrier(len(doings))

    def done(do: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return do()
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(doings)) as threads:
        return [each.result() for each in [threads.submit(done, do) for do in doings]]


# A slow, obvious reference


@dataclass
class Reference:
    """Which plaintexts are good when, by the words of the design."""

    good_until: dict[str, datetime | None] = field(default_factory=dict)
    newest: str = ""
    is_revoked: bool = False

    def rotated(self, plaintext: str, overlap: timedelta, now: datetime) -> None:
        for earlier in self.good_until:
            self.good_until[earlier] = now + overlap if earlier == self.newest else now
        self.good_until[plaintext] = None
        self.newest = plaintext

    def ended(self, now: datetime) -> None:
        self.good_until |= {each: now for each in self.good_until if each != self.newest}

    def admits(self, plaintext: str, now: datetime) -> bool:
        until = self.good_until[plaintext]
        return not self.is_revoked and (until is None or now < until)


def test_whatever_is_done_in_whatever_order_the_reference_says_who_is_admitted(
    ask: Ask, transactional_db: None, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and the tokens that they bought, with requests, saves of older copies, a store that
    loses everything and a clock that stops on deadlines, between rotations."""
    chance = random.Random(5)
    now = NOW
    monkeypatch.setattr(timezone, "now", lambda: now)
    admitted, refused = 0, 0
    for _ in range(30):
        key, plaintext = ApiKey.objects.issue(name="tests")
        older = ApiKey.objects.get(pk=key.pk)
        reference = Reference()
        reference.rotated(plaintext, timedelta(), now)
        tokens: list[tuple[str, str, int]] = []
        for _ in range(12):
            match chance.randrange(7):
                case 0 | 1 if not reference.is_revoked:
                    overlap = chance.choice([timedelta(), timedelta(seconds=100), HOUR])
                    reference.rotated(key.rotate(overlap), overlap, now)
                case 2:
                    key.end_overlap()
                    reference.ended(now)
                case 3:
                    older.owner = str(chance.random())
                    older.save()
                case 4:
                    store.flushall()
                case 5 if chance.random() < 0.2:
                    key.revoke()
                    reference.is_revoked = True
                case _:
                    ends = [end for end in reference.good_until.values() if end and end > now]
                    step = chance.choice([timedelta(seconds=50), timedelta(microseconds=1)])
                    now = chance.choice([*ends, *(end - step for end in ends), now + step])
            for each in reference.good_until:
                is_good = reference.admits(each, now)
                assert (ask({"X-API-Key": each}).status_code == 200) == is_good
                if is_good:
                    answer = ask({"X-API-Key": each}, "/get-auth-token").json()
                    expiry = int(now.timestamp()) + answer["expires_in"]
                    tokens.append((each, answer["access_token"], expiry))
            for each, token, expiry in chance.sample(tokens, min(8, len(tokens))):
                is_good = reference.admits(each, now) and now.timestamp() < expiry
                sent = {"Authorization": f"Bearer {token}"}
                assert (ask(sent).status_code == 200) == is_good
                admitted, refused = admitted + is_good, refused + (not is_good)
    assert min(admitted, refused) > 200


# One process: the row is read, and then it changes


def test_a_copy_loaded_just_before_a_rotation_is_not_trusted_after_it(
    ask: Ask, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, old = issued
    new = ""

    def load_and_lose_the_race(key_id: str) -> records.KeyRecord | None:
        nonlocal new
        found = load(key_id)
        new = key.rotate(timedelta())
        return found

    monkeypatch.setattr(records, "load", load_and_lose_the_race)
    assert ask({"X-API-Key": old}).status_code == 200  # It began before the rotation.
    monkeypatch.setattr(records, "load", load)
    assert [ask({"X-API-Key": each}).status_code for each in (old, new)] == [401, 200]


def test_a_copy_loaded_just_after_a_rotation_knows_both_secrets(ask: Ask, issued: Issued) -> None:
    """Its request has read the number before the rotation, and the row after it."""
    key, old = issued
    number = generation.read()
    new = key.rotate(HOUR)
    found = records.records.find(key.pk, number)
    assert found is not None
    assert (found.digest, found.previous_digest) == (digest_of(new), digest_of(old))
    assert [ask({"X-API-Key": each}).status_code for each in (old, new)] == [200, 200]


def test_a_rotation_that_the_store_did_not_hear_of_is_made_good_by_any_other_change(
    ask: Ask, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, old = issued
    revoked, _ = ApiKey.objects.issue(name="revoked")
    revoked.revoke()
    assert ask({"X-API-Key": old}).status_code == 200

    def out_of_reach() -> Redis:
        raise StoreConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(generation, "_connection", out_of_reach)
        with pytest.raises(GenerationNotRaised):
            key.rotate(timedelta())
    assert ask({"X-API-Key": old}).status_code == 200  # By its copy, as the command says.
    revoked.revoke()
    assert ask({"X-API-Key": old}).status_code == 401


# Operators at the same time


def test_of_rotations_at_the_same_time_the_last_two_secrets_are_good(
    ask: Ask, issued: Issued
) -> None:
    old = issued[1]
    copies = [ApiKey.objects.get() for _ in range(6)]
    made = together(*[partial(copy.rotate, HOUR) for copy in copies])
    stored = ApiKey.objects.get()
    by_digest = {digest_of(plaintext): plaintext for plaintext in (old, *made)}
    good = [by_digest[stored.digest], by_digest[stored.previous_digest]]
    assert len(set(good) & set(made)) == 2
    for plaintext in by_digest.values():
        status = ask({"X-API-Key": plaintext}).status_code
        assert status == (200 if plaintext in good else 401)
    assert KeyEvent.objects.filter(action="rotated").count() == 6


def test_a_rotation_and_a_revocation_at_the_same_time_leave_a_revoked_key(
    ask: Ask, transactional_db: None
) -> None:
    for _ in range(10):
        key, old = ApiKey.objects.issue(name="tests")
        copy = ApiKey.objects.get(pk=key.pk)
        new, _ = together(partial(copy.rotate, HOUR), partial(key.revoke, "lost"))
        assert ApiKey.objects.get(pk=key.pk).status == "revoked"
        assert isinstance(new, str | KeyNotUsable)
        sent = [old, new] if isinstance(new, str) else [old]
        assert {ask({"X-API-Key": each}).status_code for each in sent} == {401}
        events = [event.action for event in key.events.all()]
        assert events == ["revoked", *(["rotated"] if len(sent) == 2 else []), "issued"]


def test_many_revoked_twice_at_the_same_time_are_each_revoked_once(transactional_db: None) -> None:
    ApiKey.objects.bulk_create(ApiKey(name=str(n), digest=f"{n:064}") for n in range(2500))
    ids = list(ApiKey.objects.values_list("pk", flat=True))
    first, second = together(
        partial(ApiKey.objects.revoke, ids, "first"),
        partial(ApiKey.objects.revoke, ids[::-1], "second"),
    )
    assert sorted(first + second) == sorted(ids)
    counts = {
        reason: ApiKey.objects.filter(revoked_reason=reason).count()
        for reason in ("first", "second")
    }
    assert counts == {"first": len(first), "second": len(second)}
    assert KeyEvent.objects.filter(action="revoked").count() == len(ids)


# Other processes


@dataclass(frozen=True)
class Asked:
    """One request: with which secret, its answer, and how many rotations there had been."""

    secret: int
    status: int
    done_before: int
    begun_after: int

    def expected(self) -> set[int]:
        """A secret is good from its rotation on, until the next but one has begun."""
        during = range(self.done_before, self.begun_after + 1)
        return {200 if self.secret <= count <= self.secret + 1 else 401 for count in during}


def test_requests_in_other_processes_are_answered_by_the_rotation_that_was_before_them(
    server: Server, issued: Issued
) -> None:
    key, old = issued
    secrets, begun, over, answered = [old], 0, Event(), Semaphore(0)

    def ask_on(first: int) -> list[Asked]:
        return list(each_asked(first))

    def each_asked(first: int) -> Iterator[Asked]:
        chance = random.Random(first)
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        number = 0
        while not over.is_set():
            number += 1
            done = len(secrets) - 1
            secret = max(0, done - chance.choice([0, 0, 1, 1, 2, 3]))
            address = f"10.{first}.{number // 250}.{number % 250}"
            headers = {"X-API-Key": secrets[secret], "X-Forwarded-For": address}
            client.request("GET", "/", headers=headers)
            answer = client.getresponse()
            answer.read()
            answered.release()
            yield Asked(secret, answer.status, done, begun)
        client.close()

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(ask_on, number) for number in (1, 2, 3)]
        try:
            for _ in range(60):
                for _ in range(5):
                    assert answered.acquire(timeout=30)
                begun += 1
                secrets.append(key.rotate(HOUR))
        finally:
            over.set()
        asked = [each for thread in asking for each in thread.result()]
    assert [each for each in asked if each.status not in each.expected()] == []
    certain = [each.status for each in asked if len(each.expected()) == 1]
    assert min(certain.count(200), certain.count(401)) > 10
    assert ApiKey.objects.get().digest == digest_of(secrets[-1])
