"""Keys that djangorestframework-api-key itself has made, and a client that goes on with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import DjangoAssertNumQueries

from apikeys.models import ApiKey
from drf_api_keys.importing import REVOKED_THERE
from drf_api_keys.models import ImportedKey
from tests.apikeys.conftest import Ask
from tests.conftest import CommandsSent
from tests.drf_api_keys.conftest import SLOW, OldProject, header, prefix_of


def imported(key: str) -> ApiKey:
    return ImportedKey.objects.select_related("key").get(prefix=prefix_of(key)).key


def test_clients_go_on_with_the_keys_that_they_have(ask: Ask, old: OldProject) -> None:
    slow = old.makes(name="slow", version=SLOW)
    fast, revoked, expired, expires = old.does(
        ("make", {"name": "fast"}),
        ("make", {"name": "revoked", "revoked": True}),
        ("make", {"name": "expired", "expires_in": -1}),
        ("make", {"name": "expires", "expires_in": 3600}),
    )
    assert ask(header(fast)).status_code == 401
    stdout, stderr = old.run()
    assert stderr == ""
    assert stdout.splitlines() == [
        "rest_framework_api_key_apikey has 5 keys.",
        "Imported: 5, of these 1 revoked, 1 expired, 1 with a slow hash.",
        "Imported before: 0.",
    ]
    keys = {key.name: key.status for key in ApiKey.objects.all()}
    assert keys == {
        "slow": "active",
        "fast": "active",
        "revoked": "revoked",
        "expired": "expired",
        "expires": "expires_soon",
    }
    assert imported(revoked).revoked_reason == REVOKED_THERE
    good, bad = (slow, fast, expires), (revoked, expired)
    assert [ask(header(key)).status_code for key in good] == [200, 200, 200]
    assert [ask(header(key)).status_code for key in bad] == [401, 401]
    for key in good:
        assert ask({"X-API-Key": key}).status_code == 200
        assert ask({"Authorization": f"Bearer {key}"}).status_code == 200
        another_end = "0" if key[-1] != "0" else "1"
        assert ask(header(key[:-1] + another_end)).status_code in (401, 503)


def test_a_dry_run_says_the_same_and_writes_nothing(old: OldProject) -> None:
    old.makes(name="fast")
    stdout, stderr = old.run("--dry-run")
    assert stderr == ""
    assert stdout.splitlines() == [
        "rest_framework_api_key_apikey has 1 key.",
        "To import: 1.",
        "Imported before: 0.",
        "Nothing was written: this was a dry run.",
    ]
    assert not ApiKey.objects.exists()
    assert not ImportedKey.objects.exists()


def test_its_hash_is_checked_slowly_once(
    ask: Ask,
    old_file: OldProject,
    transactional_db: None,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    key = old_file.makes(name="slow", version=SLOW)
    old_file.run()
    assert ImportedKey.objects.get().hashed_key.startswith("pbkdf2_sha256$")
    assert ask(header(key)).status_code == 200
    assert ImportedKey.objects.get().is_fast
    assert ask(header(key)).status_code == 200
    with commands_sent() as commands, django_assert_num_queries(0):
        assert ask(header(key)).status_code == 200
    assert [command.split()[0] for command in commands] == ["EVALSHA", "GET"]


def test_run_again_it_takes_over_what_happened_there_since(ask: Ask, old: OldProject) -> None:
    slow = old.makes(name="slow", version=SLOW)
    fast, lost = old.does(("make", {"name": "fast"}), ("make", {"name": "lost"}))
    old.run()
    assert ask(header(lost)).status_code == 200
    *_, new = old.does(
        ("change", lost, {"revoked": True}), ("is_valid", slow), ("make", {"name": "new"})
    )
    dry, _ = old.run("--dry-run")
    assert dry.splitlines() == [
        "rest_framework_api_key_apikey has 4 keys.",
        "To import: 1.",
        "Imported before: 3, of these 1 revoked there since, 1 with a faster hash since.",
        "Nothing was written: this was a dry run.",
    ]
    assert ask(header(lost)).status_code == 200
    stdout, _ = old.run()
    assert stdout == "\n".join(dry.splitlines()[:-1]).replace("To import", "Imported") + "\n"
    assert [ask(header(key)).status_code for key in (fast, lost, new)] == [200, 401, 200]
    assert imported(lost).revoked_reason == REVOKED_THERE
    assert ImportedKey.objects.get(prefix=prefix_of(slow)).is_fast
    stdout, _ = old.run()
    assert stdout.splitlines()[1:] == ["Imported: 0.", "Imported before: 4."]
    assert ApiKey.objects.count() == 4


def test_keys_of_a_model_of_ones_own_are_imported_by_its_table(ask: Ask, old: OldProject) -> None:
    own, _ = old.does(
        ("make", {"name": "own", "model": "ShopKey", "shop": "Oslo"}), ("make", {"name": "plain"})
    )
    stdout, _ = old.run()
    assert "Imported: 1." in stdout
    assert "Keys are also in shop_shopkey: import them with --table." in stdout
    assert ask(header(own)).status_code == 401
    stdout, _ = old.run("--table", "shop_shopkey")
    assert stdout.startswith("shop_shopkey has 1 key.\nImported: 1.\n")
    assert ask(header(own)).status_code == 200
    assert ImportedKey.objects.get(prefix=prefix_of(own)).table == "shop_shopkey"


def test_what_is_deleted_or_expires_otherwise_there_is_named_and_left(old: OldProject) -> None:
    deleted, extended, _ = old.does(
        ("make", {"name": "deleted"}),
        ("make", {"name": "extended", "expires_in": 3600}),
        ("make", {"name": "other"}),
    )
    old.run()
    old.does(("delete", deleted), ("change", extended, {"expiry_date": None}))
    before = list(ApiKey.objects.values())
    for options in (["--dry-run"], []):
        stdout, stderr = old.run(*options)
        assert "Imported before: 2.\nImported before and no longer there: 1.\n" in stdout
        expires, gone = stderr.splitlines()
        moment = f"{imported(extended).expires_at:%Y-%m-%d %H:%M:%S}"
        assert expires == (
            f"{prefix_of(extended)} (extended) expires never there and {moment} here."
            " It is left as it is."
        )
        assert gone == (
            f"{prefix_of(deleted)} was imported earlier and is no longer there."
            " It is left as it is."
        )
    assert list(ApiKey.objects.values()) == before


@pytest.mark.usefixtures("transactional_db")
def test_the_old_database_is_not_written_to(old_file: OldProject) -> None:
    old_file.makes(name="fast")
    path = Path(old_file.url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    path.chmod(0o400)
    old_file.run()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
