"""What a process keeps in memory of the keys that it has seen."""

from __future__ import annotations

import hmac
import marshal
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Final

from apikeys.keys import Key
from apikeys.models import ApiKey

CAPACITY: Final = 131_072


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key's row, without what no request needs. It is `request.auth` of an authenticated one."""

    key_id: str
    name: str
    environment: str
    digest: str
    rate: str
    networks: str
    expires_at: datetime | None
    revoked_at: datetime | None

    def refusal_of(self, key: Key) -> str | None:
        """Why what was sent is not this key, for the log; None when it is."""
        if not hmac.compare_digest(self.digest, key.digest):
            return "wrong secret"
        if self.environment != key.environment:
            return "wrong environment"
        return None

    def refusal_at(self, now: datetime) -> str | None:
        """Why the key is not good at this moment, for the log; None when it is."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return None


class RecordCache:
    """The records used last, all loaded after the same generation number was read.

    Packed, since a process may hold 100,000 of them. When `capacity` were used since the last time,
    those not used since are dropped: it holds up to twice as many.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._generation: int | None = None
        self._recent: dict[bytes, bytes] = {}
        self._earlier: dict[bytes, bytes] = {}
        self._lock = Lock()

    def find(self, key_id: str, generation: int | None) -> KeyRecord | None:
        """The record under this generation number, from the database if need be.

        With None, when the number could not be read, always from the database.
        """
        if generation is None:
            return load(key_id)
        name = key_id.encode()
        with self._lock:
            kept = self._recall(name) if generation == self._generation else None
        if kept is not None:
            return _unpacked(key_id, kept)
        record = load(key_id)
        if record is not None:
            with self._lock:
                if generation != self._generation:
                    self._forget()
                    self._generation = generation
                self._keep(name, _packed(record))
        return record

    def clear(self) -> None:
        with self._lock:
            self._forget()

    def _recall(self, name: bytes) -> bytes | None:
        kept = self._recent.get(name)
        if kept is None:
            kept = self._earlier.pop(name, None)
            if kept is not None:
                self._keep(name, kept)
        return kept

    def _keep(self, name: bytes, packed: bytes) -> None:
        self._recent[name] = packed
        if len(self._recent) >= self._capacity:
            self._recent, self._earlier = {}, self._recent

    def _forget(self) -> None:
        self._recent, self._earlier, self._generation = {}, {}, None


def _packed(record: KeyRecord) -> bytes:
    digest = bytes.fromhex(record.digest)
    moments = _seconds(record.expires_at), _seconds(record.revoked_at)
    fields = record.name, record.environment, digest, record.rate, *moments
    # Most keys have no networks, and no byte is spent on that.
    return marshal.dumps((*fields, record.networks) if record.networks else fields)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _unpacked(key_id: str, packed: bytes) -> KeyRecord:
    fields = marshal.loads(packed)  # noqa: S302 - packed above
    name, environment, digest, rate, expires, revoked, *networks = fields
    return KeyRecord(
        key_id,
        name,
        environment,
        digest.hex(),
        rate,
        networks[0] if networks else "",
        _moment(expires),
        _moment(revoked),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def load(key_id: str) -> KeyRecord | None:
    fields = "name", "environment", "digest", "rate", "networks", "expires_at", "revoked_at"
    row = ApiKey.objects.filter(pk=key_id).values_list("pk", *fields).first()
    return None if row is None else KeyRecord(*row)


records = RecordCache(CAPACITY)
