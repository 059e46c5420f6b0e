from __future__ import annotations

import pytest
from django.contrib.auth.hashers import BasePasswordHasher
from pytest_django import Settings

from drf_api_keys import hashes

KEY = "AbCdEfG1.0123456789abcdefghijABCDEFGHIJkl"


class OwnHasher(BasePasswordHasher):
    """As small as Django lets it be."""

    algorithm = "own-1"

    def verify(self, password: str, encoded: str) -> bool:
        return encoded == f"own-1${password}"


@pytest.fixture(autouse=True)
def own_hasher(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["tests.drf_api_keys.test_hashes.OwnHasher"]


def test_a_fast_hash_is_the_sha512_of_the_whole_key() -> None:
    hashed_key = hashes.fast_hash(KEY)
    assert hashes.is_fast(hashed_key)
    assert hashes.unpacked(hashes.packed(hashed_key)) == hashed_key
    assert len(hashes.packed(hashed_key)) == 64
    assert hashes.matches(hashed_key, KEY)
    for other in (KEY[9:], f"b{KEY[1:]}", KEY[:-1], ""):
        assert not hashes.matches(hashed_key, other)


def test_a_hasher_of_ones_own_is_asked() -> None:
    assert hashes.why_uncheckable(f"own-1${KEY}") is None
    assert not hashes.is_fast(f"own-1${KEY}")
    assert hashes.matches(f"own-1${KEY}", KEY)
    assert not hashes.matches(f"own-1${KEY}", f"{KEY}x")


def test_one_that_is_not_there_is_told() -> None:
    said = "its hash is by 'pbkdf2_sha256', which is not in PASSWORD_HASHERS"
    assert hashes.why_uncheckable("pbkdf2_sha256$1$salt$hash") == said
    with pytest.raises(ValueError, match="pbkdf2_sha256"):
        hashes.matches("pbkdf2_sha256$1$salt$hash", KEY)
