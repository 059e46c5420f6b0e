"""The second factor of the console's login, by codes as an authenticator app makes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings as site_settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from hello_project import login, second_factor
from tests.hello_project.test_login import wait_for_the_store
from tests.servers import shared_environment

LOGIN, INDEX = "/admin/login/", "/admin/"
PAGE, CODE = "/admin/second-factor/", "/admin/second-factor/code/"
KEYS = "/admin/apikeys/apikey/"


def code_at(secret: str, moment: float) -> str:
    """RFC 6238, worked out here: what a phone shows."""
    key = base64.b32decode(secret.replace(" ", ""))
    digest = hmac.digest(key, struct.pack(">Q", int(moment) // 30), hashlib.sha1)
    offset = digest[-1] & 15
    return str((int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF) % 10**6).zfill(6)


class Clock:
    """The server's, and the phone's."""

    def __init__(self) -> None:
        self.now = time.time() // 30 * 30 + 15

    def tick(self) -> None:
        self.now += 30


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("hello_project.second_factor", "django_otp.plugins.otp_totp.models"):
        monkeypatch.setattr(f"{module}.time.time", lambda: clock.now)
    return clock


@pytest.fixture(autouse=True)
def owner(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    wait_for_the_store(monkeypatch)
    settings.SECOND_FACTOR = "optional"
    login.local_counter.clear()
    yield User.objects.create_superuser("owner", password="right")
    login.local_counter.clear()


def logged_in(name: str = "owner", password: str = "right") -> Client:
    client = Client()
    answer = client.post(LOGIN, {"username": name, "password": password, "next": KEYS})
    assert answer["Location"] == KEYS
    return client


def fields(answer: Any) -> dict[str, str]:
    found = re.findall(r'name="(sealed|next)" value="([^"]*)"', answer.content.decode())
    return {name: html.unescape(value) for name, value in found}


def secret_of(answer: Any) -> str:
    (found,) = re.findall(r'<code class="secret">([A-Z2-7 ]+)</code>', answer.content.decode())
    return str(found)


def recovery_codes(answer: Any) -> list[str]:
    return re.findall(r"<li><code>([a-z2-7-]+)</code></li>", answer.content.decode())


def set_up(client: Client, clock: Clock) -> tuple[str, list[str]]:
    """The secret, and the recovery codes."""
    page = client.get(PAGE)
    secret = secret_of(page)
    answer = client.post(PAGE, fields(page) | {"code": code_at(secret, clock.now)})
    assert answer.status_code == 200
    clock.tick()
    return secret, recovery_codes(answer)


def test_off_is_as_if_there_were_none(settings: Any, clock: Clock) -> None:
    set_up(logged_in(), clock)
    settings.SECOND_FACTOR = "off"
    client = logged_in()
    assert client.get(KEYS).status_code == 200
    assert client.get(PAGE).status_code == client.get(CODE).status_code == 404


def test_every_page_leads_to_it_when_it_is_on(settings: Any) -> None:
    client = logged_in()
    assert f'<a href="{PAGE}">Second factor</a>' in client.get(KEYS).content.decode()
    settings.SECOND_FACTOR = "off"
    assert PAGE not in client.get(KEYS).content.decode()


def test_optional_asks_only_those_who_have_set_it_up(clock: Clock) -> None:
    User.objects.create_superuser("colleague", password="right")
    secret, _ = set_up(logged_in(), clock)
    assert logged_in("colleague").get(KEYS).status_code == 200
    client = logged_in()
    sent_to_login = client.get(KEYS)
    assert sent_to_login["Location"] == f"{LOGIN}?next={KEYS}"
    asked = client.get(sent_to_login["Location"])
    assert asked["Location"] == f"{CODE}?next=%2Fadmin%2Fapikeys%2Fapikey%2F"
    page = client.get(asked["Location"])
    answer = client.post(CODE, fields(page) | {"code": code_at(secret, clock.now)})
    assert answer["Location"] == KEYS
    assert client.get(KEYS).status_code == 200


def test_required_sends_to_setting_up_and_to_nothing_else(settings: Any, clock: Clock) -> None:
    settings.SECOND_FACTOR = "required"
    client = logged_in()
    for path in (INDEX, KEYS, "/admin/password_change/", "/admin/jsi18n/", "/admin/nothing/"):
        answer = client.get(path, follow=True)
        assert answer.redirect_chain[-1][0].startswith(f"{PAGE}?next=")
        assert client.post(path).status_code == 302
    assert "user-tools" not in answer.content.decode()
    set_up(client, clock)
    assert client.get(KEYS).status_code == 200


def test_setting_up_shows_a_secret_that_the_qr_code_says_too(clock: Clock, owner: User) -> None:
    client = logged_in()
    page = client.get(PAGE)
    secret = secret_of(page).replace(" ", "")
    address = second_factor.address_of(secret, owner, "testserver")
    assert str(second_factor.drawn(address)) in page.content.decode()
    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/testserver%3Aowner")
    assert parse_qs(parts.query) == {"secret": [secret], "issuer": ["testserver"]}
    assert len(base64.b32decode(secret)) == 20
    assert "no-store" in page["Cache-Control"]
    assert secret_of(client.get(PAGE)).replace(" ", "") != secret
    assert not TOTPDevice.objects.exists()


def test_a_wrong_code_sets_up_nothing_and_keeps_the_secret(clock: Clock) -> None:
    client = logged_in()
    page = client.get(PAGE)
    answer = client.post(PAGE, fields(page) | {"code": "000000x"})
    assert "That code is not right." in answer.content.decode()
    assert secret_of(answer) == secret_of(page)
    assert fields(answer)["sealed"] == fields(page)["sealed"]
    assert not TOTPDevice.objects.exists()


def test_a_secret_of_another_user_or_of_yesterday_is_not_taken(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.create_superuser("eve", password="right")
    page = logged_in("eve").get(PAGE)
    form = fields(page) | {"code": code_at(secret_of(page), clock.now)}
    answer = logged_in().post(PAGE, form)
    assert "Begin again" in answer.content.decode()
    assert secret_of(answer) != secret_of(page)
    client = logged_in()
    page = client.get(PAGE)
    form = fields(page) | {"code": code_at(secret_of(page), clock.now)}
    monkeypatch.setattr(second_factor, "ENROLMENT_SECONDS", -1)
    assert "Begin again" in client.post(PAGE, form).content.decode()
    assert not TOTPDevice.objects.exists()


def test_a_form_sent_twice_sets_up_one_device(clock: Clock) -> None:
    client = logged_in()
    page = client.get(PAGE)
    form = fields(page) | {"code": code_at(secret_of(page), clock.now)}
    assert len(recovery_codes(client.post(PAGE, form))) == 8
    again = client.post(PAGE, form)
    assert recovery_codes(again) == []
    assert TOTPDevice.objects.count() == 1
    assert StaticToken.objects.count() == 8


def test_a_form_sent_many_times_at_once_sets_up_one_device(clock: Clock) -> None:
    client = logged_in()
    page = client.get(PAGE)
    form = fields(page) | {"code": code_at(secret_of(page), clock.now)}
    clients = [logged_in() for _ in range(4)]

    def send(client: Client) -> int:
        try:
            return len(recovery_codes(client.post(PAGE, form)))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, clients)) == [0, 0, 0, 8]
    assert TOTPDevice.objects.count() == 1


def test_a_code_works_once_not_even_the_one_that_set_it_up_again(clock: Clock) -> None:
    client = logged_in()
    page = client.get(PAGE)
    secret = secret_of(page)
    first = code_at(secret, clock.now)
    client.post(PAGE, fields(page) | {"code": first})
    assert logged_in().post(CODE, {"code": first}).status_code == 200
    clock.tick()
    second = code_at(secret, clock.now)
    assert logged_in().post(CODE, {"code": second}).status_code == 302
    for code in (second, first):
        assert logged_in().post(CODE, {"code": code}).status_code == 200


def test_of_one_code_sent_many_times_at_once_one_is_right(clock: Clock) -> None:
    secret, recovery = set_up(logged_in(), clock)
    for code in (code_at(secret, clock.now), recovery[0]):
        clients = [logged_in() for _ in range(3)]

        def send(client: Client, code: str = code) -> int:
            try:
                return int(client.post(CODE, {"code": code}).status_code)
            finally:
                connection.close()

        with ThreadPoolExecutor(3) as pool:
            assert sorted(pool.map(send, clients)) == [200, 200, 302]


@pytest.mark.parametrize("seconds", [-30, 30])
def test_a_phone_may_be_half_a_minute_off(clock: Clock, seconds: int) -> None:
    secret, _ = set_up(logged_in(), clock)
    clock.tick()
    assert logged_in().post(CODE, {"code": code_at(secret, clock.now + seconds)}).status_code == 302


@pytest.mark.parametrize("seconds", [-90, 90])
def test_but_no_more(clock: Clock, seconds: int) -> None:
    secret, _ = set_up(logged_in(), clock)
    for _ in range(4):
        clock.tick()
    assert logged_in().post(CODE, {"code": code_at(secret, clock.now + seconds)}).status_code == 200


def test_a_recovery_code_works_once_and_only_its_digest_is_stored(clock: Clock) -> None:
    _, codes = set_up(logged_in(), clock)
    stored = set(StaticToken.objects.values_list("token", flat=True))
    assert len(stored) == 8
    assert not stored & {code.replace("-", "") for code in codes}
    assert logged_in().post(CODE, {"code": f" {codes[0].upper()} "}).status_code == 302
    assert logged_in().post(CODE, {"code": codes[0]}).status_code == 200
    assert logged_in().post(CODE, {"code": next(iter(stored))}).status_code == 200
    assert StaticToken.objects.count() == 7


def test_codes_are_limited_wherever_they_come_from(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    secret, recovery = set_up(logged_in(), clock)
    client = logged_in()
    for number in range(5):
        answer = client.post(CODE, {"code": "12345x"}, REMOTE_ADDR=f"192.0.2.{number}")
        assert answer.status_code == 200
    for code in (code_at(secret, clock.now), recovery[0]):
        refused = client.post(CODE, {"code": code}, REMOTE_ADDR="192.0.2.77")
        assert refused.status_code == 429
        assert 890 < int(refused["Retry-After"]) <= 910
        assert "Too many failures. Try again in" in refused.content.decode()
    assert client.get(KEYS).status_code == 302
    assert "Login of 'owner' by code is locked: 5 failures." in caplog.text
    call_command("unlock_login", "owner", "192.0.2.77", stderr=StringIO())
    assert client.post(CODE, {"code": recovery[0]}).status_code == 302


def test_a_right_code_forgets_the_wrong_ones(clock: Clock) -> None:
    secret, _ = set_up(logged_in(), clock)
    for _ in range(2):
        client = logged_in()
        for _ in range(4):
            assert client.post(CODE, {"code": "nonsense"}).status_code == 200
        assert client.post(CODE, {"code": code_at(secret, clock.now)}).status_code == 302
        clock.tick()


@pytest.mark.parametrize("code", ["", "1", "1234567", "²²²²²²", "0x1234", "a" * 40, "-12345", "\0"])
def test_what_is_no_code_is_not_right(clock: Clock, code: str) -> None:
    set_up(logged_in(), clock)
    client = logged_in()
    assert client.post(CODE, {"code": code}).status_code == 200
    assert client.get(KEYS).status_code == 302


def test_the_session_changes_its_key_with_the_code(clock: Clock) -> None:
    secret, _ = set_up(logged_in(), clock)
    client = logged_in()
    before = client.session.session_key
    client.post(CODE, {"code": code_at(secret, clock.now)})
    assert client.session.session_key != before
    assert not Session.objects.filter(session_key=before).exists()


def test_the_code_page_sends_nobody_to_another_site(clock: Clock) -> None:
    secret, _ = set_up(logged_in(), clock)
    form = {"code": code_at(secret, clock.now), "next": "https://evil.example/"}
    assert logged_in().post(CODE, form)["Location"] == INDEX


def test_who_has_not_given_a_code_can_log_out(clock: Clock) -> None:
    set_up(logged_in(), clock)
    client = logged_in()
    assert client.post("/admin/logout/").status_code == 200
    assert client.get(KEYS, follow=True).request["PATH_INFO"] == LOGIN


def test_neither_page_is_for_who_has_not_logged_in(clock: Clock) -> None:
    for path in (PAGE, CODE):
        assert Client().get(path)["Location"].startswith(f"{LOGIN}?next=")
    User.objects.create_user("customer", password="right")
    client = Client()
    client.login(username="customer", password="right")
    assert client.get(PAGE)["Location"].startswith(f"{LOGIN}?next=")


def test_a_password_alone_does_not_replace_the_device(clock: Clock) -> None:
    set_up(logged_in(), clock)
    client = logged_in()
    for answer in (client.get(PAGE), client.post(PAGE, {"remove": "", "password": "right"})):
        assert answer["Location"].startswith(CODE)
    assert TOTPDevice.objects.count() == 1


@pytest.mark.parametrize("action", ["remove", "renew"])
def test_changing_it_takes_the_password_and_a_fresh_code(clock: Clock, action: str) -> None:
    client = logged_in()
    secret, codes = set_up(client, clock)
    page = client.get(PAGE)
    assert "8 recovery codes left" in page.content.decode()
    for form in (
        {"password": "right", "code": "000 00"},
        {"password": "right", "code": code_at(secret, clock.now - 30)},
        {"password": "wrong", "code": code_at(secret, clock.now)},
        {"password": "right"},
        {"code": code_at(secret, clock.now)},
    ):
        assert client.post(PAGE, form | {action: ""}).status_code == 200
    stored = set(StaticToken.objects.values_list("token", flat=True))
    assert TOTPDevice.objects.count() == 1
    form = {"password": "right", "code": code_at(secret, clock.now), action: ""}
    answer = client.post(PAGE, form)
    if action == "remove":
        assert answer["Location"] == PAGE
        assert not TOTPDevice.objects.exists()
        assert not StaticToken.objects.exists()
        assert logged_in().get(KEYS).status_code == 200
    else:
        assert len(recovery_codes(answer)) == 8
        assert not set(recovery_codes(answer)) & set(codes)
        assert not stored & set(StaticToken.objects.values_list("token", flat=True))
        assert "no-store" in answer["Cache-Control"]


def test_passwords_are_limited_there_as_at_the_login(clock: Clock) -> None:
    client = logged_in()
    secret, _ = set_up(client, clock)
    for _ in range(5):
        assert client.post(PAGE, {"password": "no", "code": "1", "remove": ""}).status_code == 200
    form = {"password": "right", "code": code_at(secret, clock.now), "remove": ""}
    assert client.post(PAGE, form).status_code == 429
    assert TOTPDevice.objects.count() == 1


def test_a_new_device_ends_the_sessions_of_the_old(clock: Clock, settings: Any) -> None:
    settings.SECOND_FACTOR = "required"
    here, there = logged_in(), logged_in()
    secret, _ = set_up(here, clock)
    there.post(CODE, {"code": code_at(secret, clock.now)})
    assert there.get(KEYS).status_code == 200
    clock.tick()
    form = {"password": "right", "code": code_at(secret, clock.now), "remove": ""}
    here.post(PAGE, form)
    assert here.get(KEYS).status_code == there.get(KEYS).status_code == 302
    set_up(here, clock)
    assert here.get(KEYS).status_code == 200
    assert there.get(KEYS, follow=True).request["PATH_INFO"] == CODE


def test_an_administrator_resets_it_for_who_has_lost_all(clock: Clock) -> None:
    set_up(logged_in(), clock)
    said = StringIO()
    call_command("reset_second_factor", "owner", stderr=said)
    assert said.getvalue() == "Removed the second factor of owner.\n"
    assert logged_in().get(KEYS).status_code == 200
    for name in ("owner", "nobody"):
        with pytest.raises(CommandError, match=name):
            call_command("reset_second_factor", name)


def test_nobodys_secret_is_in_the_admin_the_session_or_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    client = logged_in()
    secret, codes = set_up(client, clock)
    kept = [str(session.get_decoded()) for session in Session.objects.all()]
    seen = [caplog.text, *kept, client.get(INDEX).content.decode()]
    for text in seen:
        for hidden in (secret, secret.replace(" ", ""), *codes):
            assert hidden not in text
    for path in ("otp_totp/totpdevice", "otp_static/staticdevice"):
        assert client.get(f"/admin/{path}/").status_code == 404


def test_a_page_costs_one_query_more_when_it_is_on_and_none_when_it_is_off(
    clock: Clock, settings: Any, django_assert_num_queries: Any
) -> None:
    client = logged_in()
    set_up(client, clock)
    for setting, queries in (("required", 3), ("off", 2)):
        settings.SECOND_FACTOR = setting
        with django_assert_num_queries(queries):  # Session, user, device.
            client.get("/admin/password_change/")


def test_a_worker_that_shows_no_qr_code_has_not_loaded_what_draws_it() -> None:
    script = (
        "import sys; from hello_project import wsgi, urls; from django.urls import resolve;"
        "resolve('/admin/'); print('segno' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    environment = shared_environment() | {"SECRET_KEY": "x" * 60, "SECOND_FACTOR": "required"}
    said = subprocess.run(
        command, env=environment, cwd=site_settings.BASE_DIR, check=True, capture_output=True
    )
    assert said.stdout == b"False\n"
