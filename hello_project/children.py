"""Child processes that do not outlive this one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a child that a Ctrl-C in the terminal does not reach: its parent stops it in order.

    On Linux the kernel stops it when the parent dies of anything else, kill -9 included.
    """
    return subprocess.Popen(
        command,
        process_group=0,
        preexec_fn=_follow_the_parent() if sys.platform == "linux" else None,  # noqa: PLW1509
        **options,
    )


def stop(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask it to stop; after `seconds`, end it."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _follow_the_parent() -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def follow() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # It died before the line above.
            os._exit(1)

    return follow
