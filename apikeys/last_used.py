"""When each key was last used, written beside the requests and at most once a minute a key."""

from __future__ import annotations

import atexit
import logging
import os
from datetime import datetime
from threading import Event, Lock, Thread
from typing import Final

from django.db import Error, connection, transaction

from apikeys.models import ApiKey

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 60.0


class LastUsed:
    """Moments gathered in this process; a thread of its own writes them down."""

    def __init__(self, flush_seconds: float = FLUSH_SECONDS) -> None:
        self.flush_seconds = flush_seconds
        self._moments: dict[str, datetime] = {}
        self._lock = Lock()
        self._writer_pid: int | None = None
        self._stopping = Event()

    def note(self, key_id: str, at: datetime) -> None:
        with self._lock:
            self._moments[key_id] = at
        if self._writer_pid != os.getpid():
            self._start_writer()

    def flush(self) -> None:
        """Write down what was noted since the last time. A failure is logged, the moments kept."""
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
        """Forget what was noted and not yet written."""
        with self._lock:
            self._moments = {}

    def _start_writer(self) -> None:
        with self._lock:
            if self._writer_pid == os.getpid():
                return
            self._writer_pid = os.getpid()
            self._stopping = Event()
        Thread(target=self._write, name="apikeys-last-used", daemon=True).start()
        atexit.register(self._stop)

    def _write(self) -> None:
        while not self._stopping.wait(self.flush_seconds):
            self.flush()
            connection.close()

    def _stop(self) -> None:
        self._stopping.set()
        self.flush()
        connection.close()


last_used = LastUsed()
