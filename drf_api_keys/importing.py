"""Making ApiKeys of the rows of djangorestframework-api-key's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from django.db import models, transaction
from django.utils import timezone

from apikeys import generation, history
from apikeys.models import ApiKey, KeyEvent
from drf_api_keys import hashes
from drf_api_keys.models import NO_SECRET, ImportedKey
from drf_api_keys.old_rows import NotImported, OldRow, label, parse
from drf_api_keys.source import Row, Source

BATCH: Final = 2_000
"""Rows a transaction, so that whoever else waits to write waits for less than a second."""
REVOKED_THERE: Final = "Revoked in djangorestframework-api-key."


@dataclass(slots=True)
class Tally:
    """What was done, or in a dry run would be."""

    imported: int = 0
    imported_revoked: int = 0
    imported_expired: int = 0
    imported_slow: int = 0
    imported_unusual: int = 0
    """With a prefix that hashes.PATTERN does not have."""
    known: int = 0
    revoked_since: int = 0
    hashed_faster: int = 0
    gone: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """A row that was imported before, and what it became."""

    row: OldRow
    imported: ImportedKey

    @property
    def is_revoked_since(self) -> bool:
        return self.row.revoked and self.imported.key.revoked_at is None

    @property
    def is_hashed_faster(self) -> bool:
        return hashes.is_fast(self.row.hashed_key) and not self.imported.is_fast


class Importer:
    """Takes the rows of a table, a batch and a transaction at a time.

    Run again, it imports what is new, revokes what was revoked there since, and takes over a faster
    hash. Whatever else was imported is left alone. `say` is told, a line each, what is skipped and
    what is left though it differs.
    """

    def __init__(self, source: Source, *, dry_run: bool, say: Callable[[str], None]) -> None:
        self.tally = Tally()
        self._source = source
        self._dry_run = dry_run
        self._say = say
        self._last_prefix: str | None = None
        self._has_revoked = False

    def run(self) -> Iterator[int]:
        """How many rows have been taken, after each batch.

        Raises SourceFailed, and GenerationNotRaised when the store could not be told of a
        revocation.
        """
        taken = 0
        for rows in self._source.batches(BATCH):
            self._take(list(self._good_ones(rows)))
            taken += len(rows)
            yield taken
        if self._has_revoked and not self._dry_run:
            # Whatever was revoked by an earlier run that could not tell the store.
            generation.raise_number()
        for prefix in self._gone():
            self.tally.gone += 1
            self._say(f"{prefix} was imported earlier and is no longer there. It is left as it is.")

    def _good_ones(self, rows: Sequence[Row]) -> Iterator[OldRow]:
        for row in rows:
            prefix, _, name, *_ = row
            try:
                if prefix is not None and prefix == self._last_prefix:
                    raise NotImported("its prefix is there twice")
                self._last_prefix = prefix
                yield parse(row)
            except NotImported as reason:
                self._skip(label(prefix, name), reason)

    def _take(self, rows: Sequence[OldRow]) -> None:
        found = ImportedKey.objects.select_related("key")
        imported = {each.prefix: each for each in found.filter(prefix__in=[r.prefix for r in rows])}
        new = [row for row in rows if row.prefix not in imported]
        taken = [Known(row, imported[row.prefix]) for row in rows if row.prefix in imported]
        known = [each for each in taken if self._is_same(each)]
        now = timezone.now()
        self._count(new, known, now)
        if not self._dry_run:
            with transaction.atomic():
                self._create(new, now)
                self._update(known)

    def _is_same(self, known: Known) -> bool:
        """Whether this row was imported before, and not another one with its prefix."""
        row, imported = known.row, known.imported
        if (imported.table, imported.key.created_at) != (self._source.table, row.created):
            reason = f"its prefix is that of {imported.key}, imported from {imported.table}"
            self._skip(str(row), NotImported(reason))
            return False
        if imported.key.expires_at != row.expires:
            there, here = _written(row.expires), _written(imported.key.expires_at)
            self._say(f"{row} expires {there} there and {here} here. It is left as it is.")
        return True

    def _count(self, new: Sequence[OldRow], known: Sequence[Known], now: datetime) -> None:
        tally = self.tally
        tally.imported += len(new)
        tally.known += len(known)
        for row in new:
            is_past = row.expires is not None and row.expires <= now
            tally.imported_revoked += row.revoked
            tally.imported_expired += is_past and not row.revoked
            tally.imported_slow += not hashes.is_fast(row.hashed_key)
            tally.imported_unusual += not hashes.has_usual_prefix(row.prefix)
        for each in known:
            tally.revoked_since += each.is_revoked_since
            tally.hashed_faster += each.is_hashed_faster
            self._has_revoked |= each.row.revoked

    def _create(self, rows: Sequence[OldRow], now: datetime) -> None:
        keys = [_api_key(row, now) for row in rows]
        # Not through its manager, which would make every process load its records anew for each
        # batch: nobody has a copy of a new key.
        models.QuerySet[ApiKey](ApiKey).bulk_create(keys)
        table = self._source.table
        detail = f"Imported from {table}."
        history.record([key.pk for key in keys], KeyEvent.Action.ISSUED, None, detail)
        ImportedKey.objects.bulk_create(
            ImportedKey(key=key, prefix=row.prefix, hashed_key=row.hashed_key, table=table)
            for row, key in zip(rows, keys, strict=True)
        )

    def _update(self, known: Sequence[Known]) -> None:
        revoked = [each.imported.pk for each in known if each.is_revoked_since]
        if revoked:
            ApiKey.objects.revoke(revoked, REVOKED_THERE)
        faster = [each for each in known if each.is_hashed_faster]
        for each in faster:
            each.imported.hashed_key = each.row.hashed_key
        ImportedKey.objects.bulk_update([each.imported for each in faster], ["hashed_key"])

    def _gone(self) -> Iterator[str]:
        """Prefixes of keys not revoked that were imported from this table and are not in it."""
        of_table = ImportedKey.objects.filter(table=self._source.table)
        if of_table.count() == self.tally.known + (0 if self._dry_run else self.tally.imported):
            return
        unrevoked = of_table.filter(key__revoked_at=None).values_list("prefix", flat=True)
        prefixes = unrevoked.order_by("prefix").iterator(BATCH)
        while some := list(islice(prefixes, BATCH)):
            there = self._source.prefixes_among(some)
            yield from (prefix for prefix in some if prefix not in there)

    def _skip(self, name: str, reason: NotImported) -> None:
        self.tally.skipped += 1
        self._say(f"{name} is skipped: {reason}.")


def _api_key(row: OldRow, now: datetime) -> ApiKey:
    return ApiKey(
        name=row.name,
        digest=NO_SECRET,
        created_at=row.created,
        expires_at=row.expires,
        revoked_at=now if row.revoked else None,
        revoked_reason=REVOKED_THERE if row.revoked else "",
    )


def _written(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
