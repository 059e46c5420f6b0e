"""When each key was last used, written beside the requests and at most once a minute a key."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django.db import Error, connection, transaction

from apikeys.background import FlushedInBackground
from apikeys.models import ApiKey

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 10.0
KEYS_GATHERED: Final = 5_000
"""Flushed sooner when so many were used, since each takes memory."""
KEYS_A_TRANSACTION: Final = 500
"""So that whoever waits to write to the database waits for milliseconds."""


class LastUsed(FlushedInBackground):
    _moments: dict[str, datetime]

    def __init__(self, flush_seconds: float = FLUSH_SECONDS) -> None:
        super().__init__(flush_seconds)

    def note(self, key_id: str, at: datetime) -> None:
        with self._lock:
            is_new = key_id not in self._moments
            self._moments[key_id] = at
            is_full = is_new and len(self._moments) == KEYS_GATHERED
        self.ensure_flushes()
        if is_full:
            self.flush_soon()

    def write(self) -> None:
        """A failure is logged, the moments kept."""
        with self._lock:
            moments, self._moments = self._moments, {}
        if not moments:
            return
        try:
            for key_ids in _parts(sorted(moments)):
                with transaction.atomic():
                    ApiKey.objects.record_uses({key_id: moments[key_id] for key_id in key_ids})
                for key_id in key_ids:
                    del moments[key_id]
        except Error:
            logger.warning("When keys were last used could not be saved.", exc_info=True)
            with self._lock:
                self._moments = moments | self._moments

    def clear(self) -> None:
        with self._lock:
            self._moments = {}

    def flush_unattended(self) -> None:
        try:
            super().flush_unattended()
        finally:
            connection.close()


def _parts(key_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(key_ids), KEYS_A_TRANSACTION):
        yield key_ids[start : start + KEYS_A_TRANSACTION]


last_used = LastUsed()
