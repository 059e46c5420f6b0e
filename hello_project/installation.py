"""One installation's place on disk and on the network, checked before anything is started."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO, Final

from django.core.management.utils import get_random_secret_key
from django.db import DatabaseError, connection
from redis import Redis
from redis.exceptions import RedisError

REACH_SECONDS: Final = 5.0


class NotUsable(Exception):
    """Something that `up` needs cannot be had; the message is a sentence that says what to do."""


def prepare_data_dir(data_dir: Path) -> None:
    """Make it, ours to write. Raises NotUsable."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = data_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise NotUsable(f"DATA_DIR cannot be written: {error}.") from error


def lock(data_dir: Path, address: str) -> IO[str]:
    """Hold the installation for this process until the file is closed. Raises NotUsable."""
    file = (data_dir / "up.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise NotUsable(
            f"`up` runs here already ({holder}): stop it first, or set another DATA_DIR."
        ) from error
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} at {address}\n")
    file.flush()
    return file


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises NotUsable."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise NotUsable(f"HOST is {host!r}, which is not an address here: {error}.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            advice = "stop what uses it, or choose another with --port or PORT."
        else:
            advice = "choose others with --host and --port, or HOST and PORT."
        raise NotUsable(
            f"Cannot listen on {host} port {port} ({error.strerror}): {advice}"
        ) from error
    return listener


def reach_store(url: str) -> None:
    """Raises NotUsable."""
    client = Redis.from_url(url, socket_timeout=REACH_SECONDS, socket_connect_timeout=REACH_SECONDS)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        raise NotUsable(f"REDIS_URL names a store that does not answer: {error}.") from error
    finally:
        client.close()


def reach_database() -> None:
    """Raises NotUsable."""
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        reason = str(error).strip().replace("\n", " ")
        raise NotUsable(f"DATABASE_URL names a database that does not answer: {reason}.") from error


def ensure_secret_key(path: Path) -> str:
    """The secret key of this installation, made on first use, readable by its owner alone."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(file, "w") as opened:
        opened.write(get_random_secret_key())
    return path.read_text().strip()
