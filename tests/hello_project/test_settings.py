"""Settings as they come from the environment, and what depends on them in production."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from hello_project import environment
from tests.hello_project.raw import request, send
from tests.servers import gunicorn, wait_for

SECRET_KEY = "a-secret-key-of-the-tests-" + "0123456789abcdef" * 3
PRODUCTION = {
    "SECRET_KEY": SECRET_KEY,
    "ALLOWED_HOSTS": "api.example.com",
    "DATABASE_URL": "postgres://app:password@db.internal/app",
    "REDIS_URL": "rediss://store.internal:6379/0",
    "TRUSTED_PROXIES": "10.0.0.0/8",
    "CSRF_TRUSTED_ORIGINS": "https://api.example.com",
    "LOG_FORMAT": "json",
}


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a setting that nothing sets; whatever a test sets it to is gone afterwards."""
    for each in ("SOME_SETTING", "SOME_SETTING_FILE"):
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    return "SOME_SETTING"


def sentence_of(reader: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ImproperlyConfigured) as raised:
        reader(*arguments)
    sentence = str(raised.value)
    assert sentence.endswith(".")
    assert "SOME_SETTING" in sentence
    return sentence


# Readers

READERS: list[tuple[Callable[..., Any], list[Any], Any]] = [
    (environment.text, ["standard"], "standard"),
    (environment.secret, ["standard"], "standard"),
    (environment.switch, [True], True),
    (environment.whole_number, [7, 1, 9], 7),
    (environment.choice, [["first", "second"]], "first"),
    (environment.words, [["a", "b"]], ["a", "b"]),
    (environment.parsed, ["7", int], 7),
    (environment.origins, [], []),
    (environment.store_url, ["redis://here"], "redis://here"),
]


@pytest.mark.parametrize(("reader", "arguments", "default"), READERS)
def test_what_is_empty_or_blank_is_not_set(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reader: Callable[..., Any],
    arguments: list[Any],
    default: Any,
) -> None:
    assert reader(name, *arguments) == default
    for nothing in ("", "  ", "\t\n"):
        monkeypatch.setenv(name, nothing)
        assert reader(name, *arguments) == default


def test_text_is_stripped(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "  two words\n")
    assert environment.text(name) == environment.secret(name) == "two words"


def test_a_secret_may_be_in_a_file(
    monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv(f"{name}_FILE", str(file))
    file.write_text("from the file\n")
    assert environment.secret(name) == "from the file"
    monkeypatch.setenv(name, "")  # As good as not set.
    assert environment.secret(name) == "from the file"
    file.write_text("\n")
    assert environment.secret(name, "standard") == "standard"


def test_a_store_and_a_database_with_a_password_may_be_in_a_file(
    monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    monkeypatch.setenv(f"{name}_FILE", str(file))
    file.write_text("rediss://:pass%40word@store.internal:6380/1\n")
    assert environment.store_url(name, "") == "rediss://:pass%40word@store.internal:6380/1"
    file.write_text("postgres://app:pass%40word@db.internal:5433/app?sslmode=require\n")
    found = environment.database(name, "")
    wanted = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "app",
        "USER": "app",
        "PASSWORD": "pass@word",
        "HOST": "db.internal",
        "PORT": 5433,
        "OPTIONS": {"sslmode": "require"},
    }
    assert {part: found[part] for part in wanted} == wanted


def test_a_secret_set_twice_is_refused_without_telling_it(
    monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("from the file")
    monkeypatch.setenv(name, "from the environment")
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    sentence = sentence_of(environment.secret, name)
    assert sentence == "Both SOME_SETTING and SOME_SETTING_FILE are set: keep one of them."


@pytest.mark.parametrize("kind", ["missing", "folder", "not text"])
def test_a_secrets_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "secret"
    if kind == "folder":
        path.mkdir()
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe")
    monkeypatch.setenv(f"{name}_FILE", str(path))
    assert sentence_of(environment.secret, name).startswith("SOME_SETTING_FILE cannot be read: ")


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        *[(word, True) for word in ("1", "true", "True", "YES", "on", " on ")],
        *[(word, False) for word in ("0", "false", "FALSE", "no", "Off")],
    ],
)
def test_a_switch_is_a_word_of_either_kind(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, meaning: bool
) -> None:
    monkeypatch.setenv(name, value)
    assert environment.switch(name, default=not meaning) is meaning


