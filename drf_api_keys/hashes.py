"""How djangorestframework-api-key keeps a key: its prefix, and a hash of the whole of it.

A key is `prefix.secret`. Since version 3.0 the hash is a plain SHA-512: the 32 characters of the
secret hold 190 random bits. Before, it was a password's, slow, by whichever hasher was the first of
PASSWORD_HASHERS; version 3 replaces such a hash when its key is used.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from django.contrib.auth.hashers import get_hasher

_PREFIX_PATTERN: Final = r"[0-9A-Za-z]{8}"
PATTERN: Final = _PREFIX_PATTERN + r"\.[0-9A-Za-z]{32}"
"""A key, unless its project had a KeyGenerator of its own."""

_FAST_START: Final = "sha512$$"
_FAST: Final = re.compile(r"sha512\$\$[0-9a-f]{128}")
_SLOW: Final = re.compile(r"([\w+-]{1,40})\$[!-~]+", re.ASCII)


def prefix_of(key: str) -> str:
    return key.partition(".")[0]


def has_usual_prefix(prefix: str) -> bool:
    return re.fullmatch(_PREFIX_PATTERN, prefix) is not None


def fast_hash(key: str) -> str:
    return _FAST_START + hashlib.sha512(key.encode()).hexdigest()


def is_fast(hashed_key: str) -> bool:
    return _FAST.fullmatch(hashed_key) is not None


def packed(fast: str) -> bytes:
    """A fast hash, in half the memory."""
    return bytes.fromhex(fast.removeprefix(_FAST_START))


def unpacked(packed: bytes) -> str:
    return _FAST_START + packed.hex()


def matches(hashed_key: str, key: str) -> bool:
    """Whether this is the key. Compared in constant time.

    Raises ValueError when the hash cannot be checked in this project.
    """
    if is_fast(hashed_key):
        return hmac.compare_digest(hashed_key, fast_hash(key))
    return bool(get_hasher(hashed_key.partition("$")[0]).verify(key, hashed_key))


def why_uncheckable(hashed_key: str) -> str | None:
    """Why no key can be checked against this hash in this project; None when one can."""
    if is_fast(hashed_key):
        return None
    slow = _SLOW.fullmatch(hashed_key)
    if slow is None or slow[1] == "sha512":
        return "its hash is malformed"
    algorithm = slow[1]
    try:
        hasher = get_hasher(algorithm)
    except ValueError:
        return f"its hash is by {algorithm!r}, which is not in PASSWORD_HASHERS"
    library = hasher.library if isinstance(hasher.library, str) else (hasher.library or ("",))[-1]
    if library and find_spec(library.partition(".")[0]) is None:
        return f"its hash is by {algorithm!r}, which needs the Python module {library!r}"
    try:
        with suppress(NotImplementedError):  # A hasher of one's own need not decode.
            hasher.decode(hashed_key)
    except (ValueError, AssertionError):
        return "its hash is malformed"
    return None
