"""After a key was issued, used, misused and revoked, nobody can find it anywhere."""

from __future__ import annotations

import base64
import logging
import os
import re
import subprocess
import sys
import zlib
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from redis import Redis

from apikeys import keys
from hello_project.gunicorn_errors import leave_out_what_was_sent
from tests.hello_project.raw import request, send
from tests.servers import Server, gunicorn, shared_environment

Places = dict[str, bytes]


class Cookies(CookieJar):
    """Remembers every cookie that was ever set, not only those that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.set: list[str] = []

    def extract_cookies(self, response: HTTPResponse, request: Request) -> None:
        self.set += response.info().get_all("Set-Cookie", [])
        super().extract_cookies(response, request)


class Browser:
    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = Cookies()
        self._opener = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> str:
        return self._open(Request(self.url + path))

    def post(self, path: str, **form: str) -> str:
        token = next(str(cookie.value) for cookie in self.cookies if cookie.name == "csrftoken")
        fields = urlencode(form | {"csrfmiddlewaretoken": token})
        return self._open(Request(self.url + path, fields.encode()))

    def _open(self, asked: Request) -> str:
        with self._opener.open(asked) as answer:
            return str(answer.read().decode())


def manage(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=settings.BASE_DIR,
        env={**os.environ, **shared_environment()}
        | {"DJANGO_SETTINGS_MODULE": "hello_project.settings"},
        capture_output=True,
        text=True,
        check=False,
    )


def key_in(text: str) -> keys.Key:
    [found] = {match[0] for match in re.finditer(keys.PATTERN, text)}
    key = keys.parse(found)
    assert key is not None
    return key


def test_the_plaintext_is_given_once_and_found_nowhere_afterwards(
    store: Redis, transactional_db: None, tmp_path: Path
) -> None:
    """With a log in JSON, which says all that the text says and what is attached to it besides."""
    User.objects.create_superuser("ann", password="open sesame")
    with gunicorn(
        tmp_path,
        workers=2,
        TRUSTED_PROXIES="127.0.0.1",
        LOG_FORMAT="json",
        DJANGO_SETTINGS_MODULE="tests.hello_project.extra_settings",
    ) as server:
        browser = Browser(server.url)
        by_form, form = issue_by_form(browser)
        places = database_places(" at once")
        send_again(browser, form, by_form)
        issued = manage("issue_key", "by command", "--rate", "100/1m")
        by_command = key_in(issued.stdout)
        rotated = manage("rotate_key", str(by_command))
        by_rotation = key_in(rotated.stdout)
        for key in (by_form, by_command, by_rotation):
            use_and_misuse(server, key)
        revoke_by_form(browser, by_form)
        revoked = manage("revoke_key", str(by_command))
        mistaken = manage("revoke_key", str(by_command)[:-1])
        for key in (by_form, by_command, by_rotation):
            use_and_misuse(server, key, status=401)
        places |= database_places("") | store_places(store)
    places |= database_places(" after the end")
    places |= cookie_places(browser.cookies.set)
    places["the server's log"] = server.log.read_bytes()
    for command in (issued, rotated, revoked, mistaken):
        places[f"stderr of {command.args[2]}, {command.returncode}"] = command.stderr.encode()

    for key in (by_form, by_command, by_rotation):
        for told in (str(key), key.secret, key.secret[:20], key.secret[-20:]):
            assert places_with(told, places) == [], told
    assert_that_the_search_finds_what_is_there(places, by_form, by_command)


def issue_by_form(browser: Browser) -> tuple[keys.Key, dict[str, str]]:
    """The key and the form that was sent for it."""
    browser.get("/admin/login/")
    browser.post("/admin/login/?next=/admin/", username="ann", password="open sesame")
    form = browser.get("/admin/apikeys/apikey/add/")
    [key_id] = re.findall(r'name="key_id" value="(\w+)"', form)
    fields = {"name": "by form", "environment": "live", "key_id": key_id, "_save": "Save"}
    page = browser.post("/admin/apikeys/apikey/add/", **fields)
    key = key_in(page)
    assert key.id == key_id
    return key, fields


def send_again(browser: Browser, form: dict[str, str], key: keys.Key) -> None:
    again = browser.post("/admin/apikeys/apikey/add/", **form)
    assert "already" in again
    pages = [again, *map(browser.get, ("/admin/", f"/admin/apikeys/apikey/{key.id}/change/"))]
    assert not [page for page in pages if key.secret in page]


def revoke_by_form(browser: Browser, key: keys.Key) -> None:
    browser.get(f"/admin/apikeys/apikey/revoke/?id={key.id}")
    page = browser.post("/admin/apikeys/apikey/revoke/", id=key.id, reason="lost")
    assert re.search(f"Revoked[^<]*{key.id}", page)
    assert key.secret not in page


def use_and_misuse(server: Server, key: keys.Key, status: int = 200) -> None:
    """Everything that a client could do with it, on purpose or not."""
    plaintext = str(key).encode()

    def ask(line: bytes, *fields: bytes, **options: Any) -> int:
        sent = request(line, *fields, **options).replace(b"KEY", plaintext)
        return send(server.port, sent).status

    good = (b"X-API-Key: KEY", b"Authorization: Bearer KEY", b"Authorization: Api-Key KEY")
    assert [ask(b"GET / HTTP/1.1", field) for field in good] == [status] * 3
    wrong_check = b"X-API-Key: KEYx", b"X-API-Key: " + plaintext[:-1] + b"_"
    other = keys.generate("live", key.id)
    wrong_secret = f"Authorization: Bearer {other}".encode()
    assert [ask(b"GET / HTTP/1.1", field) for field in (*wrong_check, wrong_secret)] == [401] * 3
    assert ask(b"GET / HTTP/1.1", b"X-API-Key: KEY", wrong_secret) == 400
    elsewhere = (b"Authorization: KEY", b"Authorization: Basic KEY", b"Cookie: sessionid=KEY")
    assert [ask(b"GET / HTTP/1.1", field) for field in elsewhere] == [401] * 3
    assert ask(b"GET /?key=KEY HTTP/1.1", b"Referer: http://localhost/?key=KEY") == 401
    assert ask(b"GET /KEY HTTP/1.1") == 404
    # Refused by gunicorn, which says in its log what was wrong.
    assert ask(b"GET / HTTP/1.1", b"X-API-Key KEY") == 400
    assert ask(b"GET / HTTP/1.1", b"X-API-Key: KEY\0") == 400
    assert ask(b"GET / HTTP/1.1", b"X-API-Key: ", b" KEY") == 400
    assert ask(b"GET / HTTP/1.1", b"KEY X: KEY") == 400
    assert ask(b"GET / HTTP/1.1", b"X-API-Key: KEY", b"Expect: KEY") == 417
    assert ask(b"GET / HTTP/1.1", b"Transfer-Encoding: KEY") == 501
    assert ask(b"GET /?key=KEY\xff HTTP/1.1") == 400
    assert ask(b"GET /?key=KEY 'HTTP/1.1'") == 400
    assert ask(b"KEY / HTTP/1.1") == 400
    assert ask(b"GET / KEY") == 400
    # Crashes, whose traceback is logged.
    assert ask(b"GET /crash?key=KEY HTTP/1.1", b"X-API-Key: KEY") == (500 if status == 200 else 401)
    fields = (b"Content-Type: application/json", b"Content-Length: 100")
    cut_off = b'{"key": "KEY"'.ljust(100)
    for path in (b"/echo", b"/"):
        answered = ask(b"POST " + path + b" HTTP/1.1", b"X-API-Key: KEY", *fields, body=cut_off)
        assert answered == (401 if status == 401 else 400 if path == b"/echo" else 405)


@pytest.mark.parametrize(
    ("line", "arguments", "left"),
    [
        ("Error handling request %s %s", ("GET", "/a?key=KEY"), "Error handling request GET /a…"),
        ("Error handling request %s %s", ("GET", "/a"), "Error handling request GET /a"),
        (
            "Ignored premature client disconnection. %s",
            (b"GET / HTTP/1.1\r\nX-API-Key: KEY",),
            "Ignored premature client disconnection…",
        ),
        ("Worker (pid:%s) exited with code %s.", (7, 3), "Worker (pid:7) exited with code 3."),
    ],
)
def test_what_gunicorn_logs_only_when_it_fails_or_debugs_has_no_key_either(
    line: str, arguments: tuple[object, ...], left: str
) -> None:
    record = logging.LogRecord("gunicorn.error", logging.ERROR, "", 0, line, arguments, None)
    assert leave_out_what_was_sent(record)
    assert record.getMessage() == left


# Where it could be


def database_places(when: str) -> Places:
    """Every row of every table, and the files of SQLite with what was deleted and not cleared."""
    places = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            places[f"table {table}{when}"] = repr(cursor.fetchall()).encode()
    sessions = (session.session_data for session in Session.objects.all())
    places["sessions, decoded" + when] = b"".join(map(decoded, sessions))
    # Whoever closes one of SQLite's files drops all locks that its process has on it.
    connection.close()
    for path in Path(settings.DATA_DIR).rglob("*"):
        if path.is_file():
            places[f"file {path.name}{when}"] = path.read_bytes()
    return places


def store_places(store: Redis) -> Places:
    """Each of the store's keys with its content, and the file that it writes when told to."""
    before = configured(store, "rdbcompression")
    store.config_set("rdbcompression", "no")
    places = {f"store {key!r}": key + (store.dump(key) or b"") for key in store.scan_iter()}
    if settings.STORE_IS_EMBEDDED:
        store.save()
        rdb = Path(configured(store, "dir"), configured(store, "dbfilename"))
        places["the store's file"] = rdb.read_bytes()
        rdb.unlink()
    store.config_set("rdbcompression", before)
    return places


