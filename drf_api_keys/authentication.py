"""The DRF authentication class that also takes keys of djangorestframework-api-key's."""

from __future__ import annotations

import logging
import re
from typing import ClassVar

from django.conf import settings
from django.db import Error, transaction
from django.utils import timezone
from rest_framework.request import Request

from apikeys import generation
from apikeys.authentication import (
    Credential,
    InvalidKey,
    KeyHolder,
    KeyOrTokenAuthentication,
)
from apikeys.keys import Key
from apikeys.records import KeyRecord, records
from drf_api_keys import hashes, old_keys
from drf_api_keys.models import NO_SECRET, ImportedKey
from drf_api_keys.slow_hashes import slow_hashes

logger = logging.getLogger(__name__)


class ImportedKeyAuthentication(KeyOrTokenAuthentication):
    """Takes imported keys too, in the same headers and in that of API_KEY_CUSTOM_HEADER.

    A good one is the ApiKey that it was imported as. Raises also CheckedLater (503).
    """

    pattern: ClassVar[re.Pattern[str]] = re.compile(hashes.PATTERN)
    """The form of an old key. Another form is left to the class above, without any I/O."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, KeyRecord] | None:
        old_header = getattr(settings, "API_KEY_CUSTOM_HEADER", None)
        if old_header in request.META and old_header != "HTTP_X_API_KEY":
            sent = request.META.get("HTTP_X_API_KEY"), request.META[old_header]
            request.META["HTTP_X_API_KEY"] = ",".join(filter(None, sent))
        return super().authenticate(request)

    def record_of(self, request: Request, credential: Credential) -> KeyRecord:
        text = credential.text
        if not self.pattern.fullmatch(text):
            return super().record_of(request, credential)
        number = generation.current(request)
        prefix = hashes.prefix_of(text)
        key = old_keys.find(prefix, number)
        record = records.find(key.key_id, number) if key else None
        if key is None or record is None:
            raise _refused(prefix, "unknown")
        secret = _SecretOfNobody(record.environment, record.key_id, "")
        # First, so that a slow hash is checked only for a key that is good otherwise.
        now = timezone.now()
        refusal = record.refusal_of(secret, now) or record.refusal_at(now)
        if refusal is not None:
            raise _refused(record.key_id, refusal)
        if not _is_whole(key, text):
            raise _refused(record.key_id, "wrong old secret")
        return record.as_of(secret)


class _SecretOfNobody(Key):
    """What an old key is to its ApiKey: it is good as long as a secret with this digest would be.

    So when the ApiKey is rotated, the old key ends with the overlap.
    """

    __slots__ = ()

    @property
    def digest(self) -> str:
        return NO_SECRET


def _is_whole(key: old_keys.OldKey, text: str) -> bool:
    if hashes.is_fast(key.hashed_key):
        return hashes.matches(key.hashed_key, text)
    try:
        is_good = slow_hashes.matches(key.hashed_key, text)
    except ValueError:  # Without its words, which may quote the hash.
        logger.error("The hash of key %s cannot be checked: see PASSWORD_HASHERS.", key.key_id)
        return False
    if is_good:
        _replace_hash(key, text)
    return is_good


def _replace_hash(key: old_keys.OldKey, text: str) -> None:
    """By the fast one, of the same key. Without that, the key is good all the same."""
    unreplaced = ImportedKey.objects.filter(pk=key.key_id, hashed_key=key.hashed_key)
    try:
        with transaction.atomic():
            unreplaced.update(hashed_key=hashes.fast_hash(text))
    except Error:
        logger.warning("The slow hash of key %s could not be replaced.", key.key_id, exc_info=True)


def _refused(name: str, refusal: str) -> InvalidKey:
    logger.info("Refused old key %s: %s.", name, refusal)
    return InvalidKey()
