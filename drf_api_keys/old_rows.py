"""A row of djangorestframework-api-key's table, and what has to be right about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from apikeys.models import ApiKey
from drf_api_keys import hashes
from drf_api_keys.models import LONGEST_HASH, LONGEST_PREFIX
from drf_api_keys.source import Row

_PREFIX: Final = re.compile(r"[!-\-/-~]+")
"""Visible characters, but for the dot that ends it."""
_SWITCHES: Final = {"1": True, "true": True, "0": False, "false": False}
_LONGEST_NAME: Final = ApiKey._meta.get_field("name").max_length


class NotImported(Exception):
    """Why a row is skipped: the rest of a sentence about it."""


@dataclass(frozen=True, slots=True)
class OldRow:
    prefix: str
    hashed_key: str = field(repr=False)
    name: str
    created: datetime
    revoked: bool
    expires: datetime | None

    def __str__(self) -> str:
        return label(self.prefix, self.name)


def parse(row: Row) -> OldRow:
    """Raises NotImported."""
    prefix, hashed_key, name, created, revoked, expires = row
    if not prefix or not _PREFIX.fullmatch(prefix) or len(prefix) > LONGEST_PREFIX:
        raise NotImported("its prefix is malformed")
    hashed_key = hashed_key or ""
    reason = hashes.why_uncheckable(hashed_key)
    if reason is not None:
        raise NotImported(reason)
    if len(hashed_key) > LONGEST_HASH:
        raise NotImported("its hash is too long")
    name = name or prefix
    if "\0" in name:
        raise NotImported("its name has a NUL character")
    if revoked not in _SWITCHES:
        raise NotImported("whether it is revoked is malformed")
    return OldRow(
        prefix,
        hashed_key,
        name[:_LONGEST_NAME],
        _moment("created", created or ""),
        _SWITCHES[revoked],
        _moment("expiry_date", expires) if expires is not None else None,
    )


def label(prefix: str | None, name: str | None) -> str:
    """What to call a row, malformed or not. The prefix is public; nothing else of the key is."""
    return f"{_shown(prefix or 'no prefix', 20)} ({_shown(name or 'no name', 50)})"


def _shown(text: str, length: int) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:length])


def _moment(column: str, text: str) -> datetime:
    """A moment without a time zone is UTC, as Django keeps it in SQLite."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise NotImported(f"its {column} is malformed") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