def configured(store: Redis, name: str) -> str:
    return str(store.config_get(name)[name])


def cookie_places(set_cookies: list[str]) -> Places:
    places = {}
    for number, line in enumerate(set_cookies):
        for name, morsel in SimpleCookie(line).items():
            places[f"cookie {name} {number}"] = line.encode()
            places[f"cookie {name} {number}, decoded"] = decoded(morsel.value)
    return places


def decoded(signed: str) -> bytes:
    """What django.core.signing made of something, as it was; nothing of what is not of its making.

    A leading dot says that it was compressed; the value's own part ends at the first colon.
    """
    value = signed.partition(":")[0]
    packed = base64.urlsafe_b64decode(value.lstrip(".") + "=" * (-len(value.lstrip(".")) % 4))
    return zlib.decompress(packed) if value.startswith(".") else packed


def places_with(text: str, places: Places) -> list[str]:
    return [place for place, content in places.items() if text.encode() in content]


def assert_that_the_search_finds_what_is_there(places: Places, *issued: keys.Key) -> None:
    by_form, by_command = issued
    found = places_with(by_form.id, places)
    assert "table apikeys_apikey" in found
    assert "table django_admin_log" in found
    assert "the server's log" in found
    assert [place for place in found if re.fullmatch(r"cookie messages \d+, decoded", place)]
    found = places_with(by_command.id, places)
    assert [place for place in found if place.startswith("store b'")]
    assert {"stderr of issue_key, 0", "stderr of revoke_key, 0"} <= set(found)
    assert "stderr of revoke_key, 1" in places
    assert "sessions, decoded" in places_with("_auth_user_id", places)
    assert b"crashed on purpose" in places["the server's log"]
    if connection.vendor == "sqlite":
        assert "file tests.sqlite3 after the end" in found
    if settings.STORE_IS_EMBEDDED:
        assert "the store's file" in found
        assert "file valkey.log" in places