@pytest.mark.parametrize("value", ["2", "perhaps", "t", "truefalse"])
def test_a_switch_is_no_other_word(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert repr(value) in sentence_of(environment.switch, name, False)


def test_a_whole_number_lies_within_its_bounds(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for value in (1, 80, 65535):
        monkeypatch.setenv(name, str(value))
        assert environment.whole_number(name, 8000, 1, 65535) == value


@pytest.mark.parametrize("value", ["0", "65536", "-1", "+1", "1.0", "1_0", "٣", "0x50", "9" * 5000])
def test_a_whole_number_is_nothing_else(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    sentence = sentence_of(environment.whole_number, name, 8000, 1, 65535)
    assert sentence.endswith("write a whole number from 1 to 65535.")


def test_a_choice_is_one_of_those_it_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "deny")
    assert environment.choice(name, ["local", "deny"]) == "deny"
    monkeypatch.setenv(name, "DENY")
    assert "local, deny" in sentence_of(environment.choice, name, ["local", "deny"])


def test_words_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, " a, b c,,d, ")
    assert environment.words(name) == ["a", "b c", "d"]
    monkeypatch.setenv(name, ",")
    assert environment.words(name, ["x"]) == ["x"]


def test_what_is_parsed_fails_with_its_parsers_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(value: str) -> int:
        raise ValueError("write it otherwise.")

    monkeypatch.setenv(name, "so")
    assert sentence_of(environment.parsed, name, "", refuse) == (
        "SOME_SETTING is 'so': write it otherwise."
    )


@pytest.mark.parametrize("value", ["api.example.com", "ftp://a", "https://", "https://a,b", "//a"])
def test_origins_have_a_scheme_and_a_host(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, "https://a.example, http://b.example:8080")
    assert environment.origins(name) == ["https://a.example", "http://b.example:8080"]
    monkeypatch.setenv(name, value)
    assert "https://api.example.com" in sentence_of(environment.origins, name)


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (environment.store_url, "store.internal:6379"),
        (environment.store_url, "memcached://:hunter2@here"),
        (environment.store_url, "redis://"),
        (environment.store_url, "redis://:hunter2@[::1"),
        (environment.store_url, "redis://:hunter2@here:port"),
        (environment.store_url, "redis://:hunter2@here:0"),
        (environment.database, "db.internal"),
        (environment.database, "mysql://app:hunter2@here/app"),
        (environment.database, "postgres://app:hunter2@here:99999/app"),
        (environment.database, "postgres://"),
    ],
)
def test_a_url_of_another_kind_is_refused_without_telling_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str, reader: Callable[..., Any], value: str
) -> None:
    monkeypatch.setenv(name, value)
    sentence = sentence_of(reader, name, "")
    assert "hunter2" not in sentence


# .env


def test_the_environment_wins_over_dotenv(
    monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("# A remark.\nSOME_SETTING='from .env'  # another\n")
    monkeypatch.setenv(name, "from the environment")
    environment.read_dotenv(dotenv)
    assert environment.text(name) == "from the environment"
    monkeypatch.setenv(name, "")
    environment.read_dotenv(dotenv)
    assert environment.text(name) == ""
    monkeypatch.delenv(name)
    environment.read_dotenv(dotenv)
    assert environment.text(name) == "from .env"


def test_no_dotenv_is_none(name: str, tmp_path: Path) -> None:
    environment.read_dotenv(tmp_path / ".env")
    assert environment.text(name) == ""


def test_a_dotenv_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"SECRET_KEY=\xff\n")
    with pytest.raises(ImproperlyConfigured, match=r"\.env cannot be read"):
        environment.read_dotenv(tmp_path / ".env")


def test_the_project_reads_its_dotenv(tmp_path: Path) -> None:
    for package in ("hello_project", "throttling"):
        shutil.copytree(settings.BASE_DIR / package, tmp_path / package)
    (tmp_path / ".env").write_text("PORT=1234\nHOST=192.0.2.1\nIP_RATE_LIMIT=7/1m\nDATA_DIR=here\n")
    code = "from hello_project.settings import *; print(PORT, HOST, IP_RATE_LIMIT, DATA_DIR)"
    shown = run("-c", code, cwd=tmp_path, env={"HOST": "192.0.2.2"})
    assert shown.stdout == f"1234 192.0.2.2 7/1m {tmp_path / 'here'}\n", shown.stderr


# Production


