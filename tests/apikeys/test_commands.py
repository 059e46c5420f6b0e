"""The operator's commands: what they do, and what they print where."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from apikeys import generation, keys
from apikeys.models import ApiKey
from tests.apikeys.conftest import Ask, Issued
from tests.servers import free_port, shared_environment


def run(*command: str) -> tuple[str, str]:
    """What it printed on stdout and on stderr."""
    stdout, stderr = StringIO(), StringIO()
    call_command(*command, stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


def failed_run(*command: str) -> str:
    """Everything that a command which fails prints, its last sentence included."""
    stdout, stderr = StringIO(), StringIO()
    with pytest.raises(CommandError) as failure:
        call_command(*command, stdout=stdout, stderr=stderr)
    assert stdout.getvalue() == ""
    return stderr.getvalue() + str(failure.value)


def in_a_shell(
    *command: str, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=settings.BASE_DIR,
        env={**os.environ, **shared_environment()}
        | {"DJANGO_SETTINGS_MODULE": "hello_project.settings"}
        | environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


# issue_key


def test_issue_key_prints_the_key_alone_on_stdout_and_words_on_stderr(
    ask: Ask, transactional_db: None
) -> None:
    stdout, stderr = run("issue_key", "billing")
    assert re.fullmatch(keys.PATTERN + "\n", stdout)
    plaintext = stdout.strip()
    key = ApiKey.objects.get()
    assert stderr == f"Issued billing ({key.pk}). This is the only time that it is shown:\n"
    assert (key.owner, key.environment, key.rate, key.expires_at) == ("", "live", "", None)
    assert ask({"X-API-Key": plaintext}).status_code == 200


def test_issue_key_keeps_what_it_is_told(db: None) -> None:
    before = timezone.now()
    stdout, _ = run(
        *("issue_key", "billing", "--owner", "Ann", "--environment", "test"),
        *("--rate", "100/1m", "--expires", "90d"),
        *("--network", "10.0.0.0/8", "--network", "2001:db8::1"),
    )
    key = ApiKey.objects.get()
    assert stdout.startswith(f"hk_test_{key.pk}_")
    assert (key.name, key.owner, key.environment, key.rate) == ("billing", "Ann", "test", "100/1m")
    assert key.networks == "10.0.0.0/8, 2001:db8::1/128"
    assert key.expires_at is not None
    ninety_days = timedelta(days=90)
    assert before + ninety_days <= key.expires_at <= timezone.now() + ninety_days


def test_from_a_shell_the_key_is_the_whole_of_stdout_and_revokes_from_stdin(
    transactional_db: None,
) -> None:
    issued = in_a_shell("issue_key", "billing")
    assert issued.returncode == 0
    assert re.fullmatch(keys.PATTERN + "\n", issued.stdout)
    revoked = in_a_shell("revoke_key", "--stdin", "--reason", "scanner", stdin=issued.stdout)
    assert (revoked.returncode, revoked.stdout) == (0, "")
    key = ApiKey.objects.get()
    assert revoked.stderr == f"Revoked billing ({key.pk}).\n"
    assert (key.status, key.revoked_reason) == (ApiKey.Status.REVOKED, "scanner")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "three per ten"], "'three per ten'"),
        (["--rate", "0/10s"], "A limit is from 1 "),
        (["--rate", "1/400d"], "366d"),
        (["--network", "10.0.0.0/8", "--network", "10.0.0.1/33"], "'10.0.0.1/33' is not a network"),
        (["--network", "10.0.0.1/8"], "write 10.0.0.0/8 for the network"),
        (["--expires", "soon"], "--expires: 'soon' is not a duration: write a number and a unit"),
        (["--expires", "0d"], "--expires: '0d' is not a duration"),
        (["--environment", "prod"], "'prod'"),
    ],
)
def test_issue_key_refuses_what_it_cannot_use_with_a_sentence(
    db: None, arguments: list[str], sentence: str
) -> None:
    assert sentence in failed_run("issue_key", "billing", *arguments)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("name", ["", "n" * 101])
def test_issue_key_refuses_a_name_that_does_not_fit(db: None, name: str) -> None:
    assert failed_run("issue_key", name)
    assert not ApiKey.objects.exists()


def test_a_refusal_from_a_shell_is_one_line_and_an_exit_code(transactional_db: None) -> None:
    refused = in_a_shell("issue_key", "billing", "--rate", "three per ten")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "three per ten" in refused.stderr


@pytest.mark.usefixtures("no_store_for_generation")
def test_issue_key_gives_the_key_even_when_the_store_is_gone(transactional_db: None) -> None:
    stdout, _ = run("issue_key", "billing")
    assert re.fullmatch(keys.PATTERN + "\n", stdout)
    assert ApiKey.objects.count() == 1


# revoke_key


@pytest.mark.parametrize("way", ["id", "key"])
def test_revoke_key_takes_the_id_or_the_whole_key(ask: Ask, issued: Issued, way: str) -> None:
    key, plaintext = issued
    assert ask({"X-API-Key": plaintext}).status_code == 200
    named = key.pk if way == "id" else plaintext
    assert run("revoke_key", named, "--reason", "lost") == ("", f"Revoked tests ({key.pk}).\n")
    key.refresh_from_db()
    assert (key.status, key.revoked_reason) == (ApiKey.Status.REVOKED, "lost")
    assert ask({"X-API-Key": plaintext}).status_code == 401


def test_revoke_key_reads_a_scanners_list(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [ApiKey.objects.issue(name=str(n)) for n in range(4)]
    lines = f"{pairs[0][1]}\n\n  {pairs[1][0].pk}  \r\n{pairs[2][1]}"
    monkeypatch.setattr(sys, "stdin", StringIO(lines))
    _, stderr = run("revoke_key", "--stdin", pairs[3][1])
    assert stderr.count("Revoked ") == 4
    assert {key.status for key in ApiKey.objects.all()} == {ApiKey.Status.REVOKED}


def test_revoking_again_keeps_the_first_reason_and_succeeds(issued: Issued) -> None:
    run("revoke_key", issued[0].pk, "--reason", "lost")
    first = ApiKey.objects.get()
    run("revoke_key", issued[0].pk, "--reason", "found")
    again = ApiKey.objects.get()
    assert (again.revoked_at, again.revoked_reason) == (first.revoked_at, "lost")


def test_what_is_unknown_is_told_apart_and_no_secret_is_echoed(db: None) -> None:
    never_saved = keys.generate("live", keys.generate_id())
    assert failed_run("revoke_key", "abcdefghijkl") == (
        "There is no key abcdefghijkl.\n1 of 1 could not be revoked; see above."
    )
    said = failed_run("revoke_key", str(never_saved))
    assert f"There is no key {never_saved.id}." in said
    assert never_saved.secret not in said
    mistyped = str(never_saved)[:-1]
    assert failed_run("revoke_key", mistyped) == (
        "That is no key or id.\n1 of 1 could not be revoked; see above."
    )


def test_one_that_is_unknown_does_not_keep_the_others(issued: Issued) -> None:
    said = failed_run("revoke_key", "abcdefghijkl", issued[1], "nonsense")
    assert said.endswith("2 of 3 could not be revoked; see above.")
    assert f"Revoked tests ({issued[0].pk}).\n" in said
    assert issued[1] not in said
    assert ApiKey.objects.get().status == ApiKey.Status.REVOKED


def test_revoke_key_wants_at_least_one(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "Name at least one key, by its id or whole, or use --stdin."
    assert failed_run("revoke_key") == sentence
    monkeypatch.setattr(sys, "stdin", StringIO("\n \n"))
    assert failed_run("revoke_key", "--stdin") == sentence


@pytest.mark.usefixtures("no_store_for_generation")
def test_revoke_key_fails_loudly_when_the_store_cannot_be_told(issued: Issued) -> None:
    said = failed_run("revoke_key", issued[0].pk)
    assert f"tests ({issued[0].pk}): {generation.GenerationNotRaised()}\n" in said
    assert said.endswith("1 of 1 could not be revoked; see above.")
    assert ApiKey.objects.get().status == ApiKey.Status.REVOKED


def test_a_database_without_tables_or_answer_is_a_sentence(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'new.sqlite3'}", f"postgres://a@127.0.0.1:{free_port()}/a"):
        for command in (["list_keys"], ["issue_key", "billing"], ["revoke_key", "abcdefghijkl"]):
            failed = in_a_shell(*command, DATABASE_URL=url)
            assert (failed.returncode, failed.stdout) == (1, "")
            assert failed.stderr.startswith("CommandError: The database failed: ")
            assert "manage.py migrate" in failed.stderr
            assert len(failed.stderr.splitlines()) == 1


# list_keys


@pytest.fixture
def three_keys(db: None) -> list[ApiKey]:
    """Newest first."""
    now = timezone.now()
    active, _ = ApiKey.objects.issue(
        name="active", owner="Ann", rate="100/1m", networks="10.0.0.0/8 ::1"
    )
    expired, _ = ApiKey.objects.issue(name="expired", expires_at=now, environment="test")
    revoked, _ = ApiKey.objects.issue(name="revoked")
    revoked.revoke("lost")
    for age, key in enumerate((active, expired, revoked)):
        ApiKey.objects.filter(pk=key.pk).update(created_at=now - timedelta(hours=age))
    return list(ApiKey.objects.all())


def test_list_keys_is_a_table_newest_first(three_keys: list[ApiKey]) -> None:
    stdout, stderr = run("list_keys")
    assert stderr == ""
    head, *lines = stdout.splitlines()
    columns = "id name owner environment status rate expires_at last_used_at"
    assert head.split() == columns.split()
    assert [line.split()[0] for line in lines] == [key.pk for key in three_keys]
    assert lines[0].split() == [three_keys[0].pk, "active", "Ann", "live", "active", "100/1m"]
    start = head.index("status")
    assert [line[start:].split()[0] for line in lines] == ["active", "expired", "revoked"]
    assert all(line[start - 1] == " " for line in lines)


def test_list_keys_as_json_says_everything_but_the_secrets(three_keys: list[ApiKey]) -> None:
    stdout, _ = run("list_keys", "--json")
    rows = json.loads(stdout)
    assert [row["status"] for row in rows] == ["active", "expired", "revoked"]
    assert rows[0] == {
        "id": three_keys[0].pk,
        "name": "active",
        "owner": "Ann",
        "environment": "live",
        "status": "active",
        "rate": "100/1m",
        "networks": ["10.0.0.0/8", "::1/128"],
        "created_at": three_keys[0].created_at.isoformat(timespec="seconds"),
        "expires_at": None,
        "previous_until": None,
        "revoked_at": None,
        "revoked_reason": None,
        "last_used_at": None,
    }
    assert rows[1]["networks"] is None
    assert rows[2]["revoked_reason"] == "lost"
    assert datetime.fromisoformat(rows[2]["revoked_at"]).tzinfo is not None
    assert all(key.digest not in stdout for key in three_keys)


def test_list_keys_without_any_says_how_to_get_one(db: None) -> None:
    assert run("list_keys") == ("", "There are no keys yet: issue one with `issue_key NAME`.\n")
    assert run("list_keys", "--json") == ("[]\n", "")


@pytest.mark.parametrize("status", ApiKey.Status.values)
def test_list_keys_of_one_status_has_these_and_no_others(
    transactional_db: None, status: str
) -> None:
    for name in ApiKey.Status.values:
        ApiKey.objects.issue(name=name)
    ApiKey.objects.get(name="revoked").revoke()
    ApiKey.objects.get(name="overlapping").rotate(timedelta(hours=1))
    soon, past = (timezone.now() + timedelta(days=days) for days in (13, -1))
    ApiKey.objects.filter(name="expires_soon").update(expires_at=soon)
    ApiKey.objects.filter(name="expired").update(expires_at=past)
    rows = json.loads(run("list_keys", "--json", "--status", status)[0])
    assert [(row["name"], row["status"]) for row in rows] == [(status, status)]
    [row] = rows
    assert (row["previous_until"] is not None) == (status == "overlapping")
    assert ApiKey.objects.count_by_status() == {"active": 3, "expired": 1, "revoked": 1}
    ApiKey.objects.filter(name=status).delete()
    assert run("list_keys", "--status", status) == ("", "There is no such key.\n")


@pytest.mark.parametrize(("step", "counts"), [(0, []), (2, ["1,000", "2,000", "3,000", "3,502"])])
def test_revoke_key_of_many_names_each_and_says_how_far_it_is_when_it_takes_long(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch, step: int, counts: list[str]
) -> None:
    """With a clock that stands still, and one that goes on by two seconds when it is read."""
    ApiKey.objects.bulk_create(ApiKey(name=str(n), digest=f"{n:064}") for n in range(3500))
    ids = list(ApiKey.objects.values_list("pk", flat=True))
    given = [*ids[:2000], "abcdefghijkl", "nonsense", *ids[2000:]]
    monkeypatch.setattr("sys.stdin", StringIO("\n".join(given)))
    moments = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: step * next(moments))
    told = failed_run("revoke_key", "--stdin", "--reason", "leaked")
    shown = [line for line in told.splitlines() if line.endswith("…")]
    assert shown == [f"{count} of 3,502 …" for count in counts]
    lines = [line for line in told.splitlines() if line.startswith("Revoked ")]
    assert len(lines) == 3500
    for sentence in ("There is no key abcdefghijkl.", "That is no key or id."):
        assert told.count(sentence) == 1
    assert "2 of 3502 could not be revoked" in told
    assert ApiKey.objects.count_by_status() == {"active": 0, "expired": 0, "revoked": 3500}
