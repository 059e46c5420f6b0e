"""A thread beside the requests that looks, again and again, at what others may have changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from multiprocessing.util import Finalize
from threading import Event, Lock, Thread
from typing import Final
from weakref import WeakSet

logger = logging.getLogger(__name__)


class Watcher:
    """Calls `look` every `look_seconds` in a daemon thread, and `at_the_end` when the process ends.

    The first `ensure_runs` in a process starts the thread; a forked child starts one of its own.
    """

    def __init__(
        self, look: Callable[[], None], at_the_end: Callable[[], None], look_seconds: float
    ) -> None:
        self._look = look
        self._at_the_end = at_the_end
        self.look_seconds = look_seconds
        self._begin()
        _all.add(self)

    def ensure_runs(self) -> None:
        if not self._runs:
            self._start()

    def stop(self) -> None:
        """Without waiting for a look that is under way."""
        if self._runs:
            self._stopping.set()
            self._at_the_end()

    def _begin(self) -> None:
        self._lock = Lock()
        self._stopping = Event()
        self._runs = False

    def _start(self) -> None:
        with self._lock:
            if self._runs:
                return
            self._runs = True
        Thread(target=self._run, name="network-rules", daemon=True).start()
        # Unlike atexit, also where multiprocessing ends the process, as granian's workers do.
        Finalize(None, self.stop, exitpriority=0)

    def _run(self) -> None:
        while not self._stopping.wait(self.look_seconds):
            try:
                self._look()
            except Exception:  # Without this thread, changes would be noticed by requests only.
                logger.exception("The watcher failed.")


_all: Final[WeakSet[Watcher]] = WeakSet()


def _begin_anew() -> None:
    for watcher in _all:
        watcher._begin()


os.register_at_fork(after_in_child=_begin_anew)
