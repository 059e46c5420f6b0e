"""What a process keeps in memory of the imported keys that it has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from drf_api_keys import hashes
from drf_api_keys.models import ImportedKey

CAPACITY: Final = 131_072
_ID_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class OldKey:
    """The ApiKey that a prefix stands for, and the hash of the whole old key."""

    key_id: str
    hashed_key: str = field(repr=False)


class _NotKept(Exception):
    def __init__(self, key: OldKey | None) -> None:
        self.key = key


def find(prefix: str, generation: int | None) -> OldKey | None:
    """The imported key under this generation number, from the database if need be.

    With None, when the number could not be read, always from the database.
    """
    if generation is None:
        return load(prefix)
    try:
        kept = _kept(prefix, generation)
    except _NotKept as loaded:
        return loaded.key
    return OldKey(kept[:_ID_LENGTH].decode(), hashes.unpacked(kept[_ID_LENGTH:]))


@lru_cache(maxsize=CAPACITY)
def _kept(prefix: str, generation: int) -> bytes:
    """Raises _NotKept for what is unknown, since there is no end of that, and for a slow hash.

    The first process to check a slow hash replaces it, and the others shall see that.
    """
    key = load(prefix)
    if key is None or not hashes.is_fast(key.hashed_key):
        raise _NotKept(key)
    return key.key_id.encode() + hashes.packed(key.hashed_key)


def load(prefix: str) -> OldKey | None:
    row = ImportedKey.objects.filter(prefix=prefix).values_list("key_id", "hashed_key").first()
    return None if row is None else OldKey(*row)
