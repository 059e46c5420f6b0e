"""The generation number: raised in the store by every change to a key.

A process trusts its copy of a key's record only while the number is the one that it read before it
loaded the record. The number starts at random, so that a store that lost it never repeats one.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.http import HttpRequest
from django_redis import get_redis_connection
from redis.exceptions import RedisError
from rest_framework.request import Request

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

STORE_KEY: Final = "apikeys:generation"
META_NAME: Final = "apikeys.generation"
"""Where whoever asks the store anyway may leave the value for this request: bytes, empty where
there is none, or None when the store could not be asked."""

_ATTEMPTS_TO_RAISE: Final = 3


class GenerationNotRaised(Exception):
    """A key was changed in the database, but the store could not be told."""

    def __init__(self) -> None:
        super().__init__(
            "The change is saved, but the store could not be told: processes that still reach it"
            " may go by their copy. Repeat the change when the store answers again."
        )


def current(request: Request | HttpRequest) -> int | None:
    """The generation number for this request; None when the store cannot be asked."""
    if META_NAME not in request.META:
        return read()
    value: bytes | None = request.META[META_NAME]
    if value is None:
        return None
    return int(value) if value else read()


def read() -> int | None:
    """The number, made if there is none; None when the store cannot be asked. A round trip."""
    try:
        connection = _connection()
        value = connection.get(STORE_KEY)
        if value is None:
            connection.set(STORE_KEY, _first_number(), nx=True)
            value = connection.get(STORE_KEY)
    except RedisError as error:
        logger.warning("The generation number could not be read: %s", error)
        return None
    return int(value) if value else None


def raise_number() -> None:
    """Make every process load its records anew. To be called after the change is committed.

    Raises GenerationNotRaised.
    """
    for attempt in range(1, _ATTEMPTS_TO_RAISE + 1):
        try:
            pipeline = _connection().pipeline(transaction=True)
            pipeline.set(STORE_KEY, _first_number(), nx=True)
            pipeline.incr(STORE_KEY)
            pipeline.execute()
        except RedisError as error:
            if attempt == _ATTEMPTS_TO_RAISE:
                logger.exception("The generation number could not be raised.")
                raise GenerationNotRaised from error
        else:
            return


def _first_number() -> int:
    return secrets.randbits(62)


def _connection() -> Redis:
    connection: Redis = get_redis_connection(getattr(settings, "STORE_CACHE", "default"))
    return connection
