"""The list of imported keys: to find one by its prefix, and to see which are still in use."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.models import ApiKey
from drf_api_keys.models import ImportedKey
from tests.drf_api_keys.test_authentication import import_one, slow_hash

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/drf_api_keys/importedkey/"


@pytest.fixture
def viewer() -> Client:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_importedkey"))
    client = Client()
    client.force_login(user)
    return client


def lines_of(client: Client, **query: str) -> list[str]:
    """The text of each line of the list."""
    page = client.get(LIST, query).content.decode()
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    images = re.sub(r'<img [^>]*alt="(\w+)"[^>]*>', r"\1", body)
    lines = re.sub(r"<[^>]*>", " ", images.replace("</tr>", "\n")).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_a_line_says_which_api_key_it_is_and_how_that_is(viewer: Client) -> None:
    used = timezone.now().replace(month=2, day=3, hour=4, minute=5, second=6)
    key = import_one("Used0000.x", last_used_at=used)
    table = "rest_framework_api_key_apikey"
    [line] = lines_of(viewer)
    moment = f"{used.year}-02-03 04:05:06"
    assert line == f"Used0000 billing ({key.pk}) Active {moment} True {table}"
    assert f'href="/admin/apikeys/apikey/{key.pk}/change/"' in viewer.get(LIST).content.decode()
    key.revoke()
    ImportedKey.objects.update(hashed_key=slow_hash())
    assert lines_of(viewer) == [f"Used0000 billing ({key.pk}) Revoked {moment} False {table}"]


def test_it_is_found_by_prefix_name_or_id(viewer: Client) -> None:
    found = import_one("Found000.x")
    ApiKey.objects.update(name="wanted")
    import_one("Other000.x")
    for text in ("Found000", "wanted", found.pk):
        assert [line.split()[0] for line in lines_of(viewer, q=text)] == ["Found000"]


def test_those_used_last_come_first_when_asked(viewer: Client) -> None:
    now = timezone.now()
    for number in range(3):
        import_one(f"Key{number}.x", last_used_at=now.replace(microsecond=number))
    assert [line[:4] for line in lines_of(viewer, o="-4")] == ["Key2", "Key1", "Key0"]


def test_a_longer_list_asks_the_database_no_more_often(viewer: Client) -> None:
    counts = []
    for number in (1, 20):
        for each in range(number):
            import_one(f"{number}-{each}.x")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            lines_of(viewer)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_nothing_is_changed_there_and_no_hash_is_shown(
    viewer: Client, admin_client: Client
) -> None:
    key = import_one()
    imported = ImportedKey.objects.get()
    for client in (viewer, admin_client):
        page = f"{LIST}{key.pk}/change/"
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.post(f"{LIST}add/").status_code == 403
        assert client.post(page, {"prefix": "x"}).status_code == 403
        assert client.post(f"{LIST}{key.pk}/delete/", {"post": "yes"}).status_code == 403
        for path in (LIST, page):
            assert imported.hashed_key not in client.get(path).content.decode()
    assert ImportedKey.objects.get().prefix == imported.prefix


def test_who_may_not_view_it_does_not() -> None:
    user = User.objects.create_user("other", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(LIST).status_code == 403
