"""What a process keeps in memory of the keys that it has seen."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final

from apikeys.keys import Key
from apikeys.models import ApiKey

CAPACITY: Final = 20_000


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key's row, without what no request needs. It is `request.auth` of an authenticated one."""

    key_id: str
    name: str
    environment: str
    digest: str
    rate: str
    expires_at: datetime | None
    revoked_at: datetime | None

    def refusal_of(self, key: Key, now: datetime) -> str | None:
        """Why the key is not good at this moment, for the log; None when it is."""
        if not hmac.compare_digest(self.digest, key.digest):
            return "wrong secret"
        if self.environment != key.environment:
            return "wrong environment"
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return None


class RecordCache:
    """The records used last, each with the generation number read before it was loaded."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._records: OrderedDict[str, tuple[int, KeyRecord]] = OrderedDict()
        self._lock = Lock()

    def find(self, key_id: str, generation: int | None) -> KeyRecord | None:
        """The record under this generation number, from the database if need be.

        With None, when the number could not be read, always from the database.
        """
        if generation is not None:
            with self._lock:
                kept = self._records.get(key_id)
                if kept is not None and kept[0] == generation:
                    self._records.move_to_end(key_id)
                    return kept[1]
        record = load(key_id)
        if record is not None and generation is not None:
            with self._lock:
                self._records[key_id] = (generation, record)
                self._records.move_to_end(key_id)
                if len(self._records) > self._capacity:
                    self._records.popitem(last=False)
        return record

    def clear(self) -> None:
        with self._lock:
            self._records.clear()


def load(key_id: str) -> KeyRecord | None:
    row = (
        ApiKey.objects.filter(pk=key_id)
        .values_list("pk", "name", "environment", "digest", "rate", "expires_at", "revoked_at")
        .first()
    )
    return None if row is None else KeyRecord(*row)


records = RecordCache(CAPACITY)
