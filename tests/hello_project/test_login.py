"""The console's login: how often it may fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import hashers
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hello_project import login
from throttling.limiter import SlidingWindowCounter
from throttling.outage import share_of
from throttling.throttles import breaker

LOGIN = "/admin/login/"
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
WAIT = re.compile(r"Too many failures\. Try again in (1[56] minutes)\.")


def wait_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the site's 50 ms, so that a busy machine does not make this process decide."""
    client = Redis.from_url(settings.REDIS_URL)
    for name in ("FAILURES", "ATTEMPTS"):
        counter = SlidingWindowCounter(getattr(login, name).rate, client)
        monkeypatch.setattr(login, name, counter)


@pytest.fixture(autouse=True)
def owner(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    wait_for_the_store(monkeypatch)
    login.local_counter.clear()
    yield User.objects.create_superuser("owner", password="right")
    login.local_counter.clear()


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))
    for name in ("FAILURES", "ATTEMPTS"):
        rate = getattr(login, name).rate
        monkeypatch.setattr(login, name, SlidingWindowCounter(rate, nobody))


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were hashed, which is what an attempt costs."""
    hashed: list[str] = []
    encode = hashers.MD5PasswordHasher.encode

    def counted(self: Any, password: str, salt: str) -> str:
        hashed.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(hashers.MD5PasswordHasher, "encode", counted)
    return hashed


def attempt(password: str, name: str = "owner", address: str = HERE) -> Any:
    form = {"username": name, "password": password}
    return Client().post(LOGIN, form, REMOTE_ADDR=address)


def fail(times: int, name: str = "owner", address: str = HERE) -> None:
    for _ in range(times):
        assert attempt("wrong", name, address).status_code == 200


def test_after_five_failures_not_even_the_right_password_is_looked_at(hashes: list[str]) -> None:
    fail(5)
    hashes.clear()
    for password in ("wrong", "right"):
        refused = attempt(password)
        assert refused.status_code == 429
        assert 890 < int(refused["Retry-After"]) <= 910
        assert WAIT.search(refused.content.decode())
    assert hashes == []


def test_it_answers_the_same_whether_there_is_such_a_user() -> None:
    pages = []
    for name in ("owner", "nobody"):
        fail(5, name)
        page = attempt("right", name).content.decode()
        assert WAIT.search(page)
        pages.append(re.sub(r'value="[^"]*"|1[56] minutes', "", page))
    assert pages[0] == pages[1]


def test_neither_the_owner_elsewhere_nor_another_user_here_is_locked_out() -> None:
    User.objects.create_superuser("colleague", password="right")
    fail(5)
    assert attempt("right", address=ELSEWHERE).status_code == 302
    assert attempt("right", "colleague").status_code == 302
    assert attempt("right").status_code == 429


def test_a_success_forgets_the_failures_before_it() -> None:
    for _ in range(2):
        fail(4)
        assert attempt("right").status_code == 302
    fail(5)
    assert attempt("right").status_code == 429


def test_one_password_tried_on_many_users_is_limited_by_the_address() -> None:
    for number in range(30):
        assert attempt("wrong", f"user{number}").status_code == 200
    assert attempt("right").status_code == 429
    assert attempt("right", address=ELSEWHERE).status_code == 302


def test_a_success_of_ones_own_pays_for_no_guess_at_others() -> None:
    User.objects.create_superuser("insider", password="right")
    for number in range(15):
        assert attempt("wrong", f"user{number}").status_code == 200
        assert attempt("right", "insider").status_code == 302
    assert attempt("right", "insider").status_code == 429


def test_waiting_attempts_do_not_make_the_wait_longer() -> None:
    for number in range(30):
        attempt("wrong", f"user{number}")
    for _ in range(10):
        assert attempt("wrong").status_code == 429
    login.ATTEMPTS.reset(login.of_address(HERE))
    assert attempt("right").status_code == 302
    fail(5)
    for _ in range(50):
        assert attempt("wrong").status_code == 429
    User.objects.create_superuser("colleague", password="right")
    assert attempt("right", "colleague").status_code == 302


@pytest.mark.parametrize("name", ["\uff4fwner", " owner ", "owner\t"])
def test_a_name_that_django_takes_for_the_same_counts_as_the_same(name: str) -> None:
    fail(3, name)
    fail(2)
    assert attempt("right").status_code == 429


def test_hostile_names_take_no_more_of_the_store_than_others(store: Redis) -> None:
    names = ["a", "x" * 150, "x" * 100_000, "{}", "\n", "a\0b", "\udc80", "*", "ü" * 150]
    for name in names:
        body = name.encode(errors="surrogatepass")
        quoted = "".join(f"%{byte:02x}" for byte in body)
        form = f"username={quoted}&password=wrong"
        kind = "application/x-www-form-urlencoded"
        answer = Client().post(LOGIN, form, content_type=kind, REMOTE_ADDR=HERE)
        assert answer.status_code == 200
    keys = [key for key in store.scan_iter() if b"login:" in key]
    assert len(keys) > 4
    assert max(len(key) for key in keys) < 80


def test_exactly_five_of_many_at_once_are_looked_at(hashes: list[str]) -> None:
    def fail_once(_: int) -> int:
        try:
            return int(attempt("wrong").status_code)
        finally:
            connection.close()

    hashes.clear()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(fail_once, range(24)))
    assert sorted(statuses) == [200] * 5 + [429] * 19
    assert hashes.count("wrong") == 5


def test_exactly_thirty_of_many_at_once_from_one_address_are_looked_at() -> None:
    def fail_once(number: int) -> int:
        try:
            return int(attempt("wrong", f"user{number}").status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(fail_once, range(44)))
    assert sorted(statuses) == [200] * 30 + [429] * 14


@pytest.mark.parametrize("policy", ["local", "allow", "deny"])
@pytest.mark.usefixtures("no_store")
def test_without_the_store_this_process_decides_with_its_share(
    policy: str, settings: Any, hashes: list[str]
) -> None:
    settings.STORE_FAILURE = policy
    settings.WEB_CONCURRENCY = 2
    share = share_of(login.FAILURES.rate, 2).limit
    assert share == 2
    fail(share)
    hashes.clear()
    assert attempt("right").status_code == 429
    assert hashes == []
    assert breaker.is_open
    assert attempt("right", address=ELSEWHERE).status_code == 302


def test_a_lock_is_one_line_in_the_log_without_the_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "eve\u202e\nERROR all is well"
    for _ in range(8):
        attempt("hunter2", name)
    lines = [record.getMessage() for record in caplog.records if record.name == login.__name__]
    assert lines == [
        "Login of 'eve\\u202e\\nERROR all is well' from 192.0.2.1 is locked: 5 failures."
    ]
    assert "hunter2" not in caplog.text


def test_an_address_that_is_used_up_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(33):
        attempt("wrong", f"user{number}")
    assert [each.getMessage() for each in caplog.records if each.name == login.__name__] == [
        "Logins from 192.0.2.1 are locked: 30 attempts."
    ]


def test_a_lock_can_be_lifted() -> None:
    address = "2001:db8::7"
    fail(5, address=address)
    assert attempt("right", address=address).status_code == 429
    said = StringIO()
    call_command("unlock_login", "owner", "2001:db8::/64", stderr=said)
    assert said.getvalue() == "owner may try again from 2001:db8::/64.\n"
    assert attempt("right", address=address).status_code == 302
    with pytest.raises(CommandError, match="'home' is no address"):
        call_command("unlock_login", "owner", "home")


@pytest.mark.usefixtures("no_store")
def test_without_the_store_no_lock_is_lifted() -> None:
    with pytest.raises(CommandError, match="The store does not answer"):
        call_command("unlock_login", "owner", HERE)


def test_without_a_password_nothing_is_counted(store: Redis) -> None:
    for _ in range(7):
        assert attempt("").status_code == 200
    assert [key for key in store.scan_iter() if b"login:" in key] == []
    assert attempt("right").status_code == 302
