"""The list of keys in the admin, and what holds for every page."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.models import ApiKey
from tests.apikeys.admin_pages import (
    ADD,
    LIST,
    REVOKE,
    filled_in,
    page_of,
    text_of,
)

pytestmark = pytest.mark.usefixtures("transactional_db")


def ids_listed(client: Client, **query: str) -> set[str]:
    answer = client.get(LIST, query)
    assert answer.status_code == 200
    return set(re.findall(rf'href="{LIST}(\w{{12}})/change/', answer.content.decode()))


@pytest.fixture
def keys_of_each_status() -> dict[str, str]:
    """The id of each."""
    now, day = timezone.now(), timedelta(days=1)
    values: dict[str, dict[str, Any]] = {
        "active": {"owner": "Ann Lindqvist"},
        "expires later": {"expires_at": now + day, "environment": "test"},
        "expired": {"expires_at": now - day},
        "revoked": {"revoked_at": now},
        "revoked and expired": {"expires_at": now - day, "revoked_at": now},
    }
    made = {}
    for name, fields in values.items():
        key = ApiKey.objects.create(name=name, digest="0" * 64, **fields)
        made[name] = key.pk
    return made


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"status": "active"}, {"active", "expires later"}),
        ({"status": "expired"}, {"expired"}),
        ({"status": "revoked"}, {"revoked", "revoked and expired"}),
        ({"environment__exact": "test"}, {"expires later"}),
        ({"status": "active", "environment__exact": "live"}, {"active"}),
        ({"q": "EXPIRE"}, {"expires later", "expired", "revoked and expired"}),
        ({"q": "lindqvist"}, {"active"}),
        ({"q": "nobody"}, set()),
    ],
)
def test_the_list_is_filtered_and_searched(
    operator: Client, keys_of_each_status: dict[str, str], query: dict[str, str], names: set[str]
) -> None:
    assert ids_listed(operator, **query) == {keys_of_each_status[name] for name in names}


def test_a_key_is_found_by_its_id(operator: Client, keys_of_each_status: dict[str, str]) -> None:
    assert len(ids_listed(operator)) == 5
    for key_id in keys_of_each_status.values():
        assert ids_listed(operator, q=key_id) == {key_id}


def test_the_list_shows_each_status(operator: Client, keys_of_each_status: dict[str, str]) -> None:
    shown = re.findall(r'<span class="key-(\w+)">(\w+)</span>', text_of(operator.get(LIST)))
    wanted = ["active", "active", "expired", "revoked", "revoked"]
    assert sorted(value for value, _ in shown) == wanted
    assert all(label == value.capitalize() for value, label in shown)


def test_the_list_takes_as_many_queries_for_fifty_keys_as_for_one(operator: Client) -> None:
    user = User.objects.get()
    counts = []
    for more in (1, 49):
        ApiKey.objects.bulk_create(
            ApiKey(name=str(n), digest="0" * 64, created_by=user) for n in range(more)
        )
        with CaptureQueriesContext(connection) as queries:
            operator.get(LIST)
        counts.append(len(queries))
    assert ApiKey.objects.count() == 50
    assert counts[0] == counts[1]


# Every page


def test_names_are_text_wherever_they_are_shown(operator: Client) -> None:
    evil = "<script>alert(1)</script>"
    pages = [operator.post(ADD, filled_in(operator, name=evil, owner=evil))]
    key = ApiKey.objects.get()
    paths = [LIST, page_of(key), f"{REVOKE}?id={key.pk}", f"{LIST}{key.pk}/history/", "/admin/"]
    pages += [operator.get(path) for path in paths]
    pages.append(operator.post(REVOKE, {"id": key.pk, "reason": evil}, follow=True))
    pages.append(operator.get(page_of(key)))
    for page in pages:
        assert "alert(1)" in page.content.decode()
        assert evil not in page.content.decode()


def test_everything_a_page_loads_comes_from_here_and_is_there(operator: Client) -> None:
    issued_page = operator.post(ADD, filled_in(operator))
    key = ApiKey.objects.get()
    paths = (LIST, ADD, page_of(key), f"{REVOKE}?id={key.pk}")
    for page in (issued_page, *(operator.get(path) for path in paths)):
        text = text_of(page)
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="([^"]+)"', text)
        files = [path.removeprefix("/static/") for path in loaded if path != "/admin/jsi18n/"]
        assert "apikeys/admin.css" in files
        assert [path for path in files if finders.find(path) is None] == []
        assert re.findall(r"<script>|<style|\bstyle=|\bon[a-z]+=", text) == []
