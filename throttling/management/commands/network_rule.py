"""`manage.py network_rule`: what the admin can do with network rules, for scripts."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.utils import timezone
from redis.exceptions import RedisError

from throttling import matches
from throttling.durations import parse_duration
from throttling.matches import Matches
from throttling.models import NetworkRule
from throttling.network_rules import ChangeNotAnnounced, store
from throttling.networks import parse_network
from throttling.rule_lines import BadLine, read_rules

SECONDS_BETWEEN_COUNTS: Final = 1.0


class Command(BaseCommand):
    help = "Lists, adds, removes, imports and explains network rules."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True, metavar="COMMAND")
        listing = commands.add_parser("list", help="every rule, newest first")
        listing.add_argument("--json", action="store_true", help="an array of objects")
        adding = commands.add_parser("add", help="a rule, in place of the one the network has")
        adding.add_argument("network", metavar="CIDR")
        action = adding.add_mutually_exclusive_group(required=True)
        action.add_argument("--block", action="store_true", help="answer it nothing")
        action.add_argument("--exempt", action="store_true", help="do not limit its addresses")
        action.add_argument("--rate", help="of each address inside, such as 100/1m")
        adding.add_argument("--note", default="", help="why")
        adding.add_argument("--for", dest="duration", default="", help="how long, such as 1d")
        removing = commands.add_parser("remove", help="the rules of these networks")
        removing.add_argument("networks", nargs="+", metavar="CIDR")
        importing = commands.add_parser(
            "import",
            help="all rules of a file, or none: a CIDR or CIDR,action,rate,note a line; # comments",
        )
        importing.add_argument("file", nargs="?", default="-", help="stdin without")
        importing.add_argument("--note", default="", help="of the rules that have none")
        checking = commands.add_parser("check", help="which rule decides on an address")
        checking.add_argument("address")

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except ChangeNotAnnounced as error:
            raise CommandError(str(error)) from error
        except Error as error:
            reason = " ".join(str(error).split())
            raise CommandError(
                f"The database failed: {reason}. If it has no tables yet, run"
                " `python3 manage.py migrate`; if it does not answer, look at its settings."
            ) from error

    def handle(self, *, do: str, **options: Any) -> None:
        commands: dict[str, Callable[..., None]] = {
            "list": self._list,
            "add": self._add,
            "remove": self._remove,
            "import": self._import,
            "check": self._check,
        }
        commands[do](**options)

    def _list(self, **options: Any) -> None:
        rules = list(NetworkRule.objects.select_related("created_by"))
        try:
            matched = matches.read(store(), [rule.pk for rule in rules])
        except RedisError:
            matched = {}
            self.stderr.write("The store does not answer: matches are not known now.")
        rows = [_row(rule, matched.get(rule.pk)) for rule in rules]
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
        elif not rows:
            self.stderr.write(
                "There are no rules yet: add one with `network_rule add CIDR --block`."
            )
        else:
            self.stdout.write(_table(rows))

    def _add(self, **options: Any) -> None:
        given = NetworkRule.Action.BLOCK if options["block"] else NetworkRule.Action.EXEMPT
        rule = NetworkRule(
            network=options["network"],
            action=NetworkRule.Action.RATE if options["rate"] is not None else given,
            rate=options["rate"] or "",
            note=options["note"],
            ends_at=_moment(options["duration"]),
        )
        try:
            rule.clean_fields()
            rule.clean()
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        NetworkRule.objects.put([rule])
        self.stderr.write(f"{_sentence(rule)} It takes effect within a second.")

    def _remove(self, *, networks: list[str], **options: Any) -> None:
        found = [str(_network(text)) for text in networks]
        rules = NetworkRule.objects.filter(network__in=found)
        missing = sorted(set(found) - set(rules.values_list("network", flat=True)))
        if missing:
            raise CommandError(f"There is no rule for {', '.join(missing)}. Nothing was removed.")
        _, by_model = rules.delete()
        count = by_model[NetworkRule._meta.label]
        self.stderr.write(f"Removed {count} {'rule' if count == 1 else 'rules'}.")

    def _import(self, *, file: str, note: str, **options: Any) -> None:
        try:
            lines = (sys.stdin.read() if file == "-" else Path(file).read_text()).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        count = _Count(self.stderr.write)
        by_network: dict[str, NetworkRule] = {}  # Of a network that comes twice the last holds.
        try:
            for number, rule in enumerate(read_rules(lines, note), start=1):
                count.show(number, len(lines), "lines read")
                if rule is not None:
                    by_network[rule.network] = rule
        except BadLine as error:
            raise CommandError(f"{error} Nothing was imported.") from error
        rules = list(by_network.values())
        before = NetworkRule.objects.count()
        NetworkRule.objects.put(rules, lambda saved: count.show(saved, len(rules), "rules saved"))
        new = NetworkRule.objects.count() - before
        self.stderr.write(f"Imported {len(rules)}: {new} new, {len(rules) - new} replaced.")

    def _check(self, *, address: str, **options: Any) -> None:
        network = _network(address)
        now = timezone.now()
        rules = list(NetworkRule.objects.in_force(now).containing(network))
        if not rules:
            self.stdout.write("No rule contains it; the site's own limit holds.")
        for number, rule in enumerate(rules):
            self.stdout.write(f"{'does not decide: ' if number else ''}{_sentence(rule)}")


class _Count:
    """How far something is, once a second."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self._next = time.monotonic() + SECONDS_BETWEEN_COUNTS

    def show(self, done: int, total: int, what: str) -> None:
        if time.monotonic() >= self._next:
            self._write(f"{done:,} of {total:,} {what}")
            self._next = time.monotonic() + SECONDS_BETWEEN_COUNTS


def _network(text: str) -> Any:
    try:
        return parse_network(text)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _moment(duration: str) -> datetime | None:
    if not duration:
        return None
    try:
        return timezone.now() + parse_duration(duration)
    except ValueError as error:
        raise CommandError(f"--for: {error}") from error


def _sentence(rule: NetworkRule) -> str:
    what = {
        "block": f"{rule.network} is blocked",
        "exempt": f"{rule.network} is exempt",
        "rate": f"Each address of {rule.network} has {rule.rate}",
    }[rule.action]
    until = f" until {rule.ends_at.isoformat(sep=' ', timespec='seconds')}" if rule.ends_at else ""
    note = f" ({rule.note})" if rule.note else ""
    return f"{what}{until}{note}."


def _row(rule: NetworkRule, matched: Matches | None) -> dict[str, Any]:
    return {
        "network": rule.network,
        "action": rule.action,
        "rate": rule.rate or None,
        "note": rule.note or None,
        "ends_at": _written(rule.ends_at),
        "matches": matched.count if matched else None,
        "last_match_at": _written(matched.last_at) if matched else None,
        "created_at": _written(rule.created_at),
        "created_by": rule.created_by.get_username() if rule.created_by else None,
    }


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ["network", "action", "rate", "ends_at", "matches", "last_match_at", "note"]
    cells = [columns, *(list(_cells(row, columns)) for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cells(row: dict[str, Any], columns: Iterable[str]) -> Iterable[str]:
    return ("" if row[column] is None else str(row[column]) for column in columns)
