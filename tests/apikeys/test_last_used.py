from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any

import pytest
from django.db import DatabaseError, Error, InterfaceError, OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys import generation
from apikeys.last_used import KEYS_A_TRANSACTION, KEYS_GATHERED, LastUsed, last_used
from apikeys.models import ApiKey
from hello_project import children
from tests.apikeys.conftest import Ask, Issued
from tests.servers import Server, wait_for


@pytest.fixture
def moments() -> Iterator[LastUsed]:
    noted = LastUsed(flush_seconds=3600)
    yield noted
    noted.clear()


def updates(queries: CaptureQueriesContext) -> int:
    """One after the other, `executemany` is logged as "2 times: UPDATE …"."""
    logged = [re.match(r"(?:(\d+) times: )?UPDATE", query["sql"]) for query in queries]
    return sum(int(match[1] or 1) for match in logged if match)


def test_a_use_is_written_down_at_the_next_flush(moments: LastUsed, issued: Issued) -> None:
    key, _ = issued
    at = timezone.now() - timedelta(seconds=30)
    moments.note(key.pk, at)
    key.refresh_from_db()
    assert key.last_used_at is None
    moments.flush()
    key.refresh_from_db()
    assert key.last_used_at == at


def test_an_admitted_request_is_a_use_and_a_refused_one_is_not(ask: Ask, issued: Issued) -> None:
    key, plaintext = issued
    before = timezone.now()
    ask({"X-API-Key": plaintext[:-1] + "_"})
    other = ApiKey(pk=key.pk).make_secret()
    ask({"X-API-Key": other})
    last_used.flush()
    key.refresh_from_db()
    assert key.last_used_at is None
    assert ask({"X-API-Key": plaintext}).status_code == 200
    last_used.flush()
    key.refresh_from_db()
    assert key.last_used_at is not None
    assert before <= key.last_used_at <= timezone.now()


def test_many_uses_are_one_write_a_key(moments: LastUsed, issued: Issued) -> None:
    other, _ = ApiKey.objects.issue(name="other")
    start = timezone.now()
    for second in range(50):
        moments.note(issued[0].pk, start + timedelta(seconds=second))
        moments.note(other.pk, start + timedelta(seconds=second))
    with CaptureQueriesContext(connection) as queries:
        moments.flush()
    assert updates(queries) == 2
    with CaptureQueriesContext(connection) as queries:
        moments.flush()
    assert len(queries) == 0
    for key in ApiKey.objects.all():
        assert key.last_used_at == start + timedelta(seconds=49)


def test_many_keys_are_written_before_their_time(moments: LastUsed, transactional_db: None) -> None:
    keys = [ApiKey(name=f"key {number}") for number in range(KEYS_GATHERED)]
    for key in keys:
        key.make_secret()
    ApiKey.objects.bulk_create(keys)
    for key in keys[:-1]:
        moments.note(key.pk, timezone.now())
        moments.note(key.pk, timezone.now())
    assert len(moments._moments) == KEYS_GATHERED - 1
    moments.note(keys[-1].pk, timezone.now())
    wait_for(lambda: not ApiKey.objects.filter(last_used_at=None).exists())
    assert moments._moments == {}


def test_a_use_within_a_minute_of_the_one_that_is_written_changes_nothing(
    moments: LastUsed, issued: Issued
) -> None:
    key, start = issued[0], timezone.now()
    written = []
    for second in (0, 10, 59, 60, 70):
        moments.note(key.pk, start + timedelta(seconds=second))
        moments.flush()
        key.refresh_from_db()
        assert key.last_used_at is not None
        written.append((key.last_used_at - start).total_seconds())
    assert written == [0, 0, 0, 60, 60]


def test_many_keys_take_transactions_short_enough_for_others_to_write_between(
    moments: LastUsed, transactional_db: None
) -> None:
    at = timezone.now()
    keys = [ApiKey(name="many") for _ in range(2 * KEYS_A_TRANSACTION + 1)]
    for key in keys:
        key.make_secret()
        moments.note(key.pk, at)
    ApiKey.objects.bulk_create(keys)
    with CaptureQueriesContext(connection) as queries:
        moments.flush()
    assert [query["sql"] for query in queries].count("COMMIT") == 3
    assert updates(queries) == len(keys)
    assert ApiKey.objects.filter(last_used_at=at).count() == len(keys)


def test_writing_it_down_makes_no_process_load_its_records_anew(
    moments: LastUsed, issued: Issued
) -> None:
    before = generation.read()
    moments.note(issued[0].pk, timezone.now())
    moments.flush()
    assert generation.read() == before


def test_an_older_use_from_another_process_does_not_replace_a_newer_one(
    moments: LastUsed, issued: Issued
) -> None:
    key, now = issued[0], timezone.now()
    elsewhere = LastUsed(flush_seconds=3600)
    elsewhere.note(key.pk, now - timedelta(seconds=40))
    moments.note(key.pk, now)
    moments.flush()
    elsewhere.flush()
    key.refresh_from_db()
    assert key.last_used_at == now


def test_a_key_that_is_gone_does_not_keep_the_others_from_being_written(
    moments: LastUsed, issued: Issued
) -> None:
    now = timezone.now()
    moments.note("abcdefghijkl", now)
    moments.note(issued[0].pk, now)
    moments.flush()
    issued[0].refresh_from_db()
    assert issued[0].last_used_at == now


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, DatabaseError])
def test_when_the_database_fails_the_moments_are_kept(
    moments: LastUsed, issued: Issued, error: type[Error], caplog: pytest.LogCaptureFixture
) -> None:
    other, _ = ApiKey.objects.issue(name="other")
    first = timezone.now()
    second = first + timedelta(seconds=1)

    def fail(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            moments.note(other.pk, second)  # A request meanwhile.
            raise error("the connection is lost")
        return execute(sql, *rest)

    moments.note(issued[0].pk, first)
    moments.note(other.pk, first)
    with connection.execute_wrapper(fail):
        moments.flush()
    assert "could not be saved" in caplog.text
    assert ApiKey.objects.filter(last_used_at=None).count() == 2
    moments.flush()
    assert ApiKey.objects.get(pk=issued[0].pk).last_used_at == first
    assert ApiKey.objects.get(pk=other.pk).last_used_at == second


def test_a_thread_writes_them_down_by_itself(issued: Issued) -> None:
    often = LastUsed(flush_seconds=0.01)
    at = timezone.now()
    often.note(issued[0].pk, at)
    wait_for(lambda: ApiKey.objects.get(pk=issued[0].pk).last_used_at == at, seconds=5)
    often.stop()


def test_a_server_that_stops_writes_down_what_it_knows(server: Server, issued: Issued) -> None:
    before = timezone.now()
    client = HTTPConnection("127.0.0.1", server.port)
    client.request("GET", "/", headers={"X-API-Key": issued[1]})
    assert client.getresponse().status == 200
    client.close()
    children.stop(server.process, 10)
    issued[0].refresh_from_db()
    assert issued[0].last_used_at is not None
    assert before <= issued[0].last_used_at <= timezone.now()
