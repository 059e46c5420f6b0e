"""What a process keeps in memory of the keys that it has seen."""

from __future__ import annotations

import hashlib
import hmac
import marshal
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Final

from apikeys.keys import Key
from apikeys.models import ApiKey

CAPACITY: Final = 131_072
FIELDS: Final = (
    "name",
    "environment",
    "digest",
    "rate",
    "networks",
    "expires_at",
    "revoked_at",
    "previous_digest",
    "previous_until",
)
"""Of ApiKey, in the order of KeyRecord."""


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
    previous_digest: str = ""
    previous_until: datetime | None = None

    def refusal_of(self, key: Key, now: datetime) -> str | None:
        """Why what was sent is not this key at this moment, for the log; None when it is."""
        digest = key.digest
        is_current = hmac.compare_digest(self.digest, digest)
        is_previous = hmac.compare_digest(self.previous_digest, digest)
        if not (is_current or is_previous):
            return "wrong secret"
        if self.environment != key.environment:
            return "wrong environment"
        return None if is_current or self._overlaps_at(now) else "replaced secret"

    def refusal_of_mark(self, mark: str, now: datetime) -> str | None:
        """As `refusal_of`, of a token that was bought with the secret of this mark."""
        if hmac.compare_digest(mark_of(self.digest), mark):
            return None
        if self.previous_digest and hmac.compare_digest(mark_of(self.previous_digest), mark):
            return None if self._overlaps_at(now) else "replaced secret"
        return "replaced secret"

    def _overlaps_at(self, now: datetime) -> bool:
        return self.previous_until is not None and now < self.previous_until

    def as_of(self, key: Key) -> KeyRecord:
        """The record as it is for whoever has sent this key, which `refusal_of` has not refused.

        The secret before the last rotation expires at its deadline.
        """
        if not self.previous_digest or hmac.compare_digest(self.digest, key.digest):
            return self
        ends = [moment for moment in (self.expires_at, self.previous_until) if moment is not None]
        return replace(self, digest=self.previous_digest, expires_at=min(ends))

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


def mark_of(digest: str) -> str:
    """Names a secret where its digest has no business to be."""
    return hashlib.sha256(b"mark:" + digest.encode()).hexdigest()[:16]


def _packed(record: KeyRecord) -> bytes:
    digest = bytes.fromhex(record.digest)
    moments = _seconds(record.expires_at), _seconds(record.revoked_at)
    fields = record.name, record.environment, digest, record.rate, *moments
    # Most keys have no networks and no secret before theirs, and no byte is spent on that.
    if record.previous_digest:
        previous = bytes.fromhex(record.previous_digest), _seconds(record.previous_until)
        return marshal.dumps((*fields, record.networks, *previous))
    return marshal.dumps((*fields, record.networks) if record.networks else fields)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _unpacked(key_id: str, packed: bytes) -> KeyRecord:
    fields = marshal.loads(packed)  # noqa: S302 - packed above
    name, environment, digest, rate, expires, revoked, *rare = fields
    previous, until = rare[1:] or (b"", None)
    return KeyRecord(
        key_id,
        name,
        environment,
        digest.hex(),
        rate,
        rare[0] if rare else "",
        _moment(expires),
        _moment(revoked),
        previous.hex(),
        _moment(until),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def load(key_id: str) -> KeyRecord | None:
    row = ApiKey.objects.filter(pk=key_id).values_list("pk", *FIELDS).first()
    return None if row is None else KeyRecord(*row)


records = RecordCache(CAPACITY)
