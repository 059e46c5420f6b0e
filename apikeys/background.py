"""What requests leave to be written down: gathered in memory, written beside them by a thread."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from multiprocessing.util import Finalize
from threading import Event, Lock, Thread
from typing import Final
from weakref import WeakSet

logger = logging.getLogger(__name__)


class FlushedInBackground(ABC):
    """Flushed every `flush_seconds` by a daemon thread, and when the process ends in order.

    Whoever gathers calls `ensure_flushes` afterwards: the first call in a process starts the
    thread. A forked child forgets what its parent had gathered, since the parent writes that, and
    starts a thread of its own.
    """

    _runs: bool
    _lock: Lock
    """Held for as long as it takes to gather something, or to take what was gathered."""

    def __init__(self, flush_seconds: float) -> None:
        self.flush_seconds = flush_seconds
        self._begin()
        _all.add(self)

    @abstractmethod
    def write(self) -> None:
        """Write down what was gathered since the last time. One thread at a time is in here."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what was gathered and not yet written."""

    def flush(self) -> None:
        """Write now. Waits for a flush under way: what that has taken is written on return."""
        with self._flushing:
            self.write()

    def flush_unattended(self) -> None:
        """A flush outside of any request. To be extended by who must close what it has opened."""
        self.flush()

    def ensure_flushes(self) -> None:
        if not self._runs:
            self._start()

    def flush_soon(self) -> None:
        """Let the thread flush now instead of at its time."""
        self._due.set()

    def stop(self) -> None:
        """The last flush. Only the process that has gathered something has one."""
        if self._runs:
            self._is_stopping = True
            self._due.set()
            self.flush_unattended()

    def _begin(self) -> None:
        self._lock = Lock()
        self._flushing = Lock()
        self._due = Event()
        self._is_stopping = False
        self._runs = False
        self.clear()

    def _start(self) -> None:
        with self._lock:
            if self._runs:
                return
            self._runs = True
        Thread(target=self._run, name=f"flush-{type(self).__name__}", daemon=True).start()
        # Unlike atexit, also where multiprocessing ends the process, as granian's workers do.
        Finalize(None, self.stop, exitpriority=0)

    def _run(self) -> None:
        while True:
            self._due.wait(self.flush_seconds)
            self._due.clear()
            if self._is_stopping:
                return
            try:
                self.flush_unattended()
            except Exception:  # Without this thread, the memory would only fill.
                logger.exception("%s could not be flushed.", type(self).__name__)


_all: Final[WeakSet[FlushedInBackground]] = WeakSet()


def _begin_anew() -> None:
    for gathered in _all:
        gathered._begin()


os.register_at_fork(after_in_child=_begin_anew)
