from __future__ import annotations

import pytest
from django.test import override_settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hello_project import store_state
from tests.conftest import CommandsSent
from throttling.throttles import breaker


def test_the_store_tells_its_version_and_memory_in_one_round_trip(
    commands_sent: CommandsSent,
) -> None:
    with commands_sent() as sent:
        state = store_state.read()
    assert sent == ["INFO"]
    assert state.answers
    assert state.version.split()[0] in ("Valkey", "Redis")
    assert state.version.split()[1][0].isdigit()
    assert state.memory > 100_000
    assert state.opened_at is None


@pytest.mark.parametrize(
    ("url", "embedded", "arrangement"),
    [
        ("unix:///var/store/valkey.sock", True, "embedded"),
        ("unix:///run/redis.sock", False, "single server"),
        ("rediss://cluster.example:6379/0", False, "single server"),
        ("redis+sentinel://a:26379,b:26379/main", False, "Sentinel"),
        ("redis+cluster://a:6379", False, "Cluster"),
    ],
)
def test_the_url_says_how_the_store_is_set_up(url: str, embedded: bool, arrangement: str) -> None:
    assert store_state.arrangement_of(url, embedded=embedded) == arrangement


def test_without_an_answer_the_rest_is_known_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(store_state, "get_redis_connection", lambda _: nobody)
    for _ in range(3):
        breaker.failed(ConnectionError())
    with override_settings(REDIS_URL="redis://10.0.0.1/0", STORE_IS_EMBEDDED=False):
        state = store_state.read()
    assert not state.answers
    assert state.arrangement == "single server"
    assert state.opened_at is not None


def test_who_knows_that_it_is_away_does_not_ask_again(commands_sent: CommandsSent) -> None:
    with commands_sent() as sent:
        assert not store_state.read(ask=False).answers
    assert sent == []
