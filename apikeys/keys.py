"""The format of a key: ``hk_<environment>_<id>_<secret><check>``.

The id is public. The secret is 256 random bits, so its digest is a plain SHA-256: there is nothing
to guess that a slow hash would protect. The check lets a mistyped or made-up key be refused
without any I/O.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Final

ENVIRONMENTS: Final = ("live", "test")
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43
CHECK_LENGTH: Final = 6
ID_PATTERN: Final = r"[0-9A-Za-z]{12}"
PATTERN: Final = r"hk_(live|test)_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})"
"""Published, so that secret scanners can find leaked keys."""

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY: Final = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart. Its repr leaves the secret out."""

    environment: str
    id: str
    secret: str

    def __str__(self) -> str:
        """The plaintext, as the client sends it."""
        body = f"hk_{self.environment}_{self.id}_{self.secret}"
        return body + _check(body)

    def __repr__(self) -> str:
        return f"Key(environment={self.environment!r}, id={self.id!r})"

    @property
    def digest(self) -> str:
        """What is stored of the secret: its SHA-256, in hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def generate(environment: str, key_id: str) -> Key:
    """A key with a new secret from the system's CSPRNG."""
    if environment not in ENVIRONMENTS:
        raise ValueError(f"A key's environment is one of {ENVIRONMENTS}, not {environment!r}.")
    return Key(environment, key_id, _base62(secrets.randbits(256), SECRET_LENGTH))


def generate_id() -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(ID_LENGTH))


def parse(text: str) -> Key | None:
    """The key that `text` is; None when its shape or its check is wrong. No I/O."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    environment, key_id, secret, check = match.groups()
    if _check(text[:-CHECK_LENGTH]) != check:
        return None
    return Key(environment, key_id, secret)


def is_id(text: str) -> bool:
    return re.fullmatch(ID_PATTERN, text) is not None


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
