"""Network rules as lines of text: blocklists, and lists with more than networks in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.core.exceptions import ValidationError

from throttling.models import NetworkRule


class BadLine(ValueError):
    """The message names the line, by its number, and what is wrong with it."""


def read_rules(lines: Iterable[str], note: str = "") -> Iterator[NetworkRule | None]:
    """A checked rule, unsaved, or None for each line; comments, from # on, and empty ones are None.

    A line is a network, which is then blocked, or `network,action,rate,note`, of which the end may
    be left out. `note` is that of rules without one. Raises BadLine.
    """
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        yield _rule(number, text, note) if text else None


def _rule(number: int, text: str, note: str) -> NetworkRule:
    network, action, rate, own_note = [*(part.strip() for part in text.split(",", 3)), "", "", ""][
        :4
    ]
    rule = NetworkRule(
        network=network,
        action=action or NetworkRule.Action.BLOCK,
        rate=rate,
        note=own_note or note,
    )
    try:
        rule.clean_fields(exclude=["created_by"])
        rule.clean()
    except ValidationError as error:
        raise BadLine(f"Line {number}: {' '.join(error.messages)}") from error
    return rule
