"""When each key was last used, written beside the requests and at most once a minute a key."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from django.db import Error, connection, transaction

from apikeys.background import FlushedInBackground
from apikeys.models import ApiKey

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 60.0


class LastUsed(FlushedInBackground):
    _moments: dict[str, datetime]

    def __init__(self, flush_seconds: float = FLUSH_SECONDS) -> None:
        super().__init__(flush_seconds)

    def note(self, key_id: str, at: datetime) -> None:
        with self._lock:
            self._moments[key_id] = at
        self.ensure_flushes()

    def write(self) -> None:
        """A failure is logged, the moments kept."""
        with self._lock:
            moments, self._moments = self._moments, {}
        if not moments:
            return
        try:
            with transaction.atomic():
                for key_id, at in moments.items():
                    ApiKey.objects.record_use(key_id, at)
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


last_used = LastUsed()
