"""A line for each request."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from hello_project import request_id
from hello_project.traffic import traffic
from hello_project.views import PARTS
from tests.hello_project.raw import request, send
from tests.servers import gunicorn
from throttling.addresses import parse_networks

Issued = tuple[ApiKey, str]
BEHIND_A_PROXY = override_settings(TRUSTED_PROXIES=parse_networks("127.0.0.1"))


Lines = pytest.LogCaptureFixture


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What is logged, as the site's own output would have it."""
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(request_id.Filter())
    return caplog


def of_requests(lines: Lines) -> list[dict[str, Any]]:
    return [vars(line) for line in lines.records if line.name == "hello_project.request_log"]


def test_it_says_who_asked_what_and_what_became_of_it(
    api: APIClient, issued: Issued, lines: Lines
) -> None:
    for _ in range(4):
        answer = api.get("/", headers={"X-API-Key": issued[1]}, REMOTE_ADDR="203.0.113.7")
    first, *_, last = of_requests(lines)
    assert first["method"] == "GET"
    assert first["path"] == "/"
    assert (first["status"], first["outcome"]) == (200, "admitted")
    assert (first["client"], first["key_id"]) == ("203.0.113.7", issued[0].pk)
    assert 0 < first["duration_ms"] < 10_000
    assert (last["status"], last["outcome"]) == (429, "refused:ip")
    assert "key_id" not in last  # Nobody has looked at the key.
    assert last["request_id"] == answer["X-Request-ID"] != first["request_id"]
    assert re.fullmatch(r"[0-9a-f]{16}", answer["X-Request-ID"])
    assert re.fullmatch(
        rf"GET / 200 admitted client=203\.0\.113\.7 key_id={issued[0].pk} \d+\.\dms",
        first["message"],
    )


def test_every_request_has_one(api: APIClient, db: None, lines: Lines) -> None:
    for path in ("/", "/nothing", "/admin/login/"):
        api.get(path)
    found = [(line["path"], line["status"], line["outcome"]) for line in of_requests(lines)]
    assert found == [
        ("/", 401, "unauthenticated"),
        ("/nothing", 404, "invalid"),
        ("/admin/login/", 200, "admitted"),
    ]


def test_a_probe_that_found_all_well_has_none(
    api: APIClient, db: None, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.get("/livez")
    api.get("/readyz")
    assert of_requests(lines) == []
    monkeypatch.setitem(PARTS, "store", lambda: False)
    api.get("/readyz")
    assert [line["status"] for line in of_requests(lines)] == [503]


def test_no_credential_gets_into_it(api: APIClient, issued: Issued, lines: Lines) -> None:
    plaintext = issued[1]
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    with BEHIND_A_PROXY:
        api.get(f"/{plaintext}/x", headers={"X-API-Key": plaintext})
        api.get(f"/?key={plaintext}", headers={"X-Request-ID": plaintext})
        api.get(f"/{token}")
        original = {"X-Original-URI": f"/{plaintext}?k={token}", "X-Original-Method": plaintext}
        api.get("/verify", headers=original)
        api.generic(plaintext, "/")
    text = repr([vars(line) for line in lines.records])
    assert plaintext.rpartition("_")[2] not in text
    assert token not in text
    assert "c2lnbmF0dXJl" not in text
    assert of_requests(lines)[0]["path"] == f"/hk_live_{issued[0].pk}…/x"


def test_nobody_can_forge_a_line(api: APIClient, db: None, lines: Lines) -> None:
    with BEHIND_A_PROXY:
        api.get("/a%0Ab%1B[31m\u2028", headers={"X-Request-ID": "1 2\n3"})
        api.get("/verify", headers={"X-Original-URI": "/\x1b[2J 200 admitted"})
    for line in of_requests(lines):
        assert line["message"].isascii()
        assert line["message"].isprintable()
    assert of_requests(lines)[0]["path"] == "/a%0Ab%1B%5B31m%E2%80%A8"


def test_a_long_path_is_cut(api: APIClient, db: None, lines: Lines) -> None:
    api.get("/" + "a" * 5000)
    assert len(of_requests(lines)[0]["message"]) < 300


def test_only_a_trusted_proxys_request_id_is_taken(api: APIClient, db: None) -> None:
    sent = {"X-Request-ID": "Root=1-67891233-abcdef012345678912345678"}
    assert api.get("/", headers=sent)["X-Request-ID"] != sent["X-Request-ID"]
    with BEHIND_A_PROXY:
        assert api.get("/", headers=sent)["X-Request-ID"] == sent["X-Request-ID"]
        for bad in ("a b", "a" * 129, "ü", ""):
            answer = api.get("/", headers={"X-Request-ID": bad})
            assert re.fullmatch(r"[0-9a-f]{16}", answer["X-Request-ID"])


def test_what_a_proxy_asks_about_is_told_without_its_query(
    api: APIClient, issued: Issued, lines: Lines
) -> None:
    nginx = {"X-Original-Method": "POST", "X-Original-URI": "/reports/7?token=1"}
    caddy = {"X-Forwarded-Method": "PUT", "X-Forwarded-Uri": "/reports/8"}
    api.get("/verify", headers=nginx)
    with BEHIND_A_PROXY:
        api.get("/verify", headers=nginx)
        api.get("/verify", headers=caddy)
        api.get("/", headers=caddy)
    asked_about = [line.get("asked_about") for line in of_requests(lines)]
    assert asked_about == [None, "POST /reports/7", "PUT /reports/8", None]


def test_an_unknown_path_is_counted_and_a_page_is_not(api: APIClient, db: None) -> None:
    for path in ("/nothing", "/admin/", "/admin/nothing", "/static/nothing.css", "/livez"):
        api.get(path)
    assert dict(traffic._outcomes).popitem()[1] == 1
    assert [outcome for _, outcome in traffic._outcomes] == ["invalid"]


def test_all_that_is_logged_of_a_request_carries_its_id(
    api: APIClient, db: None, lines: Lines
) -> None:
    answer = api.get("/", headers={"X-API-Key": "nonsense"})
    assert {vars(line)["request_id"] for line in lines.records} == {answer["X-Request-ID"]}
    assert {line.name for line in lines.records} > {"hello_project.request_log"}
    assert request_id.current.get() == "-"


def test_as_json_each_is_an_object(issued: Issued, tmp_path: Path) -> None:
    with gunicorn(tmp_path, workers=1, LOG_FORMAT="json", TRUSTED_PROXIES="127.0.0.1") as server:
        key = b"X-API-Key: " + issued[1].encode()
        send(server.port, request(b"GET / HTTP/1.1", key, b"X-Request-ID: from-the-proxy"))
    [line] = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert line.pop("duration_ms") > 0
    assert line.pop("client").startswith("10.")
    assert line.pop("asctime")
    assert line.pop("message").startswith("GET / 200 admitted ")
    assert line == {
        "levelname": "INFO",
        "name": "hello_project.request_log",
        "request_id": "from-the-proxy",
        "method": "GET",
        "path": "/",
        "status": 200,
        "outcome": "admitted",
        "key_id": issued[0].pk,
    }


def test_it_can_be_switched_off(issued: Issued, tmp_path: Path) -> None:
    with gunicorn(tmp_path, workers=1, REQUEST_LOG="off", TRUSTED_PROXIES="127.0.0.1") as server:
        key = b"X-API-Key: " + issued[1].encode()
        answer = send(server.port, request(b"GET / HTTP/1.1", key))
    assert answer.status == 200
    assert answer.fields["x-request-id"]
    assert server.log.read_text() == ""
