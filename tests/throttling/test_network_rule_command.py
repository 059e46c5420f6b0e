from __future__ import annotations

import io
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from throttling import changes, matches, network_rules
from throttling.management.commands import network_rule as command
from throttling.models import NetworkRule

pytestmark = pytest.mark.django_db(transaction=True)


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("network_rule", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def stored() -> set[tuple[str, str, str, str]]:
    return set(NetworkRule.objects.values_list("network", "action", "rate", "note"))


def test_a_rule_of_each_kind_can_be_added_and_replaces_the_one_before() -> None:
    _, said = run("add", "203.0.113.0/24", "--block", "--note", "scanner", "--for", "1d")
    assert said.startswith("203.0.113.0/24 is blocked until ")
    run("add", "198.51.100.7", "--exempt")
    run("add", "2001:db8::/32", "--rate", "100/1m")
    [ended] = NetworkRule.objects.filter(network="203.0.113.0/24")
    assert timedelta(hours=23) < ended.ends_at - timezone.now() <= timedelta(days=1)
    run("add", "203.0.113.0/24", "--rate", "5/1s", "--note", "calmer")
    assert stored() == {
        ("203.0.113.0/24", "rate", "5/1s", "calmer"),
        ("198.51.100.7/32", "exempt", "", ""),
        ("2001:db8::/32", "rate", "100/1m", ""),
    }
    assert not NetworkRule.objects.exclude(ends_at=None).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "203.0.113.7/24", "--block"], "write 203.0.113.0/24 for the network"),
        (["add", "203.0.113.7", "--rate", "often"], "is not a rate limit"),
        (["add", "203.0.113.7", "--rate", ""], "Write the rate"),
        (["add", "203.0.113.7", "--block", "--for", "long"], "--for: 'long' is not a duration"),
        (["add", "203.0.113.7"], "one of the arguments --block --exempt --rate is required"),
        (["remove", "203.0.113.7"], "There is no rule for 203.0.113.7/32. Nothing was removed."),
        (["check", "somewhere"], "is not a network"),
        (["import", "/nonexistent"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    assert said in str(refused.value)
    assert stored() == set()


def test_removing_is_all_or_nothing() -> None:
    run("add", "203.0.113.0/24", "--block")
    run("add", "198.51.100.7", "--block")
    with pytest.raises(CommandError, match="There is no rule for ::/0"):
        run("remove", "203.0.113.0/24", "::/0")
    assert len(stored()) == 2
    _, said = run("remove", "203.0.113.0/24", "198.51.100.7")
    assert (said.strip(), stored()) == ("Removed 2 rules.", set())


def test_the_list_shows_how_often_each_matched(store: Redis) -> None:
    assert "There are no rules yet" in run("list")[1]
    run("add", "203.0.113.0/24", "--rate", "5/1s", "--note", "calmer")
    [rule] = NetworkRule.objects.all()
    matches.gathered.note(rule.pk)
    matches.gathered.write(store)
    [row] = json.loads(run("list", "--json")[0])
    assert (row["network"], row["action"], row["rate"]) == ("203.0.113.0/24", "rate", "5/1s")
    assert (row["matches"], row["note"], row["ends_at"]) == (1, "calmer", None)
    head, line = run("list")[0].splitlines()
    assert head.split() == ["network", "action", "rate", "ends_at", "matches", *head.split()[5:]]
    assert line.split()[:4] == ["203.0.113.0/24", "rate", "5/1s", "1"]


def test_checking_an_address_names_the_rule_that_decides_and_those_that_do_not() -> None:
    assert run("check", "203.0.113.7")[0] == "No rule contains it; the site's own limit holds.\n"
    run("add", "203.0.113.0/24", "--block", "--note", "scanner")
    run("add", "203.0.113.7", "--exempt")
    run("add", "0.0.0.0/0", "--rate", "5/1s")
    NetworkRule.objects.create(network="203.0.113.6/31", action="block", ends_at=timezone.now())
    assert run("check", "203.0.113.7")[0].splitlines() == [
        "203.0.113.7/32 is exempt.",
        "does not decide: 203.0.113.0/24 is blocked (scanner).",
        "does not decide: Each address of 0.0.0.0/0 has 5/1s.",
    ]


BLOCKLIST = """\
# A blocklist, as they are published
203.0.113.0/24
198.51.100.7   # one address

2001:db8::/32, exempt, , partner, and friends
192.0.2.0/24,rate,5/1s
203.0.113.0/24,block,,again
"""


def test_a_blocklist_is_imported_from_a_file_or_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", "198.51.100.7", "--exempt")
    (tmp_path / "list").write_text(BLOCKLIST)
    _, said = run("import", str(tmp_path / "list"), "--note", "list of today")
    assert said.strip() == "Imported 4: 3 new, 1 replaced."
    expected = {
        ("203.0.113.0/24", "block", "", "again"),
        ("198.51.100.7/32", "block", "", "list of today"),
        ("2001:db8::/32", "exempt", "", "partner, and friends"),
        ("192.0.2.0/24", "rate", "5/1s", "list of today"),
    }
    assert stored() == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("10.0.0.0/8\n"))
    assert run("import")[1].strip() == "Imported 1: 1 new, 0 replaced."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("203.0.113.7/24", "Line 7: '203.0.113.7/24' is one address and the network around it"),
        ("10.0.0.0/8,forbid", "Line 7: Value 'forbid' is not a valid choice."),
        ("10.0.0.0/8,rate", "Line 7: Write the rate"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_changed(
    line: str, said: str, tmp_path: Path, store: Redis
) -> None:
    (tmp_path / "list").write_text(f"{BLOCKLIST.rstrip()}\n{line}\n".replace("\n\n", "\n"))
    with pytest.raises(CommandError) as refused:
        run("import", str(tmp_path / "list"))
    assert said in str(refused.value)
    assert "Nothing was imported." in str(refused.value)
    assert stored() == set()
    assert not store.exists(changes.STORE_KEY)


def test_ten_thousand_lines_are_one_announcement_and_counted_as_they_go(
    tmp_path: Path, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"10.{number // 256}.{number % 256}.0/24" for number in range(10_000)]
    (tmp_path / "list").write_text("\n".join(lines))
    before = changes.read(store)
    monkeypatch.setattr(command, "SECONDS_BETWEEN_COUNTS", 0.0)
    begun = time.monotonic()
    _, said = run("import", str(tmp_path / "list"))
    assert time.monotonic() - begun < 20
    assert said.splitlines()[0] == "1 of 10,000 lines read"
    assert "5,000 of 10,000 rules saved" in said
    assert said.splitlines()[-1] == "Imported 10000: 10000 new, 0 replaced."
    assert changes.read(store) == before + 1
    network_rules.rules_of_process.look()
    found = network_rules.rules_of_process.find("10.39.15.77")
    assert found is not None
    assert found.network == "10.39.15.0/24"


def test_a_store_that_cannot_be_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody: Any = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(network_rules, "store", lambda: nobody)
    with pytest.raises(CommandError, match="The change is saved, but the store could not be told"):
        run("add", "203.0.113.0/24", "--block")
    assert len(stored()) == 1