def run(
    *command: str, env: dict[str, str], cwd: Path = settings.BASE_DIR
) -> subprocess.CompletedProcess[str]:
    """Python with nothing of the tests' environment."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=env | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_production_environment_passes_djangos_checks(tmp_path: Path) -> None:
    check = ["manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    production = PRODUCTION | {"DATA_DIR": str(tmp_path)}
    passed = run(*check, env=production)
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout == "System check identified no issues (0 silenced).\n"
    assert passed.stderr == ""
    assert list(tmp_path.iterdir()) == []
    careless = {"HTTPS": "off", "DEBUG": "on", "SECRET_KEY": "short"}
    failed = run(*check, env=production | careless)
    for warning in ("W004", "W008", "W009", "W012", "W016", "W018"):
        assert f"security.{warning}" in failed.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("SECRET_KEY_FILE", "/nonexistent"),
        ("IP_RATE_LIMIT", "three per ten"),
        ("DATABASE_URL", "mysql://here/app"),
        ("TOKEN_SECRETS", "short"),
        ("METRICS_TOKEN", "short"),
        ("METRICS_NETWORKS", "10.0.0.0/99"),
    ],
)
def test_gunicorn_ends_with_one_sentence_when_a_setting_is_missing_or_malformed(
    tmp_path: Path, name: str, value: str
) -> None:
    env = {**PRODUCTION, "DATA_DIR": str(tmp_path), name: value}
    if name == "SECRET_KEY_FILE":
        del env["SECRET_KEY"]
    ended = run("-m", "gunicorn", "hello_project.wsgi", env=env)
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert name in ended.stderr
    assert "short" not in ended.stderr


def test_any_other_server_learns_which_setting_is_missing(tmp_path: Path) -> None:
    ended = run("-c", "import hello_project.wsgi", env={"DATA_DIR": str(tmp_path)})
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].endswith("Set SECRET_KEY or SECRET_KEY_FILE.")


def test_only_the_pages_are_sent_to_https(settings: LazySettings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    client = Client()
    for path in ("/admin", "/admin/", "/admin/apikeys/", "/docs", "/docs/"):
        assert client.get(path)["Location"] == f"https://testserver{path}"
    for path, status in (("/", 401), ("/livez", 200), ("/administration", 404)):
        assert client.get(path).status_code == status


@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 302), ("", 301)])
def test_only_a_trusted_proxy_is_believed_to_have_been_asked_by_https(
    transactional_db: None, tmp_path: Path, trusted: str, status: int
) -> None:
    with gunicorn(tmp_path, workers=1, HTTPS="on", TRUSTED_PROXIES=trusted) as server:
        answer = send(server.port, request(b"GET /admin/ HTTP/1.1", b"X-Forwarded-Proto: https"))
    assert answer.status == status
    assert answer.fields["location"].startswith("https:" if status == 301 else "/admin/login/")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_each_event_in_the_log_can_be_read_by_a_machine(
    issued: tuple[object, str], tmp_path: Path, log_format: str
) -> None:
    with gunicorn(
        tmp_path,
        workers=1,
        LOG_FORMAT=log_format,
        DJANGO_SETTINGS_MODULE="tests.hello_project.extra_settings",
    ) as server:
        send(server.port, request(b"GET / HTTP/1.1", b"X-API-Key: nonsense"))
        send(server.port, request(b"nonsense"))
        key = b"X-API-Key: " + issued[1].encode()
        send(server.port, request(b"GET /crash HTTP/1.1", key))
    read = read_json if log_format == "json" else read_text
    events = read(server.log.read_text())
    assert [(event["levelname"], event["name"]) for event in events] == [
        ("INFO", "apikeys.authentication"),
        ("INFO", "hello_project.request_log"),
        ("WARNING", "gunicorn.error"),
        ("ERROR", "django.request"),
        ("INFO", "hello_project.request_log"),
    ]
    crash = events[3]
    assert crash["message"] == "Internal Server Error: /crash"
    assert crash["exc_info"].startswith("Traceback (most recent call last):\n")
    assert crash["exc_info"].strip().endswith("RuntimeError: crashed on purpose, True")
    ids = [event["request_id"] for event in events]
    assert ids[0] == ids[1] != ids[3] == ids[4]
    assert ids[2] == "-"
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}$", e["asctime"]) for e in events)


def test_what_gunicorns_master_says_is_in_that_format_too(
    issued: tuple[object, str], tmp_path: Path
) -> None:
    with gunicorn(tmp_path, workers=1, LOG_FORMAT="json") as server:
        master = server.process.pid
        children = Path(f"/proc/{master}/task/{master}/children")
        wait_for(lambda: bool(children.read_text()))
        os.kill(int(children.read_text()), signal.SIGKILL)
        wait_for(lambda: "SIGKILL" in server.log.read_text())
    assert [event["name"] for event in read_json(server.log.read_text())] == ["gunicorn.error"]


def read_json(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def read_text(log: str) -> list[dict[str, Any]]:
    """An event is a line that begins with its moment, and what follows of its traceback."""
    starts = re.split(r"^(?=20\d\d-\d\d-\d\d )", log, flags=re.MULTILINE)
    assert starts.pop(0) == ""
    pattern = re.compile(
        r"(?P<asctime>\S+ \S+) (?P<levelname>[A-Z]+) (?P<name>[\w.]+) "
        r"\[(?P<request_id>[^]]+)\] (?P<message>[^\n]*)\n"
        r"(?P<exc_info>.*)",
        re.DOTALL,
    )
    events = [pattern.fullmatch(start) for start in starts]
    assert all(events), log
    return [event.groupdict() for event in events if event]
