"""A key buys a token, which then stands for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from hello_project import environment
from tests.hello_project.raw import request, send
from tests.servers import Server, gunicorn

PATH = "/get-auth-token"
OLD, NEW = "old" * 11, "new" * 11

Issued = tuple[ApiKey, str]
Call = Callable[..., Any]


@pytest.fixture
def call(api: APIClient) -> Call:
    """Each time from another address."""
    numbers = itertools.count(1)

    def call(path: str = "/", method: str = "GET", /, **headers: str) -> Any:
        sent = {field.replace("_", "-"): value for field, value in headers.items()}
        return api.generic(method, path, headers=sent, REMOTE_ADDR=f"10.1.1.{next(numbers)}")

    return call


def buy(call: Call, key: str) -> str:
    answer = call(PATH, "POST", X_API_Key=key)
    assert answer.status_code == 200
    return str(answer.json()["access_token"])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"X_API_Key": "{key}"},
        {"Authorization": "Bearer {key}"},
        {"Authorization": "Api-Key {key}"},
    ],
)
def test_a_key_buys_a_token_which_is_accepted_wherever_the_key_is(
    call: Call, issued: Issued, method: str, headers: dict[str, str]
) -> None:
    sent = {field: value.format(key=issued[1]) for field, value in headers.items()}
    answer = call(PATH, method, **sent)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer["Cache-Control"] == "no-store"
    assert answer["RateLimit"].startswith('"ip";r=2;')
    token = answer.json()["access_token"]
    assert answer.json() == {"access_token": token, "token_type": "Bearer", "expires_in": 300}
    authorization = f"Bearer {token}"
    assert call("/", Authorization=authorization).json() == {"message": "Hello, World!"}
    assert call("/rate-limit", Authorization=authorization).status_code == 200
    verified = call("/verify", Authorization=authorization)
    assert (verified.status_code, verified["X-Api-Key-Id"]) == (204, issued[0].pk)


def test_a_token_buys_no_token(call: Call, issued: Issued) -> None:
    token = buy(call, issued[1])
    for method in ("GET", "POST"):
        for headers in ({"Authorization": f"Bearer {token}"}, {"X_API_Key": token}):
            answer = call(PATH, method, **headers)
            assert answer.status_code == 401
            assert answer["WWW-Authenticate"] == 'Bearer realm="api", error="invalid_token"'
            assert "access_token" not in answer.json()


def test_only_a_good_key_buys_one(call: Call, issued: Issued) -> None:
    nothing = call(PATH)
    assert (nothing.status_code, nothing["WWW-Authenticate"]) == (401, 'Bearer realm="api"')
    assert call(PATH, X_API_Key="nonsense").status_code == 401
    assert call(f"{PATH}?key={issued[1]}").status_code == 401
    issued[0].networks = "192.0.2.0/24"
    issued[0].save()
    assert call(PATH, X_API_Key=issued[1]).status_code == 403
    issued[0].revoke()
    assert call(PATH, X_API_Key=issued[1]).status_code == 401


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_is_bought_by_get_and_post_alone(call: Call, issued: Issued, method: str) -> None:
    answer = call(PATH, method, X_API_Key=issued[1])
    assert answer.status_code == 405
    assert set(answer["Allow"].split(", ")) >= {"GET", "POST"}


@pytest.mark.parametrize("content_type", ["application/json", "text/xml", "nonsense", ""])
def test_what_is_posted_besides_does_not_matter(
    api: APIClient, issued: Issued, content_type: str
) -> None:
    headers = {"X-API-Key": issued[1]}
    answer = api.generic("POST", PATH, "{nonsense", content_type=content_type, headers=headers)
    assert answer.status_code == 200


def test_buying_counts_against_the_addresss_limit_and_the_keys(
    api: APIClient, call: Call, issued: Issued
) -> None:
    statuses = [api.get(PATH, headers={"X-API-Key": issued[1]}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    ApiKey.objects.update(rate="2/1m")
    assert [call(PATH, X_API_Key=issued[1]).status_code for _ in range(3)] == [200, 200, 429]


def test_of_a_key_that_expires_soon_the_token_lasts_no_longer(
    call: Call, transactional_db: None
) -> None:
    soon = timezone.now() + timedelta(seconds=100)
    _, plaintext = ApiKey.objects.issue(name="tests", expires_at=soon)
    assert 80 < call(PATH, X_API_Key=plaintext).json()["expires_in"] < 100


def test_after_a_revocation_its_tokens_are_refused_by_every_process(
    issued: Issued, server: Server
) -> None:
    token = bought_from(server, issued[1])
    assert {status_with(server, token) for _ in range(20)} == {200}
    issued[0].revoke()
    assert {status_with(server, token) for _ in range(20)} == {401}


def bought_from(server: Server, key: str) -> str:
    answer = send(server.port, request(b"POST /get-auth-token HTTP/1.1", bearer(key)))
    assert answer.status == 200, answer
    return str(json.loads(answer.body)["access_token"])


def status_with(server: Server, token: str) -> int:
    return send(server.port, request(b"GET / HTTP/1.1", bearer(token))).status


def bearer(text: str) -> bytes:
    return f"Authorization: Bearer {text}".encode()


def test_secrets_are_rolled_without_refusing_anybody_and_none_is_logged(
    issued: Issued, tmp_path: Path
) -> None:
    """Each server is one that was started with other TOKEN_SECRETS, as one after the other is."""
    file = tmp_path / "secrets"
    file.write_text(f"{NEW}\n{OLD}\n")
    environments = {
        "before": {"TOKEN_SECRETS": OLD},
        "told": {"TOKEN_SECRETS": f"{OLD}, {NEW}"},
        "rolled": {"TOKEN_SECRETS_FILE": str(file)},
        "after": {"TOKEN_SECRETS": NEW},
        "never told": {},
    }
    tokens: dict[str, str] = {}
    accepted: dict[str, set[str]] = {}
    logs = ""
    for stage, variables in environments.items():
        with gunicorn(tmp_path, workers=1, TRUSTED_PROXIES="127.0.0.1", **variables) as server:
            tokens[stage] = bought_from(server, issued[1])
            accepted[stage] = {by for by, of in tokens.items() if status_with(server, of) == 200}
            logs += server.log.read_text()
    assert accepted == {
        "before": {"before"},
        "told": {"before", "told"},
        "rolled": {"before", "told", "rolled"},
        "after": {"rolled", "after"},
        "never told": {"never told"},
    }
    assert "Refused a token: " in logs
    for told in (OLD, NEW, *(part for token in tokens.values() for part in token.split(".")[1:])):
        assert told not in logs


# TOKEN_SECRETS


def read() -> list[str]:
    return environment.secrets("TOKEN_SECRETS", shortest=32)


def test_secrets_are_separated_by_commas_newest_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for nothing in ("", " , ", ","):
        monkeypatch.setenv("TOKEN_SECRETS", nothing)
        assert read() == []
    monkeypatch.setenv("TOKEN_SECRETS", f" {NEW},, {OLD} ,")
    assert read() == [NEW, OLD]
    monkeypatch.setenv("TOKEN_SECRETS", "")
    (tmp_path / "secrets").write_text(f"{NEW}\r\n{OLD}, {NEW}\n")
    monkeypatch.setenv("TOKEN_SECRETS_FILE", str(tmp_path / "secrets"))
    assert read() == [NEW, OLD, NEW]


@pytest.mark.parametrize("value", ["s" * 31, f"{NEW},hunter2", f"hunter2, {NEW}"])
def test_a_short_secret_is_refused_without_telling_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TOKEN_SECRETS", value)
    with pytest.raises(ImproperlyConfigured) as raised:
        read()
    sentence = str(raised.value)
    assert sentence.startswith("TOKEN_SECRETS has a secret of ")
    assert "write at least 32" in sentence
    assert "secrets.token_urlsafe" in sentence
    assert not any(part.strip() in sentence for part in value.split(","))
