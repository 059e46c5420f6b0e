"""What a proxy hears when it asks about a request."""

from __future__ import annotations

from http.client import HTTPConnection
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from tests.conftest import CommandsSent
from tests.hello_project.raw import request, send
from tests.servers import Server

Issued = tuple[ApiKey, str]


def verify(api: APIClient, key: str, path: str = "/verify", method: str = "GET") -> Any:
    return api.generic(method, path, headers={"X-API-Key": key})


def test_a_good_key_is_answered_204_with_who_is_calling(api: APIClient, issued: Issued) -> None:
    answer = verify(api, issued[1])
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer["X-Api-Key-Id"] == issued[0].pk
    assert answer["X-Api-Key-Name"] == "tests"
    assert answer["RateLimit-Policy"] == '"ip";q=3;w=10'
    assert answer["RateLimit"].startswith('"ip";r=2;t=')
    assert answer["Cache-Control"] == "no-store"
    assert "Content-Type" not in answer


def test_the_fourth_is_refused_as_anywhere(api: APIClient, issued: Issued) -> None:
    answers = [verify(api, issued[1]) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [204, 204, 204, 429]
    assert int(answers[3]["Retry-After"]) in range(1, 12)
    assert answers[3]["RateLimit"].startswith('"ip";r=0;')
    assert answers[3].json()["violated-policies"] == ["ip"]
    assert api.get("/", headers={"X-API-Key": issued[1]}).status_code == 429


def test_it_costs_one_round_trip_and_no_sql(
    api: APIClient, issued: Issued, commands_sent: CommandsSent
) -> None:
    verify(api, issued[1])
    with commands_sent() as sent, CaptureQueriesContext(connection) as queries:
        assert verify(api, issued[1]).status_code == 204
    assert [command.split()[0] for command in sent] == ["EVALSHA", "GET"]  # Sent together.
    assert len(queries) == 0


def test_without_a_good_key_it_is_401(api: APIClient, issued: Issued) -> None:
    assert api.get("/verify")["WWW-Authenticate"] == 'Bearer realm="api"'
    other = ApiKey(pk=issued[0].pk).make_secret()
    assert verify(api, other).status_code == 401
    issued[0].revoke()
    assert verify(api, issued[1]).status_code == 401


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/verify", 204),
        # What Envoy appends; of 2xx it takes only 200 for leave.
        ("/verify/", 200),
        ("/verify/reports/7.json", 200),
        ("/verify/a%0Ab%2F%0A", 200),
    ],
)
def test_any_method_and_what_the_proxy_appends_are_answered_alike(
    api: APIClient, issued: Issued, method: str, path: str, status: int
) -> None:
    good = verify(api, issued[1], path, method)
    assert (good.status_code, good.content) == (status, b"")
    assert good["X-Api-Key-Id"] == issued[0].pk
    assert verify(api, "nonsense", path, method).status_code == 401


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=0.9", "nonsense", ""])
def test_what_the_client_accepts_matters_to_the_service_alone(
    api: APIClient, issued: Issued, accept: str
) -> None:
    headers = {"X-API-Key": issued[1], "Accept": accept}
    assert api.get("/verify", headers=headers).status_code == 204
    refused = api.get("/verify", headers={"Accept": accept})
    assert refused.status_code == 401
    assert refused["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("Ünal & Söhne", "%C3%9Cnal & S%C3%B6hne"),
        ("100 % (a; b, c)", "100 %25 (a; b, c)"),
        ("two\r\nSet-Cookie: lines", "two%0D%0ASet-Cookie: lines"),
        ("鍵", "%E9%8D%B5"),
    ],
)
def test_any_name_fits_into_a_header(
    api: APIClient, transactional_db: None, name: str, sent: str
) -> None:
    key = ApiKey(name=name)
    plaintext = key.make_secret()
    key.save()
    assert verify(api, plaintext)["X-Api-Key-Name"] == sent


def test_the_client_is_whom_a_trusted_proxy_names(server: Server, issued: Issued) -> None:
    def ask(client: str) -> int:
        key = b"X-API-Key: " + issued[1].encode()
        asked = b"GET /verify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n%b\r\n\r\n"
        return send(server.port, asked % (key, b"X-Forwarded-For: " + client.encode())).status

    assert [ask("203.0.113.1") for _ in range(4)] == [204, 204, 204, 429]
    assert [ask("203.0.113.9, 203.0.113.1")] == [429]
    assert [ask("203.0.113.2") for _ in range(4)] == [204, 204, 204, 429]


@pytest.mark.parametrize("host", [b"reports.example", b"10.0.0.7:8000"])
def test_it_is_answered_under_any_host(server: Server, issued: Issued, host: bytes) -> None:
    key = b"X-API-Key: " + issued[1].encode()
    assert send(server.port, request(b"GET /verify HTTP/1.1", key, host=host)).status == 204
    asked = request(b"GET /verify/reports HTTP/1.1", key, host=host)
    assert send(server.port, asked).status == 200
    assert send(server.port, request(b"GET /verifying HTTP/1.1", key, host=host)).status == 400


def test_many_are_answered_over_one_connection(server: Server, issued: Issued) -> None:
    kept = HTTPConnection("127.0.0.1", server.port, timeout=5)
    for number in range(50):
        headers = {"X-API-Key": issued[1], "X-Forwarded-For": f"10.9.0.{number}"}
        kept.request("GET", "/verify", headers=headers)
        answer = kept.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
        assert answer.getheader("Content-Length") in (None, "0")
    kept.close()
