"""The page where a key is tried."""

from __future__ import annotations

import re
from contextlib import closing

from django.conf import LazySettings
from django.test import Client
from rest_framework.test import APIClient


def test_all_that_it_loads_is_here(api: APIClient, db: None) -> None:
    page = api.get("/docs/")
    loaded = re.findall(r'(?:src|href|data-url)="([^"]*)"', page.content.decode())
    assert len(loaded) == 7
    for path in loaded:
        assert path.startswith("/")
        with closing(api.get(path)) as answer:
            assert answer.status_code == 200, path


def test_its_policy_lets_nothing_in_from_elsewhere(api: APIClient) -> None:
    page = api.get("/docs/")
    policy = dict(each.split(" ", 1) for each in page["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert set(" ".join(policy.values()).split()) == {"'none'", "'self'", "data:"}
    assert not re.search(r"<style|style=|<script>| on\w+=", page.content.decode())


def test_where_a_key_is_pasted_is_sent_to_https(settings: LazySettings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/docs/")["Location"] == "https://testserver/docs/"
    assert Client().get("/openapi.json").status_code == 200
