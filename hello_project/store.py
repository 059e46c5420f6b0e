"""Where the store is, and how clients talk to it. The embedded one: hello_project.embedded."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS: Final = 0.05

CLIENT_OPTIONS: Final[dict[str, Any]] = {
    "SOCKET_TIMEOUT": TIMEOUT_SECONDS,
    "SOCKET_CONNECT_TIMEOUT": TIMEOUT_SECONDS,
    # No retries: a script that is sent twice may count twice.
    "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 0)},
}

# sun_path holds 108 bytes on Linux and 104 on macOS, the final NUL included.
_LONGEST_SOCKET_PATH: Final = 103


def embedded_socket(data_dir: Path) -> Path:
    """The embedded store's socket: in `data_dir`, or in a short folder when that path is too long.

    The same for every command that runs with the same DATA_DIR as the same user.
    """
    path = data_dir / "store" / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"hello-{os.getuid()}-{name}" / "valkey.sock"


def embedded_url(data_dir: Path) -> str:
    return f"unix://{quote(str(embedded_socket(data_dir)))}"
